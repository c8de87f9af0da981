"""One algorithm, one file. A fit is ``fit(data, config, context) -> Scorer``; MODELS holds them by name."""

from recsys_ray.models.common import MemoryEstimate
from recsys_ray.models.registry import MODELS, SCORERS, ModelEntry, check_size, load_scorer, scorer_kind

__all__ = ["MODELS", "SCORERS", "MemoryEstimate", "ModelEntry", "check_size", "load_scorer", "scorer_kind"]
