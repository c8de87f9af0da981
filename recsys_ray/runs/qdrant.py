"""The items of a published run in a Qdrant collection, with what the catalogue says as payload to filter by.

A run gets a collection of its own, ``<name>-<run id>``. It is filled, searched with the queries of a sample of users
and compared with exact search; only then the alias ``<name>`` is moved to it, in one step, and collections of other
runs are deleted. So readers of the alias see one whole run or another. The score is the inner product; where items have
a bias, vectors have one coordinate more, which is 1 in a query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import ConfigError, PublishError, RecsysError
from recsys_ray.base.optional import require
from recsys_ray.base.progress import Step
from recsys_ray.base.types import FloatArray, ItemVectors
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.options import sampled_queries
from recsys_ray.runs.publish import OpenedRun

BATCH = 512
SAMPLE, LENGTH, LEAST_RECALL = 200, 20, 0.95
TIMEOUT_SECONDS = 30


def export_items(
    run: OpenedRun, where: str, name: str, progress: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """Fill, measure, switch; what was done. A run that the alias leads to already is left as it is.

    Args:
        where: address of a Qdrant server (``http://...``), or a directory or ``:memory:`` for the client's own mode.
        name: of the alias that readers use.

    Raises:
        ConfigError: the model has no item vectors, or qdrant-client is not installed. PublishError: Qdrant can't be
            reached, or finds too little of the exact lists; the alias stays where it was.
    """
    items = run.bundle.item_vectors
    if items is None:
        raise ConfigError(f"model {run.bundle.manifest.get('model', '?')} has no item vectors to search")
    qdrant = require("qdrant_client", extra="qdrant", what="export qdrant")
    with _open(qdrant, where) as client:
        return export_to(client, run, name, progress)


def export_to(
    client: Any, run: OpenedRun, name: str, progress: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """``export_items`` through an open client."""
    from qdrant_client import models

    bundle, items = run.bundle, run.bundle.item_vectors
    assert items is not None
    collection = f"{name}-{run.record.run_id}"
    rows = np.flatnonzero(bundle.scorer.scorable_I)
    facts: dict[str, Any] = {"collection": collection, "alias": name, "items": len(rows)}
    leads_to = {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}
    if leads_to.get(name) == collection and client.count(collection, exact=True).count == len(rows):
        progress(f"export: {name} is {collection} already")
        return facts | {"skipped": True}
    if client.collection_exists(collection):  # what an interrupted export left
        client.delete_collection(collection)
    points_IJ = with_bias(items)
    size = models.VectorParams(size=points_IJ.shape[1], distance=models.Distance.DOT)
    client.create_collection(collection, vectors_config=size)
    for start in range(0, len(rows), BATCH):
        block = rows[start : start + BATCH]
        payloads = payloads_of(bundle, block)
        points = models.Batch(ids=block.tolist(), vectors=points_IJ[block].tolist(), payloads=payloads)
        client.upsert(collection, points=points, wait=True)
        progress(Step("export: items", min(start + BATCH, len(rows)), len(rows)))
    recall = _recall(client, collection, bundle, items)
    if recall is not None and recall < LEAST_RECALL:
        client.delete_collection(collection)
        raise PublishError(
            f"Qdrant finds {recall:.4f} of the exact lists, below {LEAST_RECALL}; {name} stays where it was; raise the "
            "server's hnsw ef_construct"
        )
    created = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=name))
    deleted = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))
    client.update_collection_aliases([deleted, created] if name in leads_to else [created])
    for other in client.get_collections().collections:
        if other.name.startswith(f"{name}-") and other.name != collection and other.name not in leads_to.values():
            client.delete_collection(other.name)
    before = leads_to.get(name)
    if before is not None and before != collection and before.startswith(f"{name}-"):
        client.delete_collection(before)
    return facts | {"recall": recall, "recall_at": LENGTH, "skipped": False}


def with_bias(items: ItemVectors) -> FloatArray:
    """(I, J) item vectors, with the bias behind them where there is one."""
    if items.bias_I is None:
        return items.vectors_ID
    return np.concatenate([items.vectors_ID, items.bias_I[:, None]], axis=1)


def payloads_of(bundle: Bundle, rows: Any) -> list[dict[str, Any]]:
    """What the catalogue says of these items: item_id, title, genres, year, count and every further column; without
    what is null, and without the text that was embedded."""
    table = bundle.items.drop_columns([name for name in ("text",) if name in bundle.items.column_names])
    found: list[dict[str, Any]] = table.take(pa.array(rows)).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in found]


def _recall(client: Any, collection: str, bundle: Bundle, items: ItemVectors) -> float | None:
    """Mean share of exact lists that Qdrant finds for a sample of users; None where the model answers nobody."""
    queries_BD = sampled_queries(bundle, SAMPLE)
    if not len(queries_BD):
        return None
    k = min(LENGTH, bundle.num_items)
    expected = bundle.index.search(queries_BD, k, None, bundle.scorer.scorable_I)
    ones = np.ones((len(queries_BD), int(items.bias_I is not None)), np.float32)
    shares = []
    for row, query in enumerate(np.concatenate([queries_BD, ones], axis=1).tolist()):
        found = [point.id for point in client.query_points(collection, query=query, limit=k).points]
        listed = expected.rows_BK[row][expected.rows_BK[row] >= 0]
        shares.append(np.isin(listed, found).mean() if len(listed) else 1.0)
    return float(np.mean(shares))


@contextmanager
def _open(qdrant: Any, where: str) -> Iterator[Any]:
    """A client; whatever goes wrong between here and the server is one line."""
    try:
        if "://" in where:
            client = qdrant.QdrantClient(url=where, timeout=TIMEOUT_SECONDS, check_compatibility=False)
        else:
            client = qdrant.QdrantClient(where) if where == ":memory:" else qdrant.QdrantClient(path=where)
        try:
            yield client
        finally:
            client.close()
    except RecsysError:
        raise
    except Exception as error:  # of the client, of httpx, of grpc
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PublishError(f"{where}: Qdrant can't be used ({said}); start it, or name another with --to") from error
