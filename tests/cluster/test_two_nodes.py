"""On a Ray cluster: a job through ``ray job submit``, two nodes of which one is lost; and the job files."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import soak
from tests.worlds import World

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with soak.cluster() as cluster:
        yield cluster


@pytest.mark.timeout(400)
def test_the_pipeline_through_ray_job_submit(tmp_path: Path, nodes: Any) -> None:
    world = World(tmp_path, training={"refit": "train+valid"})
    entry = [sys.executable, "jobs/pipeline.py", "--config", str(world.config), "evaluation.baselines=[]"]
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", f"http://{nodes.webui_url}"]
    variables = soak.environment(None) | {"RAY_AUTH_MODE": "token"}
    done = subprocess.run(
        [*submit, "--working-dir", str(ROOT), "--", *entry], capture_output=True, text=True, env=variables, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{"))
    assert set(json.loads(line)) == {
        "prepare",
        "train",
        "popularity",
        "evaluate",
        "recommend",
        "summary",
    }  # the gate compares
    assert len(set(world.published()["user_id"].to_pylist())) == 300


@pytest.mark.timeout(400)
def test_two_nodes_of_which_one_is_lost_give_the_rows_of_one(tmp_path: Path, ray_session: Any, nodes: Any) -> None:
    one, two = World(tmp_path / "one", **soak.WORLD), World(tmp_path / "two", **soak.WORLD)
    one.run(stage="recommend")
    second = nodes.add_node(**soak.NODE)
    job = soak.start(two.config, nodes.address)
    soak.wait_for_parts(two.folder, 5, lambda: job.poll() is None)
    nodes.remove_node(second, allow_graceful=False)
    assert 5 <= len(soak.parts_on_disk(two.folder)) < 48
    status, said = job.wait(timeout=120), (two.folder / "job.log").read_text()
    assert status == 0, said
    assert json.loads(said.splitlines()[-1])["actors"] == 2  # a process on each node
    assert soak.published_rows(two.folder).equals(soak.published_rows(one.folder))


def test_every_job_file_calls_its_stage(
    tmp_path: Path, ray_session: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, training={"refit": "train+valid"}, evaluation={"baselines": [], "bootstrap": 0})
    for name in ("pipeline", "prepare", "train", "evaluate", "recommend"):
        monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", "--config", str(world.config)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "jobs" / f"{name}.py"), run_name="__main__")
        assert stopped.value.code == 0
        result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        assert result["skipped"] and result["stage"] == name if name != "pipeline" else len(result) == 5
    monkeypatch.setattr(sys, "argv", ["jobs/rollback.py", "--config", str(world.config)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "jobs" / "rollback.py"), run_name="__main__")
    assert stopped.value.code == 1 and "nothing to roll back to" in capsys.readouterr().err
