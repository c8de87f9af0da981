"""Ratings as a scale of liking: where its middle is, and how many lie below it."""

from __future__ import annotations

from typing import Any

from recsys_ray.base.proportion import MANY, MOST
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepared import Prepared


def rating_middle(settings: DataSettings, counted: list[list[float]] | None) -> float | None:
    """Between the lowest and the highest of the ratings that teach, in the units of the histories.

    ``counted``: (rating, how often), None where there are too many for a scale. None where ratings are no scale of
    liking: all alike, weights of events, sums, each user's own measure, with most below the middle as amounts have
    them, or already chosen by a threshold.
    """
    filters = settings.filters
    if not counted or filters.min_rating is not None or filters.normalize != "none" or filters.duplicates == "sum":
        return None
    if getattr(settings, "event_weights", None):
        return None
    low, high = counted[0][0], counted[-1][0]
    middle = (low + high) / 2
    return None if low == high or share_below(middle, counted) > MOST else middle


def share_below(middle: float, counted: list[list[float]]) -> float:
    """The share of the ratings below ``middle``."""
    return sum(count for value, count in counted if value < middle) / sum(count for _, count in counted)


def low_ratings(prepared: Prepared) -> str | None:
    """What is to be said where many ratings that count as liked are low ones; None where there is nothing."""
    middle: Any = prepared.manifest.get("rating_middle")
    if middle is None:
        return None
    share = share_below(middle, prepared.manifest["ratings"])
    if share < MANY:
        return None
    return (
        f"warning: {share:.0%} of the ratings lie below {middle:g}, the middle of their scale, and count as liked; set "
        f"data.filters.min_rating={middle:g} or higher, or a model that weighs by rating"
    )
