"""What is asked of a recommendation: the section ``recommend`` of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, field_validator, model_validator

from recsys_ray.base.types import Settings
from recsys_ray.data.config import Moment
from recsys_ray.retrieval import IndexSettings, RerankSettings

Layout = Literal["long", "nested"]


class ColumnFilter(Settings):
    """Bounds on one column of the item table. One value, or a list of them, stands for ``any``."""

    min: float | None = None
    """Numbers no lower."""
    max: float | None = None
    """Numbers no higher."""
    any: list[str] | list[float] | None = None
    """Only these values."""
    none: list[str] | list[float] | None = None
    """None of these values."""

    @model_validator(mode="before")
    @classmethod
    def _values_alone(cls, given: Any) -> Any:
        if isinstance(given, list):
            return {"any": given}
        return {"any": [given]} if isinstance(given, str | int | float) else given

    @model_validator(mode="after")
    def _bounds_something(self) -> ColumnFilter:
        if not self.model_dump(exclude_none=True):
            raise ValueError("bounds nothing; give min, max, any or none, a value, or a list of values")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min={self.min:g} is above max={self.max:g}")
        return self


class ContextSettings(Settings):
    """Which items of the catalogue may be shown; an item must pass every filter."""

    any_genres: list[str] = Field(default_factory=list)
    """Of at least one of these genres, whatever their case."""
    all_genres: list[str] = Field(default_factory=list)
    """Of all of these genres."""
    no_genres: list[str] = Field(default_factory=list)
    """Of none of these genres."""
    year_from: int | None = None
    """Of this year or later; items without a year are left out."""
    year_to: int | None = None
    """Of this year or earlier; items without a year are left out."""
    where: dict[str, ColumnFilter] = Field(default_factory=dict)
    """Bounds by column of the item table: {price_eur: {max: 20}, brand: [a, b], stock: {min: 1}}. Numeric columns of a
    catalogue are there; texts are where data.item_columns.keep names them."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def _years_in_order(self) -> ContextSettings:
        if self.year_from is not None and self.year_to is not None and self.year_from > self.year_to:
            raise ValueError(f"year_from={self.year_from} is after year_to={self.year_to}")
        return self


class TrendingSettings(Settings):
    """What is popular lately."""

    window_days: float = Field(default=30.0, gt=0)
    """Days before the last interaction of the data that count."""


class TimeOfDaySettings(Settings):
    """Groups of items that are chosen more at a part of the day (night from 0, morning from 6, afternoon from 12,
    evening from 18 o'clock), on working days or at the weekend, rise a little then, as the times of the data say."""

    weight: float = Field(default=0.1, ge=0, le=1)
    """A group that is chosen e times as often as usual rises by this share of the distance between the user's best and
    worst candidate."""
    by: str = "genres"
    """What makes the groups: genres, or a column of texts that data.item_columns.keep names."""
    shrink: float = Field(default=100.0, gt=0)
    """Interactions of a group in a part of the week below which what is counted says little."""
    timezone: str = "UTC"
    """Where the users are, such as Europe/Vienna."""
    hour: int = Field(default=20, ge=0, le=23)
    """Hour there that the lists of the batch job are for, where recommend.at is a day without a time."""
    pool: int = Field(default=100, ge=1)
    """Candidates per user that can rise."""

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError) as error:
            raise ValueError(f"{name!r} is no time zone such as Europe/Vienna") from error
        return name


class StageSettings(Settings):
    """Who answers users with a history of some length."""

    name: str = Field(min_length=1, max_length=64)
    """As answers of the service show it."""
    ratings: int = Field(ge=0)
    """Least length of the history; the next stage begins where its own says."""
    answers: str
    """model, popularity, trending, genres, or a model of recommend.fallback by its name. What is missing then comes
    from the fallbacks."""


POPULARITY = "popularity"
"""The fallback that every fitted model has: its items' counts."""
TRENDING, GENRES = "trending", "genres"
"""Fallbacks that are counted from the data, without a model: what is popular lately, and the genres that are liked."""
COUNTED = (POPULARITY, TRENDING, GENRES)


def _as_list(value: Any) -> Any:
    if isinstance(value, str):
        return [] if value == "none" else [value]
    return value


Fallback = Annotated[list[str | dict[str, Any]], BeforeValidator(_as_list)]


def fallback_names(entries: Sequence[str | dict[str, Any]]) -> tuple[str, ...]:
    """How the sources of rows call them: by the name of the model, or the label that its section gives."""
    return tuple(entry if isinstance(entry, str) else str(entry.get("label", entry.get("name"))) for entry in entries)


class RankerSettings(Settings):
    """A second model that scores the candidates of the first anew."""

    pool: int = Field(default=200, ge=1)
    """Candidates per user that it scores."""


class RecommendSettings(Settings):
    """What is asked of the batch job."""

    n: int = Field(default=10, ge=1)
    """Rows per user."""
    filter_seen: bool = True
    """Never recommend what the user already has."""
    allow: str | None = None
    """File of item ids (Parquet or CSV with a column item_id, or one id a line): nothing else is recommended."""
    deny: str | None = None
    """File of item ids that are never recommended."""
    hidden: str | None = None
    """Items that users hide (columns user_id, item_id, and where there are such kind and timestamp): a .parquet or .csv
    file, or a directory of them such as <output>/hidden, which the service writes; a directory may not exist yet."""
    at: Moment | None = None
    """Day or time (ISO, UTC) that the lists are for; null is the day of the run. Items are listed that are available
    then, see data.item_columns.available_from. The service answers for now."""
    context: ContextSettings | None = None
    """Which items may be shown, by genre, year and columns of the catalogue; null is all."""
    candidates: Literal["all", "cold"] = "all"
    """cold: only items that nobody has interacted with in the data the model was fitted on: a shelf of new arrivals."""
    fallback: Fallback = Field(default=[POPULARITY])
    """Who fills the rows that the model has no opinion on, one after the other: popularity, trending, genres (those of
    what was liked, popular items first), or any model by its name or its section ({name: content, vectors: text}),
    fitted beside the first. [] or none leaves such rows out."""
    trending: TrendingSettings = TrendingSettings()
    """What trending is, as a fallback and for stages."""
    stages: list[StageSettings] = Field(default_factory=list)
    """Who answers by the length of a user's history; by default the model whenever it can."""
    time_of_day: TimeOfDaySettings | None = None
    """Gentle re-weighting by part of the day and of the week; null is none."""
    layout: Layout = "long"
    """A row per recommendation, or a row per user with lists."""
    index: IndexSettings = IndexSettings()
    """What finds the candidates of a model whose scores are inner products."""
    ranker: RankerSettings | None = None
    """A model that scores the candidates of model.name anew; null leaves them as they are."""
    rerank: RerankSettings | None = None
    """Variety and category caps; null lists the best candidates."""
    reasons: bool = False
    """Write a column that says why each item is in the list."""
    block_mib: int = Field(default=64, ge=1)
    """Upper bound on one block of scores."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @field_validator("stages")
    @classmethod
    def _stages_from_0(cls, stages: list[StageSettings]) -> list[StageSettings]:
        begins = [stage.ratings for stage in stages]
        if stages and (begins[0] != 0 or begins != sorted(set(begins))):
            raise ValueError(f"stages: ratings must begin with 0 and rise from stage to stage, found {begins}")
        return stages

    @property
    def fallback_of_all(self) -> list[str | dict[str, Any]]:
        """The fallbacks that need no model of their own, so that any fitted model has them."""
        return [entry for entry in self.fallback if entry in COUNTED]
