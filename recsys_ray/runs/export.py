"""What a published model knows, as vectors for other programs.

    <directory>/items.parquet          item_id, vector, and bias where the model has one
    <directory>/users/part-*.parquet   user_id, vector: of everybody whom the model answers
    <directory>/manifest.json          written last: model, run, dimension, how a score is made of them

``score(user, item) = user.vector . item.vector (+ item.bias)``, bit by bit that of the batch job up to rounding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import MapBlocks, map_blocks_here
from recsys_ray.data.forgotten import without
from recsys_ray.data.prepare.shard import part_file
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.runs.publish import OpenedRun

ITEMS, USERS, MANIFEST = "items.parquet", "users", "manifest.json"


def export_embeddings(
    run: OpenedRun,
    directory: Location,
    map_blocks: MapBlocks = map_blocks_here,
    forgotten: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Write all vectors of the model of a run, without those of forgotten users; what was written.

    Raises:
        ConfigError: the model has no vectors.
    """
    bundle = run.bundle
    items = bundle.item_vectors
    if items is None:
        model = bundle.manifest.get("model", "?")
        raise ConfigError(
            f"model {model} has no vectors of users and items; als, pure_svd, svd, content, lightgcn, two_tower, "
            "sasrec and bert4rec have"
        )
    directory.remove([MANIFEST, USERS])
    scorable = pa.array(bundle.scorer.scorable_I)
    columns = {"item_id": bundle.item_ids, "vector": _vectors(items.vectors_ID)}
    if items.bias_I is not None:
        columns["bias"] = pa.array(items.bias_I)
    table = pa.table(columns).filter(scorable)
    (directory / ITEMS).write_parquet(table)
    shared = (str(bundle.location), str(directory), forgotten)
    counts = list(map_blocks(_export_users, range(bundle.num_shards), shared, "export the users"))
    facts = {
        "model": bundle.manifest.get("model", "?"),
        "run_id": run.record.run_id,
        "dimension": int(items.vectors_ID.shape[1]),
        "score": "user.vector . item.vector" + (" + item.bias" if items.bias_I is not None else ""),
        "items": table.num_rows,
        "users": sum(counts),
        "users_without": sum(bundle.users_per_shard) - sum(counts),
    }
    (directory / MANIFEST).write_json(facts)
    return facts


def _export_users(shard: int, shared: tuple[str, str, frozenset[str]]) -> int:
    bundle_url, directory, forgotten = shared
    bundle = _opened(bundle_url)
    assert bundle.vectors is not None  # there are item vectors
    requests = bundle.requests(shard)
    known = np.flatnonzero(bundle.scorer.answers(requests))
    requests = requests.take(known)
    table = pa.table({"user_id": requests.user_ids, "vector": _vectors(bundle.vectors.queries(requests))})
    table = without(table, forgotten)
    (Location(directory) / USERS / part_file(shard)).write_parquet(table)
    return int(table.num_rows)


@lru_cache(maxsize=1)  # a worker exports many shards of one bundle
def _opened(bundle_url: str) -> Bundle:
    return open_bundle(Location(bundle_url))


def _vectors(rows_ND: Any) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(rows_ND, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, rows_ND.shape[1])
