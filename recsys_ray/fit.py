"""One fit from prepared data to a saved bundle: load, predict the memory, fit, write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from recsys_ray.bundle import write_bundle
from recsys_ray.contracts import FitContext, Settings
from recsys_ray.data.prepared import Prepared
from recsys_ray.models import MODELS, check_size
from recsys_ray.storage import Location


def fit_bundle(
    prepared_at: Location,
    bundle_at: Location,
    model: tuple[str, Settings],
    parts: Sequence[str],
    context: FitContext,
    memory_limit: int,
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """Fit ``model`` (its name and settings) on ``parts`` of the prepared data; returns counts and seconds.

    Raises:
        SizeError: the fit is predicted to need more than ``memory_limit`` bytes; nothing was started.
    """
    name, settings = model
    prepared = Prepared.open(prepared_at)
    estimate = check_size(name, settings, prepared.counts(tuple(parts)), memory_limit)
    context.progress(f"train: {name} on {'+'.join(parts)}, predicted memory {estimate.bytes / 2**30:.2f} GiB")
    started = time.perf_counter()
    data = prepared.train_data(tuple(parts))
    loaded = time.perf_counter()
    scorer = MODELS[name].fit(data, settings, context)
    fitted = time.perf_counter()
    facts = {
        "users": data.num_users,
        "items": data.num_items,
        "interactions": data.num_interactions,
        "fit_seconds": round(fitted - loaded, 3),
    }
    del data
    write_bundle(bundle_at, scorer, prepared, parts, manifest | {"fit": facts}, context.map_blocks)
    context.progress(f"train: {name} fitted in {fitted - loaded:.1f} s, saved in {time.perf_counter() - fitted:.1f} s")
    return facts | {"seconds": round(time.perf_counter() - started, 3)}
