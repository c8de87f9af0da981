"""Queries and bodies of requests, validated here; nothing else of a request is read."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from recsys_ray.data.config import utc_milliseconds
from recsys_ray.recommend.config import ColumnFilter, ContextSettings
from recsys_ray.serving.users.events import RATED

ItemId = Annotated[int, Field(strict=True)] | Annotated[str, Field(strict=True)]
Rating = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
DAY = 86_400_000  # milliseconds


def _not_ahead(given: int) -> int:
    if given > time.time() * 1000 + DAY:
        raise ValueError("is more than a day ahead")
    return given


Milliseconds = Annotated[
    int,
    Field(ge=0, lt=10**14, description="UTC milliseconds, at most a day ahead; now by default"),
    AfterValidator(_not_ahead),
]
ROWS = Field(default=10, ge=1, le=1000, description="Items to answer with")
OFFSET = Field(default=0, ge=0, le=100_000, description="Items to skip, for paging")
MOST_FILTERS = 100


def _pieces(given: Any) -> Any:
    return [piece.strip() for piece in given.split(",") if piece.strip()] if isinstance(given, str) else given


def _object(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError) as error:
        raise ValueError('is not JSON such as {"price": {"max": 20}}') from error


def _milliseconds(given: Any) -> Any:
    if not isinstance(given, str) or given.isdigit():
        return given
    try:
        return utc_milliseconds(given)
    except (ValueError, OverflowError) as error:
        raise ValueError("is no time such as 2026-11-30 or 2026-11-30T20:00:00Z") from error


_TEXTS = {"type": "array", "items": {"type": "string", "maxLength": 200}, "maxItems": MOST_FILTERS}
Names = Annotated[
    list[Annotated[str, Field(max_length=200)]],
    Field(max_length=MOST_FILTERS),
    BeforeValidator(_pieces),
    WithJsonSchema({"anyOf": [{"type": "string"}, _TEXTS]}),
]
"""Several names: in a query one text with commas between them, in a body also a list."""
At = Annotated[
    int,
    Field(ge=0, le=10**14),
    BeforeValidator(_milliseconds),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0, "maximum": 10**14}]}),
]
"""A moment: a date or time (ISO, UTC unless it says another offset), or UTC milliseconds."""
Where = Annotated[
    dict[Annotated[str, Field(max_length=200)], ColumnFilter],
    Field(max_length=MOST_FILTERS),
    BeforeValidator(_object),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]}),
]
"""``recommend.context.where``: in a query as JSON in one text, in a body also as it is."""


class RequestModel(BaseModel):
    """Base of all queries and bodies: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PageQuery(RequestModel):
    """Part of a list."""

    n: int = ROWS
    offset: int = OFFSET


class ContextQuery(PageQuery):
    """Which items of the catalogue, as ``recommend.context`` of a configuration; an item must pass every filter."""

    genre: str | None = Field(default=None, max_length=200)
    """Only items of this genre."""
    any_genres: Names | None = None
    """Only items of at least one of these genres, commas between them."""
    all_genres: Names | None = None
    """Only items of all of these genres."""
    no_genres: Names | None = None
    """Only items of none of these genres."""
    year_from: int | None = Field(default=None, ge=-100_000, le=100_000)
    """Only items of this year or later."""
    year_to: int | None = Field(default=None, ge=-100_000, le=100_000)
    """Only items of this year or earlier."""
    where: Where | None = None
    """Bounds by column of the item table, as JSON: {"price": {"max": 20}, "brand": ["a", "b"]}."""
    at: At | None = None
    """The moment to answer for, as a date, a time (ISO, UTC) or UTC milliseconds; now by default."""

    @model_validator(mode="after")
    def _possible(self) -> ContextQuery:
        if self.year_from is not None and self.year_to is not None and self.year_from > self.year_to:
            raise ValueError("year_from is after year_to")
        return self

    @property
    def filters(self) -> ContextSettings | None:
        """None where nothing is asked for."""
        all_genres = [*([] if self.genre is None else [self.genre]), *(self.all_genres or [])]
        given = {name: getattr(self, name) for name in ContextSettings.model_fields} | {"all_genres": all_genres}
        asked = {name: value for name, value in given.items() if value not in (None, [], {})}
        return ContextSettings(**asked) if asked else None


class RecommendationsQuery(ContextQuery):
    """How to answer ``GET /v1/recommendations/{user_id}``."""

    likes: Names | None = None
    """Genres that a new user names to begin with, commas between them: they answer where there is no history yet."""
    exclude_seen: bool | None = None
    """Leave out what the user already has; by default as the batch run did."""
    explain: bool = False
    """Say why each item is there."""
    variant: str | None = Field(default=None, max_length=64)
    """Variant to answer with, instead of the user's own."""


class SearchQuery(PageQuery):
    """Which items."""

    search: str = Field(default="", max_length=200)
    """Words of title or id, without regard to case and accents; all items for none."""


class PopularQuery(ContextQuery):
    """Which of the popular items."""


class HistoryQuery(PageQuery):
    """Which part of a history."""

    variant: str | None = Field(default=None, max_length=64)
    """Variant whose run is asked, instead of the user's own."""


class SimilarQuery(RequestModel):
    """How many similar items."""

    n: int = ROWS
    variant: str | None = Field(default=None, max_length=64)
    """Variant whose model compares them."""


class OnboardingQuery(RequestModel):
    """How many items to rate."""

    n: int | None = Field(default=None, ge=1, le=100)
    """By default as many as the service is set up for."""
    seed: int = Field(default=0, ge=0, le=2**31)
    """Another number gives other items of the same mix of genres and decades; 0 the first ones."""


class NoQuery(RequestModel):
    """No parameters."""


class Interaction(RequestModel):
    """One item a user had to do with."""

    item_id: ItemId
    """As the catalogue has it."""
    rating: Rating = 1.0
    """On the scale of the data; 1 where it has none."""
    timestamp: Milliseconds | None = None


class Context(RequestModel):
    """How varied the list should be. No model here learns from the hour, the place or the device, so a context that
    names them is refused, not ignored."""

    diversity: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """0 ranks by score alone, 1 by variety alone; by default as the batch run did."""
    max_per_genre: int | None = Field(default=None, ge=1, le=1000)
    """At most so many items of one genre."""


class RecommendationsRequest(RecommendationsQuery):
    """For one user, for many, or for a history without a user. Exactly one of the three."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "42", "n": 5},
                {"user_ids": ["42", "7"], "n": 5, "explain": True},
                {"history": [{"item_id": "1", "rating": 5.0}], "deny": ["2"], "n": 5},
                {"user_id": "42", "context": {"diversity": 0.3, "max_per_genre": 3}},
                {"history": [], "likes": [], "n": 5},
                {"user_id": "42", "year_from": 1990, "where": {"count": {"min": 1}}},
            ]
        }
    )
    user_id: ItemId | None = None
    """One user."""
    user_ids: list[ItemId] | None = Field(default=None, min_length=1)
    """Many users; the answers come in this order."""
    history: list[Interaction] | None = None
    """No user, only this history."""
    allow: list[ItemId] | None = None
    """Nothing else is recommended."""
    deny: list[ItemId] | None = None
    """None of these is recommended."""
    context: Context | None = None

    @model_validator(mode="after")
    def _one_of(self) -> RecommendationsRequest:
        given = [name for name in ("user_id", "user_ids", "history") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of user_id, user_ids and history, found {found}")
        return self


class FeedbackEvent(Interaction):
    """An interaction of a user."""

    user_id: ItemId
    """Known, temporary, or new."""
    kind: Annotated[
        Literal["rating", "seen", "clicked", "hidden", "shown", "rated"],
        AfterValidator(lambda kind: RATED if kind == "rating" else kind),
    ] = Field("rating", validate_default=True)
    """rating: the user had to do with the item; rated is an older word for it. seen: the user knows it, which says
    nothing of how it was liked: it is not recommended, and nothing is learned from it. clicked: it was opened, an
    outcome of an experiment, by which no list changes. hidden: never recommend it to the user. shown: undo that."""

    @model_validator(mode="after")
    def _a_rating_is_rated(self) -> FeedbackEvent:
        if self.kind != RATED and "rating" in self.model_fields_set:
            raise ValueError(f"an event of kind {self.kind} has no rating; send the rating as an event of its own")
        return self


class FeedbackRequest(RequestModel):
    """Interactions; they count in the next answer, and in the next batch run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"events": [{"user_id": "42", "item_id": "1", "rating": 4.5}]},
                {"events": [{"user_id": "42", "item_id": "3", "kind": "hidden"}]},
            ]
        }
    )
    events: list[FeedbackEvent] = Field(min_length=1)


class OnboardingRequest(RequestModel):
    """First ratings of a new user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"ratings": [{"item_id": str(item), "rating": 4.0} for item in range(1, 6)], "n": 5}]
        }
    )
    ratings: list[Interaction] = Field(min_length=1)
    user_id: ItemId | None = None
    """Keep the ratings as this user's; without it a temporary user is made."""
    n: int = ROWS
    explain: bool = True


class ActivateRequest(RequestModel):
    """Which run a variant answers with."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"run_id": "20260101T000000-0123456789"}]})
    run_id: str | None = Field(default=None, min_length=1, max_length=128)
    """A published run; null follows LATEST again."""
    variant: str | None = Field(default=None, max_length=64)
    """By default the first."""
    roll_back: bool = False
    """Instead of run_id: the run that answered before."""

    @model_validator(mode="after")
    def _one(self) -> ActivateRequest:
        if self.roll_back and self.run_id is not None:
            raise ValueError("give either run_id or roll_back, not both")
        return self
