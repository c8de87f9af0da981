"""Metrics of written recommendations against held-out interactions: mergeable over shards, with intervals."""

from recsys_ray.evaluation.config import EvaluationSettings
from recsys_ray.evaluation.cross_validation import CrossValidation
from recsys_ray.evaluation.evaluator import ItemCounts, UserValues, evaluate_part, rating_errors
from recsys_ray.evaluation.report import Partial, Report, Segment

__all__ = [
    "CrossValidation",
    "EvaluationSettings",
    "ItemCounts",
    "Partial",
    "Report",
    "Segment",
    "UserValues",
    "evaluate_part",
    "rating_errors",
]
