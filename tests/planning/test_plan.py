"""What is told before a run is what the run finds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_ray.config import load_config
from recsys_ray.data.prepared import Prepared
from recsys_ray.planning.plan import plan
from tests.here import without_ray
from tests.worlds import World


def table_world(folder: Path, **sections: object) -> World:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        f"u{user},i{(user * 7 + step) % 23},{1_700_000_000 + user * 99 + step}"
        for user in range(30)
        for step in range(9)
    ]
    (folder / "log.csv").write_text("\n".join(["who,what,ts", *rows]) + "\n")
    data = {
        "source": "table", "path": str(folder / "log.csv"), "split": {"kind": "leave_last_out"},
        "columns": {"user_id": "who", "item_id": "what", "timestamp": "ts"},
    }  # fmt: skip
    return World(folder, data=data, recommend={"n": 5}, evaluation={"bootstrap": 20, "k": [5]}, **sections)


def test_counts_are_those_of_the_run_and_what_is_there_is_skipped(tmp_path: Path) -> None:
    world = table_world(tmp_path, runs={"accuracy": {"override": True}})
    config = load_config(str(world.config))
    before = plan(config)
    assert not any(stage.skipped for stage in before.stages) and before.exact
    assert before.example[0]["user_id"] == "u0" and before.example[0]["timestamp"].startswith("2023-11-14")
    with without_ray():
        assert world.command("run").status == 0
    after = plan(config)
    assert [stage.stage for stage in after.stages if stage.skipped] == ["prepare", "train", "refit"]
    prepared = Prepared.open(next((tmp_path / "out" / "prepared").iterdir()).as_posix() and _only(tmp_path))
    assert (before.users, before.items) == (prepared.num_users, prepared.num_items) == (30, 23)
    assert before.interactions == 270


def _only(folder: Path) -> object:
    from recsys_ray.base.storage import Location

    place = Location.of(str(folder / "out" / "prepared"))
    return place / place.names()[0]


def test_money_is_time_and_too_little_memory_is_told(tmp_path: Path) -> None:
    world = table_world(tmp_path)
    outcome = world.command("plan --price 36")
    stages = outcome.result["stages"]
    assert outcome.status == 0
    assert all(stage["money"] == pytest.approx(stage["seconds"] / 100, abs=1e-5) for stage in stages)
    limited = world.command("plan", "training.memory_limit_gib=0.0000001", "model=ease")
    assert limited.status == 1 and "problem: train needs about" in limited.errors


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    world = table_world(tmp_path)
    outcome = world.command("plan", "recommend.n=0", "model.neighbours=3", "dat.x=1")
    assert outcome.status == 1 and outcome.errors.count("\n") == 1
    assert all(key in outcome.errors for key in ("recommend.n", "model.neighbours", "dat"))


def test_no_ray_is_imported(tmp_path: Path) -> None:
    world = table_world(tmp_path)
    code = (
        "import sys\nfrom recsys_ray.cli import main\n"
        f"status = main(['plan', {str(world.config)!r}])\n"
        "sys.exit(str(status) if status or {'ray', 'torch'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["users"] == 30
