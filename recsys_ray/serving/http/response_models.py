"""Bodies of responses: the models behind the OpenAPI description. Responses are checked against them in tests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class ResponseModel(BaseModel):
    """Base of all bodies of responses."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Item(ResponseModel):
    """An item of the catalogue."""

    item_id: int | str
    title: str | None
    genres: list[str]
    year: int | None
    poster: str | None
    """Address of its poster."""


class Cause(ResponseModel):
    """An item of the history that speaks for a recommendation."""

    item_id: int | str
    title: str | None
    rating: float
    share: float
    """Its part of what speaks for the item, 0 to 1."""


class MemberShare(ResponseModel):
    """A member of a blend and its part, 0 to 1, of what speaks for an item."""

    name: str
    share: float


class Reason(ResponseModel):
    """Why an item is there."""

    text: str
    by: str
    """"template", or the language model's name."""
    kind: str
    """"contribution": the score would be lower without the items named; "likeness": they are alike and were liked;
    "genres": genres are shared with what was liked; "popularity": many have it."""
    because_of: list[Cause]
    """The strongest first."""
    shared_genres: list[str]
    users_share: float
    """The share of all users who have the item."""
    members: list[MemberShare] = []
    """Of a blend: who of its members speaks for the item, the strongest first."""


class RecommendedItem(Item):
    """An item with its place in a list."""

    rank: int
    score: float
    source: str
    """"model", or "fallback:" and a name: popularity, trending, genres, or another model."""
    reason: Reason | None = None


class Origin(ResponseModel):
    """What made an answer."""

    run_id: str
    model: str
    variant: str
    cached: bool
    took_ms: float
    """Time inside the service."""


class RecommendationList(ResponseModel):
    """One user's recommendations."""

    user_id: int | str | None
    """As in the request; null for a history without a user."""
    user: str
    """"known": as the model saw them; "updated": known, with later feedback; "new": by what they sent here;
    "unknown": answered by the fallback."""
    stage: str
    """By the length of the history: as recommend.stages name them, else "trending", "quick", "full" or "rich"."""
    history: int
    """Interactions the answer is based on."""
    ignored: int
    """Items of the request that are not in the catalogue."""
    source: str
    """As of the items, "mixed" where these differ, or "none" when nothing is left to recommend."""
    items: list[RecommendedItem]
    message: str | None
    """Why there is no item, where there is none."""


class Recommendations(RecommendationList, Origin):
    """One user's recommendations and what made them."""


class ManyRecommendations(ResponseModel):
    """Lists in the order of the users in the request."""

    results: list[Recommendations]
    took_ms: float


class SimilarItem(Item):
    """An item like another."""

    rank: int
    score: float


class SimilarItems(Origin):
    """Items like one item, most similar first."""

    item: Item
    items: list[SimilarItem]


class Items(Origin):
    """Items of the catalogue."""

    items: list[Item]


class DescribedItem(Item):
    """An item with all that is known of it."""

    text: str | None
    """Its description."""
    interactions: int


class DescribedItems(Origin):
    """One item."""

    items: list[DescribedItem]


class HistoryItem(Item):
    """An item that a user has."""

    rating: float
    timestamp: int | None
    """UTC milliseconds; null where the data has no times."""


class UserHistory(Origin):
    """What answers to a user are based on, the newest first."""

    user_id: str
    user: str
    """As in recommendations: "known", "updated", "new" or "unknown"."""
    history: int
    """Interactions in all."""
    items: list[HistoryItem]


class CountedItem(Item):
    """An item with the number of its interactions."""

    interactions: int


class PopularItems(Origin):
    """The most popular items first."""

    items: list[CountedItem]


class Scale(ResponseModel):
    """Ratings of the data."""

    lowest: float
    highest: float


class OnboardingItems(Origin):
    """Items to rate."""

    items: list[Item]
    minimum: int
    """Ratings that are needed."""
    rating_scale: Scale


class Strength(ResponseModel):
    """How much is known of a new user."""

    ratings: int
    level: str
    """"fair", "good" or "excellent"."""
    value: float
    """0 to 1."""


class OnboardingAnswer(ResponseModel):
    """A new user, with first recommendations."""

    user_id: int | str
    expires_at: int | None
    """UTC milliseconds; null for a user of the data."""
    strength: Strength
    recommendations: Recommendations


class FeedbackAnswer(ResponseModel):
    """What was taken."""

    accepted: int
    unknown_items: int
    """Of them, items that the catalogue does not hold yet."""
    took_ms: float


class DemoUser(ResponseModel):
    """A user of the data to try out."""

    user_id: int | str
    label: str
    history: int


class DemoUsers(Origin):
    """Users of the data to try out."""

    users: list[DemoUser]


class VariantInfo(ResponseModel):
    """A variant and its run."""

    variant: str
    weight: float
    run_id: str | None
    model: str | None
    published_at: str | None
    previous_run_id: str | None
    follows_latest: bool
    problem: str | None
    """Why the run that should answer does not."""
    runs: list[str]
    """Published runs it can switch to."""


class ModelsAnswer(ResponseModel):
    """All variants."""

    variants: list[VariantInfo]


class Replica(ResponseModel):
    """One process that answers."""

    replica: str
    """Its name, as the label ``replica`` of the metrics."""
    variants: list[dict[str, Any]]
    """The run and model of every variant."""
    cache: dict[str, float]
    """Answers it keeps, and how often one was there."""
    uptime_seconds: float


class Info(Replica):
    """About this service; what differs between processes as the one that answered has it."""

    name: str
    version: str
    users: int
    items: int
    genres: list[str]
    newest_year: int | None
    """Of the catalogue; null where it has no years."""
    rating_scale: Scale
    evaluation: dict[str, Any] | None
    """Metrics of the model that answers by default, as they were measured before it was published."""
    others: list[Replica]
    """The other processes, as they were a second ago."""


class Health(ResponseModel):
    """Alive, or ready."""

    status: str
    """"live", "ready", or "degraded": a variant answers without its model, or an optional part
    does not work."""
    degraded: list[str] = []
    """These variants; /v1/models says why."""


class Error(ResponseModel):
    """What went wrong, in one line."""

    status: int
    error: str
