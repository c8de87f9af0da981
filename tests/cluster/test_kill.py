"""What is killed and run again ends as if nothing had happened. A lost node is in ``test_cluster``; the long form of
the batch job's tests is ``make soak``."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from tests import soak
from tests.cluster.test_output import fit_is_reported_before_its_end, strange_lines
from tests.worlds import World

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, ray_session: Any) -> tuple[World, pa.Table]:
    """A world after a fit, and the rows of an unbroken run."""
    world = World(tmp_path_factory.mktemp("kill"), **soak.WORLD)
    world.run(stage="recommend")
    return world, soak.published_rows(world.folder)


@pytest.fixture
def world(fitted: tuple[World, pa.Table]) -> Iterator[World]:
    shutil.rmtree(fitted[0].recommendations)
    yield fitted[0]
    assert soak.published_rows(fitted[0].folder).equals(fitted[1])


def test_a_killed_command_is_finished_by_the_same_command(world: World) -> None:
    job = soak.start(world.config, address=None)
    soak.wait_for_parts(world.folder, 12, lambda: job.poll() is None)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    assert 12 <= world.run(stage="recommend")["shards_resumed"] < 48


def test_a_killed_worker_is_replaced(world: World) -> None:
    found: dict[str, Any] = {}
    job = threading.Thread(target=lambda: found.update(world.run(stage="recommend")))
    job.start()
    soak.wait_for_parts(world.folder, 8, job.is_alive)
    killed = soak.kill_one_worker(os.getpid(), job.is_alive)
    written = len(soak.parts_on_disk(world.folder))
    job.join()
    assert killed and 8 <= written < 48 and found["shards_resumed"] == 0


def noted_epochs(folder: Path) -> int:
    """The epochs of the last checkpoint that a rerun will find; 0 without one."""
    noted = 0
    with suppress(FileNotFoundError):  # checkpoints come and go
        for snapshot in folder.glob("out/models/checkpoints/*/checkpoint_manager_snapshot.json"):
            for name in re.findall(r"checkpoint_\d[^\"]*", snapshot.read_text()):
                noted = max(noted, json.loads((snapshot.parent / name / "progress.json").read_text())["epochs"])
    return noted


def kill_family(pid: int) -> None:
    """SIGKILL a driver and the Ray that it started."""
    driver = psutil.Process(pid)
    for process in [driver, *driver.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def test_a_killed_training_continues_from_its_checkpoint(tmp_path: Path, ray_session: Any) -> None:
    model = {"name": "lightgcn", "epochs": 40, "batch_size": 64, "embedding_dim": 8, "negatives": 16, "layers": 1}
    whole, broken = World(tmp_path / "whole", model=model), World(tmp_path / "broken", model=model)
    expected = load_file(Path(whole.run(stage="train")["path"], "arrays.safetensors"))
    shutil.copytree(whole.folder / "out" / "prepared", broken.folder / "out" / "prepared")
    job = soak.start(broken.config, address=None, stage="train")
    deadline = time.monotonic() + 120
    while noted_epochs(broken.folder) < 3:
        assert job.poll() is None and time.monotonic() < deadline, (broken.folder / "job.log").read_text()
        time.sleep(0.01)
    kill_family(job.pid)
    job.wait()
    noted = noted_epochs(broken.folder)
    assert 3 <= noted < 40 and not list(broken.folder.glob("out/models/*/manifest.json"))
    (broken.folder / "job.log").unlink()
    status = soak.start(broken.config, address=None, stage="train").wait()
    said = (broken.folder / "job.log").read_text()
    assert status == 0, said
    assert [int(epoch) for epoch in re.findall(r"train: epoch (\d+)", said)] == list(range(noted + 1, 41))
    assert strange_lines(said, "stderr", "stdout") == [] and fit_is_reported_before_its_end(said, "lightgcn")
    found = load_file(Path(json.loads(said.splitlines()[-1])["path"], "arrays.safetensors"))
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
