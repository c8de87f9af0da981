"""Fixtures that more than one test file needs, and the tier of every test.

    ray       starts a Ray, or works on the one of ``ray_session``; whoever asks for that fixture is marked here
    slow      takes seconds: left out of the quick tests
    browser   drives a browser

``make quick`` runs what is none of these.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.mock_s3 import mock_s3
from tests.redis_server import RedisServer, running_redis

# What an example may take depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Threads of torch and BLAS that meet after every tiny product cost more than they bring, above all beside other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DATASETS = Path(__file__).parent.parent.parent / "shared" / "datasets"


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The directory of public data sets beside this repository; tests that need it are skipped where it is absent."""
    if not DATASETS.is_dir():
        pytest.skip("no data sets in ../shared/datasets")
    return DATASETS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "ray_session" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")


@pytest.fixture(autouse=True)
def no_ray_unasked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is not marked ``ray`` fails when it starts one."""
    if request.node.get_closest_marker("ray") is None:
        import ray

        def refuse(*args: Any, **settings: Any) -> None:
            pytest.fail("this test starts a Ray: mark it with pytest.mark.ray, or use ray_session")

        monkeypatch.setattr(ray, "init", refuse)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Any]:
    """One small local Ray for all tests that need it: starting it takes longer than most tests."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_idle_worker_killing_time_threshold_ms", "600000")  # processes are used again by later tests
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=256 * 2**20,
            log_to_driver=False,
        )
    yield ray
    ray.shutdown()


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    """A bucket s3://recs, and the variables by which others find it."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with mock_s3("recs") as variables:
        yield variables


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis; whoever asks for one is skipped where it can't be started."""
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here")
    with running_redis() as server:
        yield server
