"""The pipeline on a cluster of two local nodes, and through ``ray job submit``."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.worlds import World

ROOT = Path(__file__).parent.parent
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@pytest.mark.timeout(400)
def test_two_nodes_give_the_rows_of_one(tmp_path: Path, ray_session: Any) -> None:
    from tests.soak import cluster

    one, two = World(tmp_path / "one"), World(tmp_path / "two")
    one.run("evaluate.baselines=[]")
    with cluster(two_nodes=True) as nodes:
        result = two.process("run", "evaluate.baselines=[]", variables={"RAY_ADDRESS": nodes.address})
    assert result["recommend"]["actors"] == 2  # one core a node: a process on each
    assert two.published().equals(one.published())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """A background command; it and all it started are killed at the end, and nothing else (as ``ray stop`` would)."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        yield
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait(timeout=30)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(f"nothing listens on port {port}")


@pytest.mark.timeout(400)
def test_the_pipeline_through_ray_job_submit(tmp_path: Path) -> None:
    world = World(tmp_path, train={"refit": "train+valid"})
    ports = {name: str(free_port()) for name in ("dashboard", "head", "agent")}
    environment = dict(os.environ) | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
        "RAY_ADDRESS": "",
    }
    (tmp_path / "token").write_text("f" * 64)
    head = [
        *RAY, "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=true", "--dashboard-host=127.0.0.1",
        f"--port={ports['head']}", f"--dashboard-port={ports['dashboard']}",
        f"--dashboard-agent-listen-port={ports['agent']}", f"--object-store-memory={100 * 2**20}",
    ]  # fmt: skip
    address = f"http://127.0.0.1:{ports['dashboard']}"
    entry = [sys.executable, "jobs/pipeline.py", "--config", str(world.config), "evaluate.baselines=[]"]
    submit = [*RAY, "job", "submit", "--address", address, "--working-dir", str(ROOT), "--", *entry]
    with running(head, environment):
        wait_for_port(int(ports["dashboard"]))
        done = subprocess.run(submit, capture_output=True, text=True, env=environment, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{"))
    assert set(json.loads(line)) == {"prepare", "train", "evaluate", "recommend"}
    assert len(set(world.published()["user_id"].to_pylist())) == 300


def test_every_job_file_calls_its_stage(
    tmp_path: Path, ray_session: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, train={"refit": "train+valid"}, evaluate={"baselines": [], "bootstrap": 0})
    for name in ("pipeline", "prepare", "train", "evaluate", "recommend"):
        monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", "--config", str(world.config)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "jobs" / f"{name}.py"), run_name="__main__")
        assert stopped.value.code == 0
        result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        assert result["skipped"] and result["stage"] == name if name != "pipeline" else len(result) == 4
    monkeypatch.setattr(sys, "argv", ["jobs/rollback.py", "--config", str(world.config)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "jobs" / "rollback.py"), run_name="__main__")
    assert stopped.value.code == 1 and "nothing to roll back to" in capsys.readouterr().err
