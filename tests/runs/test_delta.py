"""The Delta table of the published run: its rows are those of the Parquet, whatever is published or taken back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recsys_ray.base.storage import Location
from recsys_ray.runs import publish
from recsys_ray.runs.delta import LOG, follow_latest, move_table, storage_options
from tests.here import without_ray
from tests.pages import code_of, read
from tests.runs.test_publish import facts
from tests.worlds import World

deltalake = pytest.importorskip("deltalake")


def made(root: Location, letter: str, *tables: pa.Table) -> Location:
    """A published run of these parts; made again, where it is there."""
    run = publish.start_run(root, letter * 64, {})
    for number, table in enumerate(tables):
        (run / f"part-{number:05}.parquet").write_parquet(table)
    names = [name for name in run.names() if publish.is_part(name)]
    publish.publish(root, run, facts(*(run / name for name in names)))
    return run


def lists(*users: int | str) -> pa.Table:
    return pa.table({"user_id": users, "rank": pa.array([1] * len(users), pa.int32())})


def users_of(root: Location) -> list[int | str]:
    table = deltalake.DeltaTable(root.url).to_pyarrow_table()
    return sorted(table.column("user_id").to_pylist())


def follow(root: Location) -> list[str]:
    said: list[str] = []
    follow_latest(root, True, said.append)
    return said


def test_it_follows_what_is_published_and_taken_back(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    assert follow(root) == [] and not (tmp_path / LOG).exists()
    first = made(root, "a", lists(1, 2), lists(3))
    assert "holds" in follow(root)[0] and users_of(root) == [1, 2, 3]
    second = made(root, "b", lists(4))
    assert follow(root) == [f"publish: the Delta table {root} holds {second.name}"] and users_of(root) == [4]
    assert follow(root) == []
    publish.rollback(root)
    assert follow(root) == [f"publish: the Delta table {root} holds {first.name}"] and users_of(root) == [1, 2, 3]
    publish.rollback(root, second.name)
    follow(root)
    assert users_of(root) == [4]


def test_a_run_made_again_with_other_parts_is_read_as_it_is_now(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    run = made(root, "a", lists(1, 2), lists(3), lists(4))
    follow(root)
    run.remove(["part-00002.parquet"])
    made(root, "a", lists(1, 2), lists(*range(10, 90)))
    assert move_table(root, run) and users_of(root) == [1, 2, *range(10, 90)]
    assert not move_table(root, run)
    for commit in (tmp_path / LOG).glob("*.json"):
        actions = [json.loads(line) for line in commit.read_text().splitlines()]
        added, removed = ({one[kind]["path"] for one in actions if kind in one} for kind in ("add", "remove"))
        assert added.isdisjoint(removed)  # engines differ in what they make of that


def test_other_columns_are_the_columns_of_the_table_from_then_on(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    made(root, "a", lists(1))
    follow(root)
    made(root, "b", pa.table({"user_id": ["x", "y"], "item_ids": [[1, 2], [3]]}))
    follow(root)
    found = deltalake.DeltaTable(root.url).to_pyarrow_table().to_pylist()
    assert found == [{"user_id": "x", "item_ids": [1, 2]}, {"user_id": "y", "item_ids": [3]}]


def test_a_query_that_began_before_the_switch_reads_the_run_before(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    made(root, "a", lists(1, 2))
    follow(root)
    opened = deltalake.DeltaTable(root.url)
    made(root, "b", lists(3))
    follow(root)
    assert sorted(opened.to_pyarrow_table().column("user_id").to_pylist()) == [1, 2]


def test_a_vacuum_takes_neither_runs_nor_the_pointer(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    for letter, users in (("a", (1, 2)), ("b", (3,))):
        made(root, letter, lists(*users))
        follow(root)
    before = root.files()
    for full in (False, True):
        assert deltalake.DeltaTable(root.url).vacuum(dry_run=False, full=full) == []
    assert [name for name in root.files() if not name.startswith(LOG)] == [
        name for name in before if not name.startswith(LOG)
    ]
    publish.rollback(root)
    follow(root)
    assert users_of(root) == [1, 2]


def test_what_goes_wrong_is_one_line_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Location.of(tmp_path)
    made(root, "a", lists(1))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "deltalake", None)
        [said] = follow(root)
    assert "runs.delta needs deltalake" in said and 'pip install "recsys_ray[lakes]"' in said
    (tmp_path / LOG).mkdir()
    (tmp_path / LOG / "00000000000000000000.json").write_text("{no json\n")
    [said] = follow(root)
    assert "could not be moved" in said and "\n" not in said
    told: list[str] = []
    follow_latest(root, False, told.append)
    assert "runs.delta=false" in told[0]


def test_an_endpoint_without_tls_is_told() -> None:
    assert storage_options({"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}) == {"AWS_ALLOW_HTTP": "true"}
    assert storage_options({"AWS_ENDPOINT_URL": "https://s3.example.com"}) == storage_options({}) == {}


@pytest.mark.slow
def test_it_follows_on_an_object_store(s3: dict[str, str]) -> None:
    root = Location.of("s3://recs/out/recommendations")
    options = storage_options(s3)

    def users() -> list[int]:
        table = deltalake.DeltaTable(root.url, storage_options=options).to_pyarrow_table()
        return sorted(table.column("user_id").to_pylist())

    made(root, "a", lists(1, 2), lists(3))
    assert "holds" in follow(root)[0] and users() == [1, 2, 3]
    made(root, "b", lists(4))
    assert "holds" in follow(root)[0] and users() == [4]
    publish.rollback(root)
    assert "holds" in follow(root)[0] and users() == [1, 2, 3] and follow(root) == []


def test_the_command_keeps_the_table_where_latest_is(tmp_path: Path) -> None:
    world = World(tmp_path / "world", runs={"delta": True}, evaluation={"bootstrap": 0, "baselines": []})
    with without_ray():
        first = world.run()["recommend"]["path"]
        before = world.published()
        assert rows(world) == before.to_pylist()
        world.run("recommend.n=5")
        assert rows(world) == world.published().to_pylist() != before.to_pylist()
        world.run(stage="rollback")
        assert rows(world) == before.to_pylist() and str(world.latest()) == first
        late = world.command("recommend", "recommend.n=7", "runs.delta=false")
        assert late.status == 0 and "stays where it is" in late.errors and rows(world) == before.to_pylist()
        world.run("recommend.n=7", stage="recommend")  # published before: only the table is behind
        assert rows(world) == world.published().to_pylist()
        (world.recommendations / LOG / "00000000000000000000.json").write_text("{no json\n")
        for left in (world.recommendations / LOG).glob("*[1-9].*"):
            left.unlink()
        broken = world.command("run", "recommend.n=9")
        assert broken.status == 0 and "could not be moved" in broken.errors
        assert world.published().num_rows == 300 * 9


def test_the_documentation_s_queries_give_the_published_rows(tmp_path: Path) -> None:
    duckdb, _ = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    page = read("how-to/sql.md")
    world = World(tmp_path / "world", runs={"delta": True}, evaluation={"bootstrap": 0, "baselines": []})
    with without_ray():
        world.run("recommend.n=5", stage="recommend")
        world.run(stage="recommend")
        world.run(stage="rollback")  # the rows are those of the first run
    expected = world.published().to_pandas()
    assert len(expected) == 300 * 5
    page = page.replace("runs/demo/recommendations", str(world.recommendations))
    [query] = code_of(page, "sql")
    first, second = query.split(";")[:2]
    duckdb.execute(first)
    top = expected[expected["rank"] <= 3].groupby("item_id").size()
    found = duckdb.sql(second).fetchall()
    assert found == sorted(top.items(), key=lambda pair: (-pair[1], pair[0]))[:10]
    names: dict[str, Any] = {}
    for block in code_of(page, "python"):
        exec(block, names)
    assert len(names["frame"]) == len(expected) and set(names["frame"]["item_id"]) == set(expected["item_id"])
    assert dict(names["best"].itertuples(index=False)) == dict(
        expected[expected["rank"] == 1].groupby("item_id").size()
    )
    assert dict(names["shares"].iter_rows()) == dict(expected.groupby("source").size())


def rows(world: World) -> list[dict[str, object]]:
    """The table as SQL reads it, in the order of the files."""
    table = deltalake.DeltaTable(str(world.recommendations)).to_pyarrow_table()
    files = [table_file for table_file in sorted(deltalake.DeltaTable(str(world.recommendations)).file_uris())]
    parts = pa.concat_tables([Location.of(file).read_parquet() for file in files])
    assert sorted(table.to_pylist(), key=str) == sorted(parts.to_pylist(), key=str)
    return parts.to_pylist()
