"""Validated requests as what the service takes, within the limits of the settings. What is beyond is a Problem 422."""

from __future__ import annotations

import time
from collections.abc import Sequence

from recsys_ray.serving.answers.live_run import LiveRun
from recsys_ray.serving.answers.params import RecommendParams
from recsys_ray.serving.config import LimitSettings
from recsys_ray.serving.http import request_models
from recsys_ray.serving.http.request_models import ItemId, RecommendationsQuery
from recsys_ray.serving.problem import Problem
from recsys_ray.serving.users import cold_start
from recsys_ray.serving.users.events import RATED, Event
from recsys_ray.serving.users.histories import typed_id

PARAMS = ("n", "offset", "exclude_seen", "explain", "at")
"""Fields of a query that are parameters of the same name."""


class Asked:
    """See the module."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits

    def params(
        self,
        query: RecommendationsQuery,
        allow: Sequence[ItemId] | None = None,
        deny: Sequence[ItemId] | None = None,
        context: request_models.Context | None = None,
    ) -> RecommendParams:
        """A validated query or body as parameters. Raises Problem 422."""
        self.page(query)
        return RecommendParams(
            **{name: getattr(query, name) for name in PARAMS},
            **({} if context is None else dict(context)),
            filters=query.filters,
            likes=None if not query.likes else tuple(query.likes),
            allow=None if allow is None else self.ids(allow, "allow"),
            deny=None if deny is None else self.ids(deny, "deny"),
        )

    def page(self, page: request_models.PageQuery) -> None:
        self.at_most(page.n + page.offset, self._limits.rows, "offset + n")

    def ids(self, ids: Sequence[ItemId], name: str) -> tuple[str, ...]:
        self.at_most(len(ids), self._limits.events, name)
        return tuple(sorted({self.id(item) for item in ids}))

    def id(self, value: int | str) -> str:
        text = str(value)
        self.at_most(len(text), self._limits.id_length, "characters of an id")
        return text

    def events(self, sent: Sequence[request_models.Interaction]) -> list[Event]:
        """In the order of their times; those without one have happened just now, in the order given."""
        self.at_most(len(sent), self._limits.events, "interactions")
        now = int(time.time() * 1000)
        events = [
            Event(
                self.id(one.item_id),
                one.rating,
                now if one.timestamp is None else one.timestamp,
                one.kind if isinstance(one, request_models.FeedbackEvent) else RATED,
            )
            for one in sent
        ]
        return sorted(events, key=lambda event: event.timestamp)

    def writable(self, run: LiveRun, user_id: int | str) -> str:
        """A user id that interactions may be kept for."""
        user = self.id(user_id)
        if not cold_start.is_temporary(user) and typed_id(user, run.bundle.user_id_type) is None:
            raise Problem(422, "user_id: the users of this data have whole numbers as ids")
        return user

    def at_most(self, found: int, limit: int, what: str) -> None:
        if found > limit:
            raise Problem(422, f"{what}: at most {limit}, found {found}")
