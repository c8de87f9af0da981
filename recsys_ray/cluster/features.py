"""Tables of features on Ray Data: shard numbers stream through tasks, each of which writes its parts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import ray
import ray.data

from recsys_ray.base.manifest import write_manifest
from recsys_ray.base.progress import Ticker
from recsys_ray.base.provenance import stamp
from recsys_ray.base.storage import Location
from recsys_ray.cluster.session import Session, our_errors
from recsys_ray.data.feature_tables import ITEMS, FeatureJob, ItemSums, item_table, write_shard
from recsys_ray.data.prepared import Prepared

MANIFEST = "manifest.json"


class _Features:
    """A batch of shard numbers in, the sums over each and the names of its files out."""

    def __init__(self, job: FeatureJob) -> None:
        self.job = job

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = [write_shard(int(shard), self.job) for shard in batch["shard"]]
        return {
            "sums": np.stack([part.sums_SI for part in found]),
            "files": np.array([json.dumps(part.files) for part in found], object),
        }


def run_features(session: Session, job: FeatureJob) -> dict[str, Any]:
    """All tables; the manifest, which commits them, last."""
    session.connect()
    prepared, output = Prepared.open(Location(job.prepared)), Location(job.output)
    shards = prepared.num_shards
    rows = ray.data.from_items([{"shard": shard} for shard in range(shards)], override_num_blocks=shards)
    results = rows.map_batches(_Features(job), batch_size=1, batch_format="numpy", num_cpus=1)
    total = ItemSums(np.zeros((6, prepared.num_items)), {})
    ticker = Ticker(session.progress, "features", shards)
    with our_errors():
        for row in results.iter_rows():
            total += ItemSums(row["sums"], json.loads(row["files"]))
            ticker.step()
    table = item_table(prepared.items, total.sums_SI)
    files = total.files | {ITEMS: stamp((output / ITEMS).write_parquet(table))}
    facts = {"users": prepared.num_users, "items": prepared.num_items, "parts": list(job.settings.parts)}
    write_manifest(output / MANIFEST, facts | {"prepared": prepared.location.name, "files": files})
    return facts
