"""One algorithm, one file: a class whose fields are its settings. MODELS holds them by name."""

from recsys_ray.models.base import Model
from recsys_ray.models.members import fit_member
from recsys_ray.models.popularity import Popularity
from recsys_ray.models.registry import MODELS, check_size, load_scorer, save_scorer, scorer_kinds
from recsys_ray.models.scorers.cold_items import ColdItemSettings, extend_to_cold_items
from recsys_ray.models.single import model_section, without_name
from recsys_ray.models.transitions import Transitions

__all__ = [
    "MODELS",
    "ColdItemSettings",
    "Model",
    "Popularity",
    "Transitions",
    "check_size",
    "extend_to_cold_items",
    "fit_member",
    "load_scorer",
    "model_section",
    "save_scorer",
    "scorer_kinds",
    "without_name",
]
