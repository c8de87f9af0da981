"""The whole command in this process, without a Ray: the same stages, files and errors, in a fraction of a second.

What Ray Data spreads is done one piece after the other; everything else is the product's own code. As a command:
``python -m tests.here run CONFIG``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext, map_blocks_here
from recsys_ray.cluster.session import ClusterSettings
from recsys_ray.content.encode import ShardEncoder, ShardReader
from recsys_ray.content.table import EmbedJob, add_up
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.runs.batch import ShardRecommender
from recsys_ray.runs.fit import FitJob, fit_bundle
from recsys_ray.runs.publish import whole_shards

MEMORY = 8 << 30


class HereSession:
    """In place of the session with Ray."""

    def __init__(
        self, settings: ClusterSettings, progress: Callable[[str], None] = lambda message: None, *more: Any
    ) -> None:
        self.settings, self.progress = settings, progress
        self.num_cpus = 1

    def __enter__(self) -> HereSession:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def connect(self) -> None:
        return None

    def map_blocks(self, fn: Any, blocks: Any, shared: Any = None, label: str | None = None) -> Iterator[Any]:
        return map_blocks_here(fn, blocks, shared, label)


def run_fit(session: HereSession, job: FitJob, seed: int, workers: Any, memory_limit: int | None) -> dict[str, Any]:
    context = FitContext(seed, session.map_blocks, 1, session.progress)
    return fit_bundle(job, context, MEMORY if memory_limit is None else memory_limit)


def run_batch(
    session: HereSession,
    bundle: Location,
    run: Location,
    settings: RecommendSettings,
    users_per_shard: list[int],
    ranker: Location | None = None,
) -> dict[str, Any]:
    done = whole_shards(run, session.map_blocks, session.progress)
    todo = [shard for shard in range(len(users_per_shard)) if shard not in done]
    facts: dict[str, Any] = {"shards": len(users_per_shard), "shards_resumed": len(done), "users_written": 0}
    if todo:
        recommend = ShardRecommender(str(bundle), str(run), settings, None if ranker is None else str(ranker))
        facts["users_written"] = sum(recommend(shard)["users"] for shard in todo)
    return facts


def run_embed(session: HereSession, job: EmbedJob) -> dict[str, Any]:
    done = whole_shards(job.table, session.map_blocks, session.progress)
    read, encode = ShardReader(job), ShardEncoder(job)
    return add_up([encode(read(shard)) for shard in range(job.num_shards) if shard not in done])


@contextmanager
def without_ray() -> Iterator[None]:
    """``recsys_ray.cli.main`` and ``recsys_ray.run`` do all of it here."""
    with (
        patch("recsys_ray.cluster.session.Session", HereSession),
        patch("recsys_ray.pipeline.stages.run_fit", run_fit),
        patch("recsys_ray.pipeline.stages.run_embed", run_embed),
        patch("recsys_ray.pipeline.measured.run_batch", run_batch),
    ):
        yield


if __name__ == "__main__":
    from recsys_ray.cli import main

    with without_ray():
        sys.exit(main())
