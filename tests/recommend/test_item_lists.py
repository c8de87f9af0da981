"""Item lists as people write them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ray.base.errors import DataError
from recsys_ray.data.item_list import read_item_list
from recsys_ray.recommend.item_lists import listed_rows

WAYS = {
    "one a line": "{}",
    "quoted": '"item_id"\n{}',
    "mark": "\ufeffitem_id\n{}",
    "crlf": "item_id\r\n{}",
    "no header, mark": "\ufeff{}",
}


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None)
@given(ids=st.lists(st.integers(1, 10**12), max_size=20))
def test_ids_arrive_however_they_are_written(
    way: str, ids: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("lists") / "list.csv"
    file.write_text(WAYS[way].format("\n".join(map(str, ids))) + "\n", encoding="utf-8", newline="")
    assert read_item_list(str(file), "recommend.deny").to_pylist() == [str(item) for item in ids]


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_the_column_may_stand_anywhere(tmp_path: Path, separator: str) -> None:
    file = tmp_path / "list.csv"
    rows = [("title", "item_id", "year"), ("a", "7", "1"), ("b", "", ""), ("d", "  ", "3"), ("c", " 9 ", "2")]
    file.write_text("\n".join(separator.join(row) for row in rows))
    assert read_item_list(str(file), "recommend.deny").to_pylist() == ["7", "9"]


def test_parquet_columns_of_any_kind(tmp_path: Path) -> None:
    for ids in (pa.array([1, None, 3]), pa.array(["a", "b"]), pa.array(["a", "b"]).dictionary_encode()):
        pq.write_table(pa.table({"title": ["x"] * len(ids), "item_id": ids}), tmp_path / "list.parquet")
        found = read_item_list(str(tmp_path / "list.parquet"), "recommend.allow").to_pylist()
        assert found == [item for item in ids.to_pylist() if item is not None]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"title,name\na,b\n", "no column 'item_id'; found title, name"),
        (b"item_id\n\xff\n", "list.csv.*utf-8|UTF-8"),
        (b"item_id,item_id\n1,2\n", "2 columns are called 'item_id'"),
        (b"item_id,title\n1,a,b\n", "list.csv"),
    ],
)
def test_what_is_no_list_is_told(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_item_list(str(tmp_path / "list.csv"), "recommend.deny")


@pytest.mark.parametrize("data", [b"", b"\n", b"item_id\n", b"title,item_id\n", b"\xef\xbb\xbf"])
def test_a_list_may_be_empty(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list.csv").write_bytes(data)
    assert len(read_item_list(str(tmp_path / "list.csv"), "recommend.deny")) == 0


@pytest.mark.parametrize("items", [pa.array([5, 7, 9]), pa.array(["5", "7", "9"])])
def test_what_is_gone_is_told_apart(items: pa.Array) -> None:
    rows, unknown = listed_rows(pa.array(["9", "8", "gone", "5"]), items, "recommend.deny")
    assert rows.tolist() == [2, 0] and unknown.to_pylist() == ["8", "gone"]
    rows, unknown = listed_rows(pa.array([7, 6]), items, "recommend.deny")
    assert rows.tolist() == [1] and unknown.to_pylist() == [6]
    rows, unknown = listed_rows(pa.nulls(2), items, "recommend.deny")
    assert not len(rows)
    with pytest.raises(DataError, match="item ids must be"):
        listed_rows(pa.array([[1]]), items, "recommend.deny")
