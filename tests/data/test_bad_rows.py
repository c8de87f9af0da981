"""Broken input: one clear line each, and nothing that could be taken for complete data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from recsys_ray.base.errors import RecsysError
from tests.data_worlds import COLUMNS, prepare_events, prepare_values, settings_of, write_csv

GOOD = "1,2,3.0,1000\n"
HEAD = "user_id,item_id,rating,timestamp\n"


def refused(tmp_path: Path, pattern: str, action: Callable[[], Any]) -> None:
    with pytest.raises(RecsysError, match=pattern) as failure:
        action()
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", r"a\.csv: the file is empty"),
        (HEAD, r"no interactions"),
        (HEAD.strip(), r"a\.csv: no rows below the header"),
        ("user,item_id,rating,timestamp\n" + GOOD, r"no column 'user_id'; found user, item_id, rating, timestamp"),
        (HEAD + GOOD + "1,2,good,1000\n", r"a\.csv: column 'rating', row 2: 'good' is not a number"),
        (HEAD + GOOD + "1,2,,1000\n", r"a\.csv: column 'rating', row 2: '' is not a number"),
        (HEAD + GOOD + "1,2,nan,1000\n", r"a\.csv: column 'rating', row 2: 'nan' is not a finite rating"),
        (HEAD + GOOD + GOOD + "1,2,-inf,1000\n", r"a\.csv: column 'rating', row 3: '-inf' is not a finite rating"),
        (HEAD + GOOD + ",2,3,1000\n" + ",2,3,1000\n", r"a\.csv: column 'user_id' has 2 empty ids, the first at row 2"),
        (HEAD + GOOD + "-7,2,3,1000\n", r"column 'user_id', row 2: negative id -7"),
        (HEAD + GOOD + "1,b2,3,1000\n", r"column 'item_id', row 2: 'b2' is not an integer id; set data.id_type=string"),
        (HEAD + GOOD + "1,02,3,1000\n", r"column 'item_id', row 2: '02' is not an integer id"),
        (HEAD + "1,a,3,1000\n" + GOOD, r"column 'item_id', row 2: '2' is not like the ids before it"),
        (
            HEAD + "1,99999999999999999999,3,1000\n",
            r"column 'item_id' holds ids above the largest int64; .*id_type=string",
        ),
        (HEAD + GOOD + "1,2,3,yesterday\n", r"column 'timestamp', row 2: 'yesterday' is not a time"),
        (HEAD + GOOD + "1,2,3,\n", r"column 'timestamp', row 2: '' is not a time"),
        (HEAD + GOOD + "1,2,3,1580702706000000\n", r"column 'timestamp', row 2: .* neither epoch seconds nor milli"),
        (HEAD + GOOD + "1,2,3,1000,9\n", r"a\.csv: .*Expected 4 columns, got 5"),
        (HEAD + GOOD + "1,2\n", r"a\.csv: .*Expected 4 columns, got 2"),
    ],
)
def test_broken_text(tmp_path: Path, text: str, pattern: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    values = {"source": "table", "path": str(tmp_path / "a.csv"), "columns": COLUMNS}
    refused(tmp_path, pattern, lambda: prepare_values(tmp_path / "out", **values))


def test_ids_may_be_anything_when_they_are_declared_strings(tmp_path: Path) -> None:
    events = [("1", "b", 1, 1), ("-2", "02", 1, 1), ("03", "99999999999999999999", 1, 1)]
    prepared = prepare_events(tmp_path, events, id_type="string")
    assert prepared.items.column("item_id").to_pylist() == ["02", "99999999999999999999", "b"]


@pytest.mark.parametrize(
    ("columns", "pattern"),
    [
        ({"user_id": [1.0], "item_id": [1]}, r"column 'user_id' must hold integers or strings as ids, found double"),
        ({"user_id": [1], "item_id": pa.array([2**63], pa.uint64())}, r"column 'item_id' holds ids above the largest"),
        ({"user_id": [1, None], "item_id": [1, 2]}, r"column 'user_id' has 1 empty ids, the first at row 2"),
        ({"user_id": [1, 1], "item_id": [1, -2]}, r"column 'item_id', row 2: negative id -2"),
        ({"user_id": [1], "item_id": [1], "rating": [[1.0]]}, r"column 'rating' must hold a number, found list"),
        (
            {"user_id": [1, 1], "item_id": [1, 2], "rating": [1.0, None]},
            r"column 'rating', row 2: None is not a finite",
        ),
        ({"user_id": [1, 1], "item_id": [1, 2], "rating": [1.0, float("inf")]}, r"row 2: inf is not a finite rating"),
        ({"user_id": [1], "item_id": [1], "timestamp": pa.array([None], pa.int64())}, r"row 1: empty timestamp"),
        ({"user_id": [1], "item_id": [1], "timestamp": [float("nan")]}, r"row 1: nan is not a time"),
    ],
)
def test_broken_parquet_columns(tmp_path: Path, columns: dict[str, Any], pattern: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    mapped = {name: name for name in columns}
    values = {"source": "table", "path": str(tmp_path / "a.parquet"), "columns": mapped}
    refused(tmp_path, pattern, lambda: prepare_values(tmp_path / "out", **values))


def test_truncated_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"user_id": list(range(1000)), "item_id": list(range(1000))}), file)
    file.write_bytes(file.read_bytes()[:-100])
    values = {"source": "table", "path": str(file)}
    refused(tmp_path, r"a\.parquet: not a readable Parquet", lambda: prepare_values(tmp_path / "out", **values))


def test_files_whose_id_types_differ(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1], "item_id": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"user_id": ["x"], "item_id": [1]}), tmp_path / "b.parquet")
    values = {"source": "table", "path": str(tmp_path / "*.parquet")}
    pattern = r"b\.parquet: user id 'x' is no integer, but the ids before it are \(in .*a\.parquet\); set data.id_type"
    refused(tmp_path, pattern, lambda: prepare_values(tmp_path / "out", **values))


@pytest.mark.parametrize(
    ("values", "pattern"),
    [
        ({"source": "table", "path": "nowhere.csv"}, r"nowhere\.csv: no such file.*data\.path"),
        ({"source": "table", "path": "nowhere/*.csv"}, r"no such file.*data\.path"),
        ({"source": "sequences", "path": "nowhere"}, r"no such file.*data\.path"),
        ({"source": "lightgcn", "path": "nowhere"}, r"train\.txt is missing.*data\.path"),
        ({"source": "movielens", "path": "nowhere"}, r"no ratings\.csv .*data\.path"),
    ],
)
def test_missing_files(tmp_path: Path, values: dict[str, Any], pattern: str) -> None:
    values = values | {"path": str(tmp_path / values["path"])}
    refused(tmp_path, pattern, lambda: prepare_values(tmp_path / "out", **values))


@pytest.mark.parametrize(
    ("items", "pattern"),
    [
        ("item_id,name\n1,A\n1,B\n2,C\n", r"the catalogue holds 1 item ids twice, for example 1"),
        ("item_id,name\nx,A\n", r"catalogue item ids are strings \(such as 'x'\), .*interactions integers"),
        ("id,name\n1,A\n", r"items\.csv: no column 'item_id'; found id, name; set data.item_columns"),
        ("item_id\n1\n", r"items\.csv: no column 'name'"),
        ("item_id,name\n", r"the catalogue has no rows"),
        ("item_id,name\n,A\n", r"column 'item_id' has 1 empty ids"),
    ],
)
def test_broken_catalogue(tmp_path: Path, items: str, pattern: str) -> None:
    (tmp_path / "items.csv").write_text(items)
    values: dict[str, Any] = {"items": str(tmp_path / "items.csv"), "item_columns": {"title": "name"}}
    refused(tmp_path, pattern, lambda: prepare_events(tmp_path, [(1, 1, 1, 1), (1, 2, 1, 2)], **values))


@pytest.mark.parametrize(
    ("values", "pattern"),
    [
        ({"filters": {"min_rating": 9.0}}, r"no positive interactions are left; lower data.filters.min_rating"),
        ({"filters": {"start": "2030-01-01"}}, r"start and end leave no interactions"),
        ({"filters": {"k_core_users": 9}}, r"k_core_users=9 and k_core_items=0 leave no interactions"),
        ({"filters": {"k_core_items": 9}}, r"k_core_users=0 and k_core_items=9 leave no interactions"),
        ({"split": {"kind": "leave_last_out", "min_history": 5}}, r"leaves no test interactions .*split.min_history"),
        ({"split": {"kind": "random", "test_ratio": 0.01}}, r"leaves no test interactions .*split.test_ratio"),
        ({"split": {"kind": "random", "valid_ratio": 0.01, "test_ratio": 0.5}}, r"no valid interactions .*valid_ratio"),
        ({"split": {"kind": "temporal", "test_from": "1960-01-01"}}, r"leaves no training interactions"),
        ({"split": {"kind": "temporal", "test_from": "2100-01-01"}}, r"no test interactions .*split.test_from"),
    ],
)
def test_filters_and_splits_that_leave_nothing(tmp_path: Path, values: dict[str, Any], pattern: str) -> None:
    events = [("u", f"i{n}", 5, 1000 + n) for n in range(4)]
    refused(tmp_path, pattern, lambda: prepare_events(tmp_path, events, **values))


@pytest.mark.parametrize(
    ("values", "pattern"),
    [
        ({"source": "sequences", "path": "x", "split": {"kind": "given"}}, "needs train and test files"),
        ({"source": "table", "path": "x", "train": "y"}, "either path, or train and test"),
        ({"source": "table"}, "either path, or train and test"),
        ({"source": "table", "path": "x", "test": "y"}, "go with train"),
        ({"source": "table", "path": "x", "columns": {"user": "u"}}, "user"),
        ({"source": "lightgcn", "path": "x", "split": {"kind": "random"}, "filters": {"duplicates": "keep"}}, "last"),
        ({"source": "synthetic", "filters": {"start": "soon"}}, "not an ISO date"),
        ({"source": "synthetic", "filters": {"start": "2020-01-02", "end": "2020-01-01"}}, "must be before"),
        ({"source": "synthetic", "split": {"kind": "random", "test_ratio": 0.5, "valid_ratio": 0.5}}, "below 1"),
        ({"source": "synthetic", "split": {"kind": "leave_last_out", "min_history": 2}}, "leaves nothing to train on"),
        (
            {"source": "synthetic", "split": {"kind": "temporal", "test_ratio": 0.1, "test_from": "2020-01-01"}},
            "mixture",
        ),
        ({"source": "synthetic", "split": {"kind": "temporal", "valid_from": "2020-01-01"}}, "needs test_from"),
        ({"source": "netflix"}, "netflix"),
    ],
)
def test_impossible_settings(values: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ValidationError, match=pattern):
        settings_of(**values)


def test_a_place_inside_a_large_file_is_given_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_ray.data.prepare.files.byte_ranges.__defaults__", (0, 0, 70_000))
    file = write_csv(tmp_path / "a.csv", [(1, n, 3, 1000) for n in range(10_000)] + [(1, 2, "bad", 1000)])
    values = {"source": "table", "path": str(file), "columns": COLUMNS}
    refused(tmp_path, r"row [0-9,]+ after byte 70,033: 'bad'", lambda: prepare_values(tmp_path / "out", **values))
