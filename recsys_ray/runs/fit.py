"""One fit from prepared data to a saved bundle: load, predict the memory, fit, write."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext, TrainData
from recsys_ray.content.table import read_content
from recsys_ray.data.prepared import Prepared
from recsys_ray.models import ColdItemSettings, Model, check_size, extend_to_cold_items, fit_member
from recsys_ray.recommend.bundle import write_bundle


@dataclass(frozen=True, slots=True)
class FitJob:
    """What is fitted, on what, and where the bundle goes."""

    prepared: Location
    bundle: Location
    model: Model
    parts: tuple[str, ...]
    manifest: dict[str, Any]
    embeddings: Location | None = None
    """A finished table of item vectors, for models and cold items that need one."""
    cold_items: ColdItemSettings | None = None
    """How items without training interactions get scores from their vectors; None leaves them without."""
    fallbacks: dict[str, Model] = field(default_factory=dict)
    """Models by name that answer where this one has no opinion; they are fitted with it and saved in its bundle."""


def fit_bundle(job: FitJob, context: FitContext, memory_limit: int) -> dict[str, Any]:
    """Fit and save; returns counts and seconds.

    Raises:
        SizeError: the fit is predicted to need more than ``memory_limit`` bytes; nothing was started.
    """
    name, prepared = job.model.key, Prepared.open(job.prepared)
    estimate = check_size(job.model, prepared.counts(job.parts), memory_limit)
    for model in job.fallbacks.values():
        check_size(model, prepared.counts(job.parts), memory_limit)
    context.progress(f"train: {name} on {'+'.join(job.parts)}, predicted memory {estimate.bytes / 2**30:.2f} GiB")
    started = time.perf_counter()
    data = prepared.train_data(job.parts)
    if job.embeddings is not None:
        data = with_content(data, job.embeddings, *(job.model, *job.fallbacks.values()))
    loaded = time.perf_counter()
    scorer = job.model.fit_scorer(data, context)
    if job.cold_items is not None:
        scorer = extend_to_cold_items(scorer, data, job.cold_items)
    # Epochs are the model's own: a fallback's are not recorded.
    beside = replace(context, epochs=[])
    fallbacks = {
        label: fit_member("recommend.fallback", label, model, data, beside, "all")
        for label, model in job.fallbacks.items()
    }
    fitted = time.perf_counter()
    facts = {
        "users": data.num_users,
        "items": data.num_items,
        "interactions": data.num_interactions,
        "fit_seconds": round(fitted - loaded, 3),
    }
    recorded = {"fit": facts, "epochs": context.epochs}
    write_bundle(job.bundle, scorer, prepared, job.parts, job.manifest | recorded, data.item_counts(), fallbacks)
    context.progress(f"train: {name} fitted in {fitted - loaded:.1f} s, saved in {time.perf_counter() - fitted:.1f} s")
    return facts | {"seconds": round(time.perf_counter() - started, 3)}


def with_content(data: TrainData, table: Location, *models: Model) -> TrainData:
    """The training data with item vectors of a finished table, those of a kind as far as a model asks for them."""
    ids = data.items.column("item_id").combine_chunks()
    wanted = frozenset[str]().union(*(model.content_kinds for model in models))
    kinds = {kind: read_content(table, ids, kind) for kind in sorted(wanted)}
    return replace(data, content=replace(read_content(table, ids), kinds=kinds))
