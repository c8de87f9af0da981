"""The table of users: read, laid beside the histories, carried to whoever asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests
from recsys_ray.data.attributes import AttributeEncoder
from recsys_ray.data.prepared import Prepared
from recsys_ray.models import MODELS
from recsys_ray.recommend.bundle import bundle_in_memory, open_bundle, save_bundle
from tests.data.test_loaders import write_books
from tests.data.test_sources import write_100k
from tests.data_worlds import dataset, prepare_values, write_csv

EVENTS = [(n % 7 + 1, n % 5 + 1, 1.0, n) for n in range(40)]
USERS = [(3, 31.0, "nurse"), (1, "", "miner"), (9, 50, ""), (2, 22, "nurse"), (4, 40, "miner")]
COLUMNS = {"user_id": "id", "numbers": ["age"], "categories": ["job"]}
KNOWN = {1: (None, "miner"), 2: (22, "nurse"), 3: (31, "nurse"), 4: (40, "miner"), 9: (50, None)}


def prepare_users(directory: Path, rows: list[tuple[Any, ...]] = USERS, **values: Any) -> Prepared:
    events = write_csv(directory / "events.csv", EVENTS)
    users = write_csv(directory / "users.csv", rows, "id,age,job")
    given = {"users": str(users), "user_columns": COLUMNS, "columns": {"timestamp": "timestamp"}} | values
    return prepare_values(directory / "out", source="table", path=str(events), **given)


def attributes(prepared: Prepared) -> dict[Any, tuple[Any, Any]]:
    found = {}
    for shard in range(prepared.num_shards):
        requests = prepared.requests(shard, ("train",))
        assert requests.attributes is not None
        for user, row in zip(requests.user_ids.to_pylist(), requests.attributes.to_pylist(), strict=True):
            found[user] = (row["age"], row["job"])
    return found


@pytest.mark.parametrize("shards", [1, 3])
def test_every_user_of_both_tables_is_there_with_what_is_known(tmp_path: Path, shards: int) -> None:
    prepared = prepare_users(tmp_path, shards=shards)
    assert attributes(prepared) == KNOWN | {user: (None, None) for user in (5, 6, 7)}
    table = prepared.train_data(("train",)).attributes
    assert table is not None and table.num_rows == prepared.num_users == 8
    assert any(name.startswith("attributes/") for name in prepared.files)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_other_layouts(tmp_path: Path, form: str) -> None:
    rows = {"id": [2, 1], "age": [22, None], "job": ["nurse", "miner"]}
    file = tmp_path / f"people.{form}"
    if form == "parquet":
        pq.write_table(pa.table(rows), file)
    else:
        file.write_text('{"id": 2, "age": 22, "job": "nurse"}\n{"id": 1, "age": null, "job": "miner", "more": 1}\n')
    found = attributes(prepare_users(tmp_path, users=str(file)))
    assert (found[1], found[2]) == ((None, "miner"), (22, "nurse"))


def test_filters_take_users_away_with_what_is_known_of_them(tmp_path: Path) -> None:
    prepared = prepare_users(tmp_path, filters={"k_core_users": 6, "duplicates": "keep"})
    left = {user for user in range(1, 8) if sum(event[0] == user for event in EVENTS) >= 6}
    assert attributes(prepared) == {user: KNOWN.get(user, (None, None)) for user in left}
    assert 0 < len(left) < 7


@pytest.mark.parametrize(
    ("rows", "values", "pattern"),
    [
        ([(1, 2, "a"), (1, 3, "b")], {}, r"data\.users holds a user twice, for example 1"),
        ([(1, "old", "a")], {}, r"column 'age', row 1: 'old' is not a number; name the column in .*categories"),
        ([("x", 2, "a")], {}, r"user ids in data\.users are strings, those of the interactions integers"),
        ([("", 2, "a")], {}, r"column 'id' has 1 empty ids"),
        (
            USERS,
            {"user_columns": {"numbers": ["years"]}},
            r"no column 'user_id'; found id, age, job; set data\.user_columns",
        ),
        (USERS, {"users": "nowhere.csv"}, r"nowhere\.csv: no such file.*set data\.users"),
    ],
)
def test_a_table_of_users_that_can_not_be_is_one_line(
    tmp_path: Path, rows: list[tuple[Any, ...]], values: dict[str, Any], pattern: str
) -> None:
    with pytest.raises(DataError, match=pattern) as failure:
        prepare_users(tmp_path, rows, **values)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("alone", [False, True])
def test_a_bundle_knows_its_users(tmp_path: Path, alone: bool) -> None:
    prepared = prepare_users(tmp_path, shards=2)
    scorer = MODELS["popularity"]().fit_scorer(prepared.train_data(("train",)), FitContext())
    location = Location.of(tmp_path / "models" / "popularity-1")
    save_bundle(bundle_in_memory(scorer, prepared, ("train",), {"model": "popularity"}), location, alone=alone)
    bundle = open_bundle(location, verify=True)
    for shard in range(2):
        assert bundle.requests(shard).attributes == prepared.attributes(shard)


def test_movielens_says_who_its_users_are(tmp_path: Path) -> None:
    write_100k(tmp_path / "ml-100k")
    (tmp_path / "ml-100k" / "u.user").write_text("196|49|M|writer|55105\n22|25|F|other|40206\n23|30|F||1\n")
    prepared = prepare_values(tmp_path / "out", source="movielens", size="100k", path=str(tmp_path), users=True)
    requests = prepared.requests(0, ("train",))
    assert requests.user_ids.to_pylist() == [22, 23, 196] and requests.attributes is not None
    assert requests.attributes.column("age").to_pylist() == [25, 30, 49]
    assert requests.attributes.column("occupation").to_pylist() == ["other", None, "writer"]
    with pytest.raises(DataError, match=r"u\.user: no such file.*set data\.users=false"):
        (tmp_path / "ml-100k" / "u.user").unlink()
        prepare_values(tmp_path / "again", source="movielens", size="100k", path=str(tmp_path), users=True)


def test_the_real_users_of_movielens() -> None:
    from recsys_ray.data.sources import open_source
    from tests.data_worlds import settings_of

    source: Any = open_source(settings_of(source="movielens", size="100k", path=dataset("ml-100k"), users=True))
    (chunk,) = source.user_chunks()
    users = source.read_users(chunk)
    assert users.num_rows == 943 and users.column("occupation").null_count == 0
    assert set(users.column("sex").unique().to_pylist()) == {"M", "F"}


def test_book_crossing_says_where_its_users_are_from(tmp_path: Path) -> None:
    write_books(tmp_path, True)
    rows = '"User-ID";"Location";"Age"\n"276725";"tyler, texas, usa";NULL\n"276726";"seattle, , canada";"43"\n'
    (tmp_path / "BX-Users.csv").write_text(rows)
    prepared = prepare_values(tmp_path / "out", source="book_crossing", path=str(tmp_path), users=True)
    table = prepared.attributes(0)
    assert table is not None
    assert table.to_pylist() == [{"age": None, "country": "usa"}, {"age": 43, "country": "canada"}]


def asked(table: pa.Table | None, size: int) -> Requests:
    histories = Histories.from_lists([[]] * size)
    return Requests(pa.nulls(size), np.full(size, -1, np.int32), histories, ItemLists.empty(size), table)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=4))
def test_requests_put_together_keep_what_is_known_of_each(parts: list[tuple[bool, int]]) -> None:
    table = pa.table({"age": pa.array([1.0, 2.0, 3.0], pa.float32()), "job": ["a", None, "c"]})
    requests = [asked(table.slice(0, size) if known else None, size) for known, size in parts]
    together = Requests.concatenate(requests)
    expected = [row for known, size in parts for row in (table.to_pylist()[:size] if known else [None] * size)]
    nothing = {"age": None, "job": None}
    found = [nothing] * len(together) if together.attributes is None else together.attributes.to_pylist()
    assert found == [row or nothing for row in expected]


def test_attributes_as_numbers() -> None:
    table = pa.table({"age": pa.array([10, 30, None], pa.float32()), "job": ["a", "a", "b"], "same": ["x", "x", "x"]})
    encoder = AttributeEncoder.of(table)
    assert encoder is not None and encoder.names == ["age", "job=a"]  # one user alone has b, all have x
    np.testing.assert_allclose(encoder.encode(table, 3), [[-1, 1], [1, 1], [0, 0]])
    other = pa.table({"age": pa.array([20], pa.float32()), "job": pa.array([None], pa.string()), "same": ["y"]})
    np.testing.assert_allclose(encoder.encode(other, 1), [[0, 0]])
    np.testing.assert_allclose(encoder.encode(None, 2), np.zeros((2, 2)))
    again = AttributeEncoder.from_json(encoder.to_json())
    assert again == encoder
    assert AttributeEncoder.of(table.select(["same"])) is None
