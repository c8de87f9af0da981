"""A fit as one Ray task with the cores it asks for; what the fit itself spreads goes out as further tasks."""

from __future__ import annotations

import sys
from typing import Any

from recsys_ray.cluster.session import ClusterSettings, Session, available_memory
from recsys_ray.cluster.train import WorkerSettings, ray_workers
from recsys_ray.contracts import FitContext
from recsys_ray.fit import FitJob, fit_bundle


def run_fit(
    session: Session, job: FitJob, seed: int, workers: WorkerSettings, memory_limit: int | None
) -> dict[str, Any]:
    """``fit.fit_bundle`` on a machine with room; ``memory_limit`` None takes what is free there."""
    return session.run(_fit, session.settings, job, seed, workers, memory_limit)


def _fit(
    settings: ClusterSettings, job: FitJob, seed: int, workers: WorkerSettings, memory_limit: int | None
) -> dict[str, Any]:
    session = Session(settings, lambda message: print(message, file=sys.stderr, flush=True))
    # A neural model trains in workers of its own while this task waits, and gives its cores back meanwhile.
    training = ray_workers(workers, job.bundle.parent / "checkpoints", str(job.manifest["fingerprint"]))
    context = FitContext(seed, session.map_blocks, session.num_cpus, session.progress, run_workers=training)
    return fit_bundle(job, context, available_memory() if memory_limit is None else memory_limit)
