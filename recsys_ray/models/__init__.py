"""One algorithm, one file. A fit is ``fit(data, config, context) -> Scorer``; MODELS holds them by name."""

from recsys_ray.models.base import MemoryEstimate
from recsys_ray.models.registry import MODELS, SCORERS, ModelEntry, check_size, load_scorer, scorer_kind
from recsys_ray.models.scorers.cold_items import ColdItemSettings, extend_to_cold_items

__all__ = [
    "MODELS",
    "SCORERS",
    "ColdItemSettings",
    "MemoryEstimate",
    "ModelEntry",
    "check_size",
    "extend_to_cold_items",
    "load_scorer",
    "scorer_kind",
]
