"""The moment that an answer is for, as far as rules depend on it.

A batch job has one moment for all of its lists, ``recommend.at``; a request has its own, now unless it says another.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.errors import ConfigError
from recsys_ray.data.config import utc_milliseconds
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.learned import TimeOfDay

Asked = TypeVar("Asked", bound=RecommendSettings)


@dataclass(frozen=True, slots=True)
class Moment:
    """Answers of equal moments are equal."""

    span: int = 0
    """Number of the span of availability, see ``Availability``."""
    part: int = -1
    """Part of the week, see ``TimeOfDay``; -1 where no rule depends on it."""


def moment_of(bundle: Bundle, at: int | None = None, time_of_day: TimeOfDay | None = None) -> Moment:
    """``at`` in UTC milliseconds as rules see it; now by default."""
    at = int(time.time() * 1000) if at is None else at
    span = 0 if bundle.availability is None else bundle.availability.span(at)
    return Moment(span, -1 if time_of_day is None else time_of_day.part(at))


def milliseconds(at: str) -> int:
    """An ISO date or time in UTC milliseconds. Raises ConfigError."""
    try:
        return utc_milliseconds(at)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"at: {at!r} is no ISO date or time such as 2026-11-30 or 2026-11-30T20:00:00Z") from error


def at_of(settings: RecommendSettings) -> int | None:
    """The moment of a batch job in UTC milliseconds; None where no rule depends on it."""
    if settings.at is None:
        return None
    if settings.time_of_day is None or len(settings.at) > len("2026-11-30"):
        return utc_milliseconds(settings.at)
    local = datetime.fromisoformat(settings.at).replace(hour=settings.time_of_day.hour)
    return round(local.replace(tzinfo=ZoneInfo(settings.time_of_day.timezone)).timestamp() * 1000)


def dated(settings: Asked, items: pa.Table) -> Asked:
    """The settings of a run that starts today: where a rule depends on the moment and ``at`` is null, it is this day.

    With the day in them, the run of another day is another run.
    """
    depends = settings.time_of_day is not None or set(schema.AVAILABILITY) & set(items.schema.names)
    if settings.at is not None or not depends:
        return settings
    return settings.model_copy(update={"at": f"{datetime.now(UTC):%Y-%m-%d}"})
