"""What a user can get wrong, through the command: one line, a non-zero exit, nothing half-written taken for whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.worlds import World, write_csv

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

ROWS = [
    f"{user},{item},{(user + item) % 5 + 1},{1000 * user + item}" for user in range(12) for item in range(user % 4, 9)
]
COLUMNS = {"user_id": "user_id", "item_id": "item_id", "rating": "rating", "timestamp": "timestamp"}


def table_world(folder: Path, path: Path | str, **data: Any) -> World:
    source = {"source": "table", "path": str(path), "columns": COLUMNS, "shards": 2} | data
    return World(folder, data=source, recommend={"n": 3})


def assert_refused(world: World, *words: str, overrides: tuple[str, ...] = (), stage: str = "run") -> None:
    outcome = world.command(stage, *overrides)
    assert outcome.status == 1, outcome.output
    errors = [line for line in outcome.errors.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and outcome.errors.splitlines()[-1] == errors[0], outcome.errors
    for word in words:
        assert word in errors[0], errors[0]
    assert "Traceback" not in outcome.errors
    assert not (world.recommendations / "LATEST").exists()


def test_the_good_table_is_accepted(tmp_path: Path) -> None:
    table_world(tmp_path, write_csv(tmp_path / "good.csv", ROWS)).run()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("3,4,five,7", ("rating", "five")),
        ("3,4,nan,7", ("rating", "nan")),
        ("3,4,inf,7", ("rating", "inf")),
        ("-3,4,5,7", ("user_id", "-3")),
        ("3,-4,5,7", ("item_id", "-4")),
        ("bob,4,5,7", ("user_id", "bob", "id_type")),
        (",4,5,7", ("user_id",)),
        ("3,4,5,soon", ("timestamp", "soon")),
        ("3,4,5", ("bad.csv",)),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, words: tuple[str, ...]) -> None:
    assert_refused(table_world(tmp_path, write_csv(tmp_path / "bad.csv", [*ROWS, row])), *words)


def test_missing_wrong_and_empty_files(tmp_path: Path) -> None:
    assert_refused(table_world(tmp_path, tmp_path / "nowhere.csv"), "nowhere.csv")
    wrong = write_csv(tmp_path / "wrong.csv", ROWS, header="user,item_id,rating,timestamp")
    assert_refused(table_world(tmp_path, wrong), "user_id", "user, item_id")
    (tmp_path / "empty.csv").write_text("")
    assert_refused(table_world(tmp_path, tmp_path / "empty.csv"), "empty.csv", "empty")
    assert_refused(table_world(tmp_path, write_csv(tmp_path / "header.csv", [])), "header.csv")


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.parquet"
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": [1, 2], "rating": [1.0, 2.0], "timestamp": [1, 2]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert_refused(table_world(tmp_path, path), "cut.parquet")


def test_a_negative_or_missing_id_in_parquet(tmp_path: Path) -> None:
    for name, ids in (("negative", [1, -7]), ("missing", [1, None])):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"user_id": ids, "item_id": [1, 2], "rating": [1.0, 2.0], "timestamp": [1, 2]}), path)
        assert_refused(table_world(tmp_path, path), "user_id")


def test_an_item_outside_the_catalogue(tmp_path: Path) -> None:
    items = write_csv(tmp_path / "items.csv", [str(item) for item in range(8)], header="item_id")
    world = table_world(tmp_path, write_csv(tmp_path / "good.csv", ROWS), items=str(items))
    assert_refused(world, "8", "catalogue", "unknown_items")
    assert world.command("run", "data.unknown_items=drop").status == 0


def test_splits_and_filters_that_leave_nothing(tmp_path: Path) -> None:
    world = table_world(tmp_path, write_csv(tmp_path / "good.csv", ROWS))
    assert_refused(world, "k_core", overrides=("data.filters.k_core_users=50",))
    assert_refused(world, "test_from", overrides=("data.split={kind: temporal, test_from: '2100-01-01'}",))
    assert_refused(world, "start", overrides=("data.filters.start=2100-01-01",))


def test_a_user_left_without_history_is_answered_by_the_fallback_and_said(tmp_path: Path) -> None:
    rows = [*ROWS, "77,1,1,5"]
    world = table_world(tmp_path, write_csv(tmp_path / "low.csv", rows), filters={"min_rating": 2.0})
    outcome = world.command("run")
    assert outcome.status == 0 and "1 users have no positive interaction" in outcome.errors
    mine = [row for row in world.published().to_pylist() if row["user_id"] == 77]
    assert len(mine) == 3 and {row["source"] for row in mine} == {"fallback:popularity"}
    assert 1 not in {row["item_id"] for row in mine}  # below the threshold, but seen


def test_nothing_held_out_to_evaluate_on(tmp_path: Path) -> None:
    world = table_world(tmp_path, write_csv(tmp_path / "good.csv", ROWS))
    assert_refused(world, "data.split.kind", stage="evaluate")


def test_more_rows_than_items(tmp_path: Path) -> None:
    world = table_world(tmp_path, write_csv(tmp_path / "good.csv", ROWS))
    assert_refused(world, "recommend.n=40", "9 items", overrides=("recommend.n=40",))


def test_item_lists_that_name_strangers_or_leave_nothing(tmp_path: Path) -> None:
    world = table_world(tmp_path, write_csv(tmp_path / "good.csv", ROWS))
    listed = tmp_path / "list.txt"
    listed.write_text("1\n99\n")
    assert_refused(world, "recommend.allow", "99", overrides=(f"recommend.allow={listed}",))
    outcome = world.command("run", f"recommend.deny={listed}", f"output={tmp_path / 'denied'}")
    assert outcome.status == 0 and "1 items of recommend.deny are not in the catalogue, such as '99'" in outcome.errors
    listed.write_text("\n".join(str(item) for item in range(9)))
    assert_refused(world, "leave no item", overrides=(f"recommend.deny={listed}",))
    assert_refused(world, "nolist.txt", overrides=("recommend.allow=nolist.txt",))


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "version", "manifest"])
def test_a_damaged_bundle_is_made_again(tmp_path: Path, damage: str) -> None:
    world = table_world(tmp_path, write_csv(tmp_path / "good.csv", ROWS))
    bundle = Path(world.run(stage="train")["path"])
    arrays, manifest = bundle / "arrays.safetensors", bundle / "manifest.json"
    whole = arrays.read_bytes()
    content = bytearray(whole)
    if damage == "cut":
        arrays.write_bytes(content[:-9])
    elif damage == "flip":
        content[-1] ^= 0xFF
        arrays.write_bytes(content)
    elif damage == "missing":
        (bundle / "items.parquet").unlink()
    elif damage == "version":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    else:
        manifest.write_text("{")
    word = {"cut": "bytes", "flip": "checksum", "missing": "items.parquet"}
    outcome = world.command("recommend")
    assert outcome.status == 0 and word.get(damage, "manifest.json") in outcome.errors, outcome.errors
    assert "made again" in outcome.errors and arrays.read_bytes() == whole


def test_a_fit_too_large_is_refused_before_it_starts(tmp_path: Path) -> None:
    world = table_world(tmp_path, write_csv(tmp_path / "good.csv", ROWS))
    assert_refused(world, "GiB", overrides=("training.memory_limit_gib=0.0000001", "model={name: ease}"))


def test_a_damaged_part_does_not_pass_the_gate(tmp_path: Path) -> None:
    world = table_world(tmp_path, write_csv(tmp_path / "good.csv", ROWS))
    run = Path(world.run("runs.enabled=false", stage="recommend")["path"])
    part = run / "part-00000.parquet"
    table = pq.read_table(part)
    pq.write_table(table.slice(1), part)
    assert_refused(world, "not published", "exactly 3 rows", "ranks", stage="recommend")
    part.write_bytes(part.read_bytes()[:-30])
    outcome = world.command("recommend")
    assert outcome.status == 0 and "1 parts are damaged, the first part-00000.parquet" in outcome.errors
    assert pq.read_table(part).equals(table)


def test_a_ray_that_is_not_there_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = table_world(tmp_path, write_csv(tmp_path / "good.csv", ROWS))
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # as in a process of its own
    assert_refused(world, "cluster.address=127.0.0.1:1", "running Ray", overrides=("cluster.address=127.0.0.1:1",))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert_refused(world, "RAY_ADDRESS=127.0.0.1:1")
