"""Tables of Delta and Iceberg: their rows of now are read, never files that they have left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from recsys_ray.base.errors import DataError
from recsys_ray.data.prepare.listing import expand
from tests.data_worlds import histories, prepare_values

OLD = pa.table({"user_id": [1, 2], "item_id": [7, 8], "day": ["2020-01-01", "a b"]})
NEW = pa.table({"user_id": [3, 4], "item_id": [9, 9], "day": ["2020-01-02", "2020-01-03"]})


def test_a_delta_table_is_its_rows_of_now(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    for rows, mode in ((OLD, "append"), (NEW, "overwrite")):
        deltalake.write_deltalake(str(tmp_path / "t"), rows, mode=mode, partition_by=["day"])
    columns = {"timestamp": "day"}
    prepared = prepare_values(tmp_path / "out", source="table", path=str(tmp_path / "t"), columns=columns)
    assert set(histories(prepared)) == {3, 4}
    assert prepared.manifest["timestamp_range"] == [1_577_923_200_000, 1_578_009_600_000]


def test_a_delta_table_with_rows_deleted_beside_their_file_is_refused(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    settings = {"delta.columnMapping.mode": "name", "delta.minReaderVersion": "2", "delta.minWriterVersion": "5"}
    try:
        deltalake.write_deltalake(str(tmp_path / "t"), OLD, configuration=settings)
    except Exception:
        pytest.skip("this deltalake can't write such a table")
    with pytest.raises(DataError, match="columnMapping"):
        expand(str(tmp_path / "t"))


def test_an_iceberg_table_is_its_rows_of_now(tmp_path: Path) -> None:
    memory = pytest.importorskip("pyiceberg.catalog.memory")
    catalogue = memory.InMemoryCatalog("c", warehouse=tmp_path.as_uri())
    catalogue.create_namespace("n")
    table = catalogue.create_table("n.t", OLD.schema)
    table.append(OLD)
    table.overwrite(NEW)
    (folder,) = tmp_path.glob("**/metadata")
    prepared = prepare_values(tmp_path / "out", source="table", path=str(folder.parent))
    assert set(histories(prepared)) == {3, 4}


@pytest.mark.parametrize("mark", ["_delta_log/00000000000000000000.json", "metadata/v1.metadata.json"])
def test_without_its_library_a_table_is_refused(tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("deltalake", "pyiceberg.table"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / mark).parent.mkdir()
    (tmp_path / mark).write_text("{}")
    (tmp_path / "a.csv").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(
        DataError, match=r'pip install "recsys_ray\[lakes\]"; or write its rows out as Parquet'
    ) as refused:
        expand(str(tmp_path))
    assert str(refused.value).isprintable() and str(tmp_path) in str(refused.value)
