"""The embedding job on Ray Data: shard numbers go through reading actors (files, network, decoding) and from there as
work to encoding actors, which write the parts. The two run at the same time, each with resources of its own."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import ray
import ray.data

from recsys_ray.base.progress import Ticker
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.cluster.session import Session, our_errors, set_threads
from recsys_ray.content.encode import ShardEncoder, ShardReader
from recsys_ray.content.table import EmbedJob, add_up
from recsys_ray.runs.publish import whole_shards

READING_SHARE = 0.25
"""Of an actor's cores, what a reading actor takes where both kinds share the cores."""


class _Read:
    def __init__(self, job: EmbedJob) -> None:
        set_threads(1)
        self.reader = ShardReader(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        # Texts, images and vectors of one shard: for the encoding actor alone, so it travels as it is.
        return {"work": np.array([pickle.dumps(self.reader(int(batch["shard"][0])))], dtype=object)}


class _Encode:
    def __init__(self, job: EmbedJob, threads: int) -> None:
        set_threads(threads)
        self.encoder = ShardEncoder(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"facts": np.array([json.dumps(self.encoder(pickle.loads(batch["work"][0])))])}


def run_embed(session: Session, job: EmbedJob) -> dict[str, Any]:
    """Write every part of the table that is not there yet; the counts of what was done.

    Whatever is killed while it runs, calling it again for the same table finishes the rest.
    """
    done = whole_shards(job.table, session.map_blocks, session.progress)
    todo = [shard for shard in range(job.num_shards) if shard not in done]
    if done:
        session.progress(f"embed: resuming {job.table.name}, {len(done)} of {job.num_shards} parts are there")
    session.connect()
    actors, reading, encoding = _resources(session, len(todo))
    work = ray.data.from_items([{"shard": shard} for shard in todo], override_num_blocks=max(1, len(todo)))
    dataset = work.map_batches(
        _Read,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=actors),
        fn_constructor_args=(job,),
        **reading,
    ).map_batches(
        _Encode,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=actors),
        fn_constructor_args=(job, max(1, int(session.settings.actor_cpus))),
        **encoding,
    )
    ticker = Ticker(session.progress, "embed", len(todo))
    shards = []
    with our_errors():
        for row in dataset.iter_rows() if todo else []:
            shards.append(json.loads(row["facts"]))
            ticker.step(f", {sum(facts['items'] for facts in shards):,} items")
    job.table.remove_drafts()
    return {"shards": job.num_shards, "shards_resumed": len(done), "actors": actors} | add_up(shards)


def _resources(session: Session, parts: int) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """(Actors of each kind, what a reading actor takes, what an encoding actor takes)."""
    cluster: ClusterSettings = session.settings
    if cluster.actor_gpus:
        gpus = float(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        room = max(1, int(gpus / cluster.actor_gpus))
        reading, encoding = {"num_cpus": 1.0}, {"num_cpus": 1.0, "num_gpus": cluster.actor_gpus}
    else:
        room = max(1, int(session.num_cpus / cluster.actor_cpus))
        reading = {"num_cpus": READING_SHARE * cluster.actor_cpus}
        encoding = {"num_cpus": (1 - READING_SHARE) * cluster.actor_cpus}
    return max(1, min(cluster.actors or room, parts)), reading, encoding
