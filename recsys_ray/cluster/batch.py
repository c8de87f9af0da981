"""The batch job on Ray Data: shard numbers stream through a pool of actors, each of which holds one open bundle."""

from __future__ import annotations

from typing import Any

import ray
import ray.data

from recsys_ray.batch import ShardRecommender
from recsys_ray.cluster.session import Session, Ticker, boxed, our_errors, set_threads, unboxed
from recsys_ray.publish import finished_shards
from recsys_ray.recommend import RecommendSettings
from recsys_ray.storage import Location


class _Actor:
    """A ``ShardRecommender`` for Ray Data: a batch of shard numbers in, a row of counts for each out."""

    def __init__(self, bundle_url: str, run_url: str, settings: RecommendSettings, threads: int) -> None:
        set_threads(threads)
        self.recommender = ShardRecommender(bundle_url, run_url, settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"result": boxed(lambda: [self.recommender(int(shard)) for shard in batch["shard"]])}


def run_batch(
    session: Session, bundle: Location, run: Location, settings: RecommendSettings, users_per_shard: list[int]
) -> dict[str, Any]:
    """Write every part of the run that is not there yet; counts of what was done and what was found done.

    Whatever is killed while it runs, calling it again with the same run finishes the rest.
    """
    done = finished_shards(run)
    todo = [shard for shard in range(len(users_per_shard)) if shard not in done]
    facts: dict[str, Any] = {"shards": len(users_per_shard), "shards_resumed": len(done), "users_written": 0}
    if not todo:
        return facts
    if done:
        session.progress(f"recommend: resuming {run.name}, {len(done)} of {len(users_per_shard)} parts are there")
    session.connect()
    cluster = session.settings
    actors = min(cluster.actors or max(1, int(session.num_cpus / cluster.actor_cpus)), len(todo))
    dataset = ray.data.from_items([{"shard": shard} for shard in todo], override_num_blocks=len(todo)).map_batches(
        _Actor,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=cluster.actor_cpus,
        num_gpus=cluster.actor_gpus or None,
        fn_constructor_args=(str(bundle), str(run), settings, max(1, int(cluster.actor_cpus))),
    )
    ticker = Ticker(session.progress, "recommend", len(todo))
    score_seconds = seconds = 0.0
    with our_errors():
        for row in dataset.iter_rows():
            for part in unboxed(row["result"]):
                facts["users_written"] += part["users"]
                score_seconds, seconds = score_seconds + part["score_seconds"], seconds + part["seconds"]
                ticker.step(f", {facts['users_written']:,} users")
    run.remove(name for name in run.names() if name.endswith(".tmp"))  # left behind by killed attempts
    return facts | {"actors": actors, "score_seconds": round(score_seconds, 3), "shard_seconds": round(seconds, 3)}
