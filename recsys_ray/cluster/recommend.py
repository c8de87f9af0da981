"""The batch job: shard numbers go through worker processes, each of which holds one open bundle.

On a CPU these are tasks, whose workers outlive a job: the next one finds them started and warm. After a task on a GPU
Ray ends the process, so there an actor of Ray Data holds the bundle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import ray
import ray.data

from recsys_ray.base.progress import Ticker
from recsys_ray.base.storage import Location
from recsys_ray.cluster.session import Session, our_errors, set_threads
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.runs.batch import ShardRecommender
from recsys_ray.runs.publish import whole_shards

COUNTS = ("users", "score_seconds", "seconds")
"""What a shard tells of itself, each a column."""
TASK = "recommend_shard"
"""How the work is called in the names of processes."""


@lru_cache(maxsize=1)
def _opened(bundle_url: str, run_url: str, settings: RecommendSettings, ranker_url: str | None) -> ShardRecommender:
    return ShardRecommender(bundle_url, run_url, settings, ranker_url)


class _Recommend:
    """A batch of shard numbers in, a row of counts for each out."""

    def __init__(
        self, bundle_url: str, run_url: str, settings: RecommendSettings, ranker_url: str | None, threads: int
    ) -> None:
        self.opened = (bundle_url, run_url, settings, ranker_url)
        self.threads = threads

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        set_threads(self.threads)  # a fit may have had the process before
        recommend = _opened(*self.opened)
        parts = [recommend(int(shard)) for shard in batch["shard"]]
        return {name: np.array([part[name] for part in parts]) for name in COUNTS}


def run_batch(
    session: Session,
    bundle: Location,
    run: Location,
    settings: RecommendSettings,
    users_per_shard: list[int],
    ranker: Location | None = None,
) -> dict[str, Any]:
    """Write every part of the run that is not there yet; counts of what was done and what was found done.

    Whatever is killed while it runs, calling it again with the same run finishes the rest.
    """
    done = whole_shards(run, session.map_blocks, session.progress)
    todo = [shard for shard in range(len(users_per_shard)) if shard not in done]
    facts: dict[str, Any] = {"shards": len(users_per_shard), "shards_resumed": len(done), "users_written": 0}
    if not todo:
        return facts
    if done:
        session.progress(f"recommend: resuming {run.name}, {len(done)} of {len(users_per_shard)} parts are there")
    session.connect()
    cluster = session.settings
    actors = min(cluster.actors or max(1, int(session.num_cpus / cluster.actor_cpus)), len(todo))
    ranker_url = None if ranker is None else str(ranker)
    arguments = (str(bundle), str(run), settings, ranker_url, max(1, int(cluster.actor_cpus)))
    if cluster.actor_gpus:
        shards = ray.data.from_items([{"shard": shard} for shard in todo], override_num_blocks=len(todo))
        results = shards.map_batches(
            _Recommend,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
            fn_constructor_args=arguments,
            num_cpus=cluster.actor_cpus,
            num_gpus=cluster.actor_gpus,
        ).iter_rows()
    else:
        results = _as_tasks(_Recommend(*arguments), todo, actors, cluster.actor_cpus)
    ticker = Ticker(session.progress, "recommend", len(todo))
    score_seconds = seconds = 0.0
    with our_errors():
        for row in results:
            facts["users_written"] += row["users"]
            score_seconds, seconds = score_seconds + row["score_seconds"], seconds + row["seconds"]
            ticker.step(f", {facts['users_written']:,} users")
    run.remove_drafts()
    return facts | {"actors": actors, "score_seconds": round(score_seconds, 3), "shard_seconds": round(seconds, 3)}


def _as_tasks(recommend: _Recommend, todo: Sequence[int], at_once: int, cpus: float) -> Iterator[dict[str, Any]]:
    """The counts of each shard as it is finished; a lost worker's shard is done again by another."""
    task: Any = ray.remote(num_cpus=cpus, max_retries=-1)(_one_shard).options(name=TASK)
    held, waiting = ray.put(recommend), list(reversed(todo))
    running: list[Any] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(task.remote(held, waiting.pop()))
        (done, *_), running = ray.wait(running)
        yield ray.get(done)


def _one_shard(recommend: _Recommend, shard: int) -> dict[str, Any]:
    found = recommend({"shard": np.array([shard])})
    return {name: found[name][0].item() for name in COUNTS}
