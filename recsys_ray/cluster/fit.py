"""A fit as one Ray task with the cores it asks for; what the fit itself spreads goes out as further tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recsys_ray.base.memory import available_memory
from recsys_ray.base.types import FitContext
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.cluster.progress import Outlet
from recsys_ray.cluster.session import Session
from recsys_ray.runs.fit import FitJob, fit_bundle
from recsys_ray.training import WorkerSettings


def run_fit(
    session: Session, job: FitJob, seed: int, workers: WorkerSettings, memory_limit: int | None
) -> dict[str, Any]:
    """``fit.fit_bundle`` on a machine with room; ``memory_limit`` None takes what is free there."""
    return session.run(_fit, session.settings, job, seed, workers, memory_limit)


def _fit(
    outlet: Outlet, settings: ClusterSettings, job: FitJob, seed: int, workers: WorkerSettings, memory_limit: int | None
) -> dict[str, Any]:
    with outlet.open() as tell:
        session = Session(settings, tell)

        def train(fn: Callable[[Any, Any], Any], shared: Any, key: str) -> Any:
            """A neural model trains in workers of its own while this task waits, and gives its cores back meanwhile."""
            from recsys_ray.cluster.train import ray_workers

            storage = job.bundle.parent / "checkpoints"
            return ray_workers(workers, storage, job.manifest["fingerprint"], outlet)(fn, shared, key)

        context = FitContext(seed, session.map_blocks, session.num_cpus, tell, run_workers=train)
        return fit_bundle(job, context, available_memory() if memory_limit is None else memory_limit)
