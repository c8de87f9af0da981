"""The list of all calls: the router, the check of keys and the OpenAPI description are made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel

from recsys_ray.serving.config import Role
from recsys_ray.serving.http import requests as asked
from recsys_ray.serving.http import responses as schemas
from recsys_ray.serving.http.messages import Answer, Call
from recsys_ray.serving.http.routes import Routes

Handler = Callable[[Routes, Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call: where it is, who handles it, what it takes and gives. ``{id}`` stands for one encoded id."""

    method: str
    path: str
    handler: Handler
    summary: str
    answer: type[BaseModel] | None
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    role: Role | None = "read"
    """None: open to everybody, always."""
    tag: str = "recommendations"


ROUTES = (
    Route("GET", "/v1/recommendations/{user_id}", Routes.recommendations, "The list of one user",
          schemas.Recommendations, query=asked.RecommendationsQuery),
    Route("POST", "/v1/recommendations", Routes.recommendations_posted,
          "Lists of one user, of many users, or for a history without a user; with allow and deny lists",
          None, body=asked.RecommendationsRequest),
    Route("GET", "/v1/items/{item_id}/similar", Routes.similar, "Items like one item",
          schemas.SimilarItems, query=asked.SimilarQuery),
    Route("GET", "/v1/items/{item_id}/poster", Routes.poster, "The poster of an item", None, tag="catalogue"),
    Route("GET", "/v1/items/{item_id}", Routes.item, "One item", schemas.Items, tag="catalogue"),
    Route("GET", "/v1/items", Routes.items, "Search titles and ids", schemas.Items,
          query=asked.SearchQuery, tag="catalogue"),
    Route("GET", "/v1/popular", Routes.popular, "The most popular items", schemas.PopularItems,
          query=asked.PopularQuery, tag="catalogue"),
    Route("POST", "/v1/feedback", Routes.feedback, "Tell what users did; it counts in their next answer",
          schemas.FeedbackAnswer, body=asked.FeedbackRequest, tag="users"),
    Route("GET", "/v1/onboarding/items", Routes.onboarding_items, "Items for somebody new to rate",
          schemas.OnboardingItems, query=asked.OnboardingQuery, tag="users"),
    Route("POST", "/v1/onboarding/ratings", Routes.onboarding_ratings,
          "First ratings; gives a temporary user and first recommendations",
          schemas.OnboardingAnswer, body=asked.OnboardingRequest, tag="users"),
    Route("GET", "/v1/demo/users", Routes.demo_users, "Users of the data to try out", schemas.DemoUsers, tag="users"),
    Route("GET", "/v1/models", Routes.models, "Variants, their runs, and the runs they could switch to",
          schemas.ModelsAnswer, tag="service"),
    Route("POST", "/v1/models/activate", Routes.activate, "Switch a variant to another run, or back",
          schemas.ModelsAnswer, body=asked.ActivateRequest, role="admin", tag="service"),
    Route("GET", "/health/live", Routes.live, "The process answers", schemas.Health, role=None, tag="service"),
    Route("GET", "/health/ready", Routes.ready, "Every variant has a run", schemas.Health, role=None, tag="service"),
    Route("GET", "/info", Routes.info, "What is served", schemas.Info, tag="service"),
    Route("GET", "/metrics", Routes.metrics, "Counters for Prometheus", None, tag="service"),
)  # fmt: skip
