"""The body of what an operator looks at."""

from __future__ import annotations

from typing import Any

from recsys_ray.serving.http.response_models import Replica, ResponseModel, VariantInfo


class PublishedRunInfo(ResponseModel):
    """A published run as an operator sees it."""

    run_id: str
    published_at: str
    model: str
    metrics: dict[str, float]
    """As they were measured before it was published; empty where nothing was held out."""
    checks: dict[str, float | None]
    """What the gate found."""
    latest: bool
    """LATEST names it."""
    withdrawn: bool
    """A rollback left it behind."""
    answers_for: list[str]
    """Variants that answer with it now."""


class RouteLoad(ResponseModel):
    """Requests of one route since the replicas started."""

    route: str
    requests: int
    errors: int
    """Of them, answered with a status of 500 and above."""
    seconds: list[float]
    """Upper bounds of the buckets; the last bucket has none."""
    counts: list[int]
    """Requests in each bucket, one more than there are bounds."""


class Load(ResponseModel):
    """What the replicas counted since they started, added up."""

    in_flight: int
    overloads: int
    answers: int
    cache_hits: int
    cache_misses: int
    feedback: int
    feedback_files: int
    redis_errors: int
    by_variant: dict[str, int]
    """Lists shown, by variant."""
    by_source: dict[str, int]
    """Lists shown, by who listed: the model, a fallback."""


class Overview(ResponseModel):
    """The service for an operator, as of now."""

    at: str
    name: str
    version: str
    runs: list[PublishedRunInfo]
    """The newest first."""
    variants: list[VariantInfo]
    experiment: dict[str, Any] | None
    """As ``recsys-ray ab`` judges it, at most a minute old."""
    experiment_note: str | None
    """Why there is none."""
    replicas: list[Replica]
    routes: list[RouteLoad]
    load: Load
