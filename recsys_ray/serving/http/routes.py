"""The list of all routes: the router, the check of keys and the OpenAPI description are made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel

from recsys_ray.serving.config import Role
from recsys_ray.serving.http import request_models, response_models
from recsys_ray.serving.http.handlers import Handlers
from recsys_ray.serving.http.messages import HttpRequest, HttpResponse
from recsys_ray.serving.http.overview_models import Overview

Handler = Callable[[Handlers, HttpRequest], Awaitable[HttpResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call: where it is, who handles it, what it takes and gives. ``{id}`` stands for one encoded id."""

    method: str
    path: str
    handler: Handler
    summary: str
    response: type[BaseModel] | None
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    role: Role | None = "read"
    """None: open to every caller, always."""
    tag: str = "recommendations"


ROUTES = (
    Route("GET", "/v1/recommendations/{user_id}", Handlers.recommendations, "The list of one user",
          response_models.Recommendations, query=request_models.RecommendationsQuery),
    Route("POST", "/v1/recommendations", Handlers.recommendations_posted,
          "Lists of one user, of many users, or for a history without a user; with allow and deny lists",
          None, body=request_models.RecommendationsRequest),
    Route("GET", "/v1/items/{item_id}/similar", Handlers.similar, "Items like one item",
          response_models.SimilarItems, query=request_models.SimilarQuery),
    Route("GET", "/v1/items/{item_id}/poster", Handlers.poster, "The poster of an item", None, tag="catalogue"),
    Route("GET", "/v1/items/{item_id}", Handlers.item, "One item, with its text", response_models.DescribedItems,
          tag="catalogue"),
    Route("GET", "/v1/items", Handlers.items, "Search titles and ids", response_models.Items,
          query=request_models.SearchQuery, tag="catalogue"),
    Route("GET", "/v1/popular", Handlers.popular, "The most popular items", response_models.PopularItems,
          query=request_models.PopularQuery, tag="catalogue"),
    Route("POST", "/v1/feedback", Handlers.feedback, "Report what users did; it counts in their next answer",
          response_models.FeedbackAnswer, body=request_models.FeedbackRequest, tag="users"),
    Route("GET", "/v1/users/{user_id}/history", Handlers.history, "What a user has, the newest first",
          response_models.UserHistory, query=request_models.HistoryQuery, tag="users"),
    Route("GET", "/v1/onboarding/items", Handlers.onboarding_items, "Items for a new user to rate",
          response_models.OnboardingItems, query=request_models.OnboardingQuery, tag="users"),
    Route("POST", "/v1/onboarding/ratings", Handlers.onboarding_ratings,
          "First ratings; gives a temporary user and first recommendations",
          response_models.OnboardingAnswer, body=request_models.OnboardingRequest, tag="users"),
    Route("GET", "/v1/demo/users", Handlers.demo_users, "Users of the data to try out",
          response_models.DemoUsers, tag="users"),
    Route("GET", "/v1/models", Handlers.models, "Variants, their runs, and the runs they could switch to",
          response_models.ModelsAnswer, tag="service"),
    Route("POST", "/v1/models/activate", Handlers.activate, "Switch a variant to another run, or back",
          response_models.ModelsAnswer, body=request_models.ActivateRequest, role="admin", tag="service"),
    Route("GET", "/v1/overview", Handlers.overview,
          "What an operator looks at: runs over time, variants and their effect, replicas, load",
          Overview, role="admin", tag="service"),
    Route("GET", "/health/live", Handlers.live, "The process answers",
          response_models.Health, role=None, tag="service"),
    Route("GET", "/health/ready", Handlers.ready, "Every variant has a run",
          response_models.Health, role=None, tag="service"),
    Route("GET", "/info", Handlers.info, "What is served", response_models.Info, tag="service"),
    Route("GET", "/metrics", Handlers.metrics, "Counters for Prometheus", None, tag="service"),
)  # fmt: skip
