"""The pipeline on a cluster of two local nodes, and through ``ray job submit``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds import World

ROOT = Path(__file__).parent.parent
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@pytest.mark.timeout(400)
def test_two_nodes_give_the_rows_of_one(tmp_path: Path) -> None:
    from tests.soak import cluster

    one, two = World(tmp_path / "one"), World(tmp_path / "two")
    one.process("run")
    with cluster(two_nodes=True) as nodes:
        result = two.process("run", variables={"RAY_ADDRESS": nodes.address})
    assert result["recommend"]["actors"] == 2  # one core a node: an actor on each
    assert two.published().equals(one.published())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.timeout(400)
def test_every_job_through_ray_job_submit(tmp_path: Path) -> None:
    world = World(tmp_path)
    ports = {name: str(free_port()) for name in ("dashboard", "head", "agent")}
    environment = dict(os.environ) | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
        "RAY_ADDRESS": "",
    }
    (tmp_path / "token").write_text("f" * 64)
    head = [
        *RAY, "start", "--head", "--num-cpus=2", "--include-dashboard=true", "--dashboard-host=127.0.0.1",
        f"--port={ports['head']}", f"--dashboard-port={ports['dashboard']}",
        f"--dashboard-agent-listen-port={ports['agent']}", f"--object-store-memory={100 * 2**20}",
    ]  # fmt: skip
    try:
        subprocess.run(head, check=True, capture_output=True, env=environment, timeout=120)
        submit = [
            *RAY,
            "job",
            "submit",
            "--address",
            f"http://127.0.0.1:{ports['dashboard']}",
            "--working-dir",
            str(ROOT),
        ]
        for job, facts in (("prepare", 1), ("train", 1), ("evaluate", 1), ("pipeline", 6)):
            entry = f"{sys.executable} jobs/{job}.py --config {world.config}"
            done = subprocess.run(
                [*submit, "--", *entry.split()], capture_output=True, text=True, env=environment, timeout=200
            )
            assert done.returncode == 0, done.stdout + done.stderr
            line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{"))
            assert len(json.loads(line)) >= facts
        assert len(set(world.published()["user_id"].to_pylist())) == 300
    finally:
        subprocess.run([*RAY, "stop", "--force"], capture_output=True, env=environment, timeout=60)
