"""Which index answers: the approximate one that was asked for, when its measured recall is good enough.

    <directory>/<key>.faiss    the index, when it is used
    <directory>/<key>.json     written last: what was measured and what is used

The key is a digest of the settings, so an index is built once for all workers that open the same model.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from recsys_ray.base.errors import StorageError
from recsys_ray.base.manifest import listed_files, read_manifest, write_manifest
from recsys_ray.base.provenance import stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FloatArray, ItemVectors
from recsys_ray.retrieval.approximate import ApproximateIndex, build, restored
from recsys_ray.retrieval.config import IndexSettings
from recsys_ray.retrieval.topk import Index

Progress = Callable[[str], None]


def open_index(
    directory: Location,
    items: ItemVectors,
    settings: IndexSettings,
    *,
    exact: Callable[[], Index],
    sample: Callable[[], FloatArray],
    progress: Progress = lambda message: None,
) -> tuple[Index, dict[str, Any]]:
    """The index to search and its facts: kind, recall, queries, seconds to build, and ``used``, the kind that answers.

    It is read from ``directory`` when it was built before, else built, measured and written there.

    Args:
        items: what is searched. exact: gives the exact index over the same items. sample:
        gives the queries to measure recall on; when it gives none, nothing can be measured and exact is used.

    Raises:
        BundleError: a saved index can't be read or is of other items.
    """
    key = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]
    data, record = directory / f"{settings.kind}-{key}.faiss", directory / f"{settings.kind}-{key}.json"
    if (found := _saved(data, record)) is not None:
        saved, facts = found
        if saved is None:
            return exact(), facts
        return restored(saved, items, settings, exact, str(data)), facts
    index, facts = measured(items, sample(), settings, exact)
    progress(_summary(facts, settings))
    try:
        files = {}
        if isinstance(index, ApproximateIndex):
            saved = index.saved()
            data.write_bytes(saved)
            files[data.name] = stamp(saved)
        write_manifest(record, facts | {"files": files})
    except StorageError as error:
        progress(f"index: not kept, every process builds its own ({error})")
    return index, facts


def _saved(data: Location, record: Location) -> tuple[bytes | None, dict[str, Any]] | None:
    """What was built before, and its facts; no bytes where exact was chosen, None where nothing is there whole."""
    if not record.exists():
        return None
    try:
        facts = read_manifest(record)
        files = listed_files(facts)
        saved = data.read_bytes() if files else None
    except StorageError:
        return None
    if saved is not None and files.get(data.name) != stamp(saved):
        return None
    return saved, {name: fact for name, fact in facts.items() if name != "files"}


def measured(
    items: ItemVectors, queries_BD: FloatArray, settings: IndexSettings, exact: Callable[[], Index]
) -> tuple[Index, dict[str, Any]]:
    """Build, compare with exact search on these queries, choose."""
    started = time.perf_counter()
    index = build(items, settings, exact)
    seconds = time.perf_counter() - started
    recall = _recall(index, exact(), queries_BD, min(settings.recall_at, index.num_items))
    is_used = recall is not None and recall >= settings.min_recall
    facts = {
        "kind": settings.kind,
        "used": settings.kind if is_used else "exact",
        "recall": recall,
        "recall_at": settings.recall_at,
        "queries": len(queries_BD),
        "build_seconds": round(seconds, 3),
    }
    return index if is_used else exact(), facts


def _recall(index: ApproximateIndex, exact: Index, queries_BD: FloatArray, k: int) -> float | None:
    """Mean share of the exact lists that the index finds by itself."""
    if not len(queries_BD):
        return None
    found, expected = index.search_alone(queries_BD, k), exact.search(queries_BD, k)
    shares = [np.isin(row, listed).mean() for row, listed in zip(expected.rows_BK, found.rows_BK, strict=True)]
    return float(np.mean(shares))


def _summary(facts: dict[str, Any], settings: IndexSettings) -> str:
    if facts["recall"] is None:
        return f"index: the model answers no sampled user, so {settings.kind} can't be measured and exact is used"
    found = f"recall@{facts['recall_at']} {facts['recall']:.4f} against exact search on {facts['queries']} users"
    if facts["used"] == settings.kind:
        return f"index: {settings.kind} built in {facts['build_seconds']:.1f} s, {found}"
    knobs = {"ivf": "nprobe", "hnsw": "ef_search", "sq8": "oversample", "pq": "oversample or code_bytes"}
    knob = f"recommend.index.{knobs[settings.kind]}" if settings.kind in knobs else None
    advice = "set recommend.index.kind=exact" if knob is None else f"set {knob} higher or recommend.index.kind=exact"
    return f"index: {settings.kind} has {found}, below min_recall={settings.min_recall}: exact is used; {advice}"
