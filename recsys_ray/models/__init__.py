"""One algorithm, one file. A fit is ``fit(data, config, context) -> Scorer``; MODELS holds them by name."""

from recsys_ray.models.cold import ColdItemSettings, extend_to_cold_items
from recsys_ray.models.common import MemoryEstimate
from recsys_ray.models.registry import MODELS, SCORERS, ModelEntry, check_size, load_scorer, scorer_kind

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
