"""The names of what the stages write: fingerprints of all that goes into it."""

from __future__ import annotations

from collections.abc import Sequence

from recsys_ray.base.provenance import fingerprint
from recsys_ray.base.secrets import masked
from recsys_ray.config import Config, dump
from recsys_ray.data.prepare import driver as preparing
from recsys_ray.data.sources.base import Source
from recsys_ray.models import Model
from recsys_ray.recommend import bundle as bundles


def prepared_key(config: Config, source: Source) -> str:
    """Of prepared data."""
    return fingerprint(preparing.FORMAT, dump(config.data), masked(source.fingerprint()), config.seed)


def fit_key(config: Config, prepared: str, table: str | None, model: Model, parts: Sequence[str]) -> str:
    """Of a fitted model: on these parts of ``prepared``, with the item vectors in ``table``."""
    fallbacks = config.fallbacks() if model == config.chosen_model() else {}
    cold = None if config.training.cold_items is None else dump(config.training.cold_items)
    inputs = [prepared, *([table, cold] if table is not None else [])]
    inputs += [{label: [other.key, dump(other)]} for label, other in fallbacks.items()]
    return fingerprint(bundles.FORMAT, inputs, model.key, dump(model), tuple(parts), config.fit_seed)
