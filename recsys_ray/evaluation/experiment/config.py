"""How an experiment is judged: fixed before its first user, or the intervals mean nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from recsys_ray.base.types import Settings


class ExperimentSettings(Settings):
    """What counts as an outcome, and what ``recsys-ray ab`` makes of it."""

    control: str | None = None
    """Variant that the others are compared with; by default the first."""
    since: AwareDatetime | None = None
    """Start of the experiment, as 2026-11-26T00:00:00Z: exposures before it don't count. null takes all there are."""
    window_hours: float = Field(default=72.0, gt=0)
    """A user's outcomes count for so long after the first exposure; the user is judged once that is over."""
    outcomes: list[Literal["rated", "clicked"]] = Field(default=["rated", "clicked"], min_length=1)
    """What counts, of what users send as feedback; one item counts once for a user, whatever was done with it."""
    min_rating: float | None = None
    """A rating is an outcome from here on; null takes every rating."""
    confidence: float = Field(default=0.95, gt=0.0, lt=1.0)
    """Chance that no interval, of any variant at any look, misses the true effect."""
    tightest_users: int = Field(default=5000, ge=1)
    """Judged users at which the intervals are as narrow as they can be; they are valid at any other number as well."""
    least_users: int = Field(default=100, ge=2)
    """Judged users that both variants need before an effect is judged: the intervals are asymptotic."""
