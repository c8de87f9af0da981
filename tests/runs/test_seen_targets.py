"""Held-out items that their users have seen before, through the whole command."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.here import without_ray
from tests.worlds import World

ITEMS = 8


def a_world(folder: Path, repeating: int) -> World:
    """Ten users with four items each; of ``repeating`` of them the last event repeats the first."""
    rows = [(user, (user + place) % ITEMS, place) for user in range(10) for place in range(4)]
    rows += [(user, user % ITEMS if user < repeating else (user + 5) % ITEMS, 9) for user in range(10)]
    folder.mkdir()
    pd.DataFrame(rows, columns=["user", "item", "time"]).to_csv(folder / "events.csv", index=False)
    data = {"source": "table", "path": str(folder / "events.csv"), "columns": {"user_id": "user", "item_id": "item"}}
    data["columns"] |= {"timestamp": "time"}
    split = {"kind": "leave_last_out", "valid": False, "min_history": 2}
    data |= {"timestamp_unit": "s", "filters": {"duplicates": "keep"}, "split": split, "shards": 2}
    return World(folder / "world", data=data, recommend={"n": 3}, evaluation={"k": [3], "bootstrap": 10})


@pytest.mark.parametrize("repeating", [0, 3])
def test_they_are_left_out_counted_and_said_once(tmp_path: Path, repeating: int) -> None:
    world = a_world(tmp_path / "data", repeating)
    with without_ray():
        outcome = world.command("evaluate")
        again = world.command("evaluate", "recommend.filter_seen=false")
    assert outcome.status == 0, outcome.errors
    [_, report] = [json.loads(path.read_text()) for path in sorted(world.folder.rglob("metrics.json"), key=_age)][::-1]
    counts = [report["model"]["counts"], *(report["baselines"][name]["counts"] for name in report["baselines"])]
    assert len(counts) == 3
    assert {(found["users_with_targets"], found["targets_seen"]) for found in counts} == {(10 - repeating, repeating)}
    assert outcome.errors.count("were seen before by their users") == (1 if repeating else 0)
    assert again.status == 0 and "seen before" not in again.errors


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
