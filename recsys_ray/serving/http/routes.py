"""The calls of the API: each takes a ``Call``, asks the service, gives an ``Answer``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from recsys_ray import __version__
from recsys_ray.base.errors import RecsysError
from recsys_ray.serving.answers.images import poster
from recsys_ray.serving.answers.live_run import Served
from recsys_ray.serving.answers.query import Ask, genre_mask
from recsys_ray.serving.http import requests as asked
from recsys_ray.serving.http.messages import Answer, Call, Problem, encode
from recsys_ray.serving.http.requests import ItemId
from recsys_ray.serving.metrics import CONTENT_TYPE, text
from recsys_ray.serving.service import Service, origin
from recsys_ray.serving.users import cold_start
from recsys_ray.serving.users.histories import typed_id
from recsys_ray.serving.users.journal import Event


class Routes:
    """Handlers over one service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    # -- recommendations --------------------------------------------------------------------------------------

    async def recommendations(self, call: Call) -> Answer:
        query = call.query(asked.RecommendationsQuery)
        user = call.parameter
        body, cached = await self.service.recommend_user(user, user, self._ask(query), query.variant)
        return _finished(body, call, cached)

    async def recommendations_posted(self, call: Call) -> Answer:
        request = await call.json(asked.RecommendationsRequest)
        ask = self._ask(request, request.allow, request.deny, request.context)
        if request.history is not None:
            history = self._events(request.history)
            return _finished(await self.service.recommend_history(history, ask, request.variant), call, False)
        if request.user_id is not None:
            user = self._id(request.user_id)
            body, cached = await self.service.recommend_user(user, request.user_id, ask, request.variant)
            return _finished(body, call, cached)
        users = request.user_ids or []
        self._at_most(len(users), self.service.settings.limits.users, "user_ids")
        work = [self.service.recommend_user(self._id(user), user, ask, request.variant) for user in users]
        bodies = [finish(body, call.started, cached) for body, cached in await asyncio.gather(*work)]
        took = b'],"took_ms":%.3f}' % _milliseconds(call.started)
        return Answer(b'{"results":[' + b",".join(bodies) + took)

    async def similar(self, call: Call) -> Answer:
        query = call.query(asked.SimilarQuery)
        variant, served = self.service.pick(query.variant)
        row = self._row(served, call.parameter)
        found = await self.service.in_scoring(self.service.similar, served, row, query.n)
        show = served.catalogue.show
        items = [show(like) | {"rank": rank, "score": score} for rank, (like, score) in enumerate(found, start=1)]
        return self._answer(call, variant, served, {"item": show(row), "items": items})

    # -- catalogue ----------------------------------------------------------------------------------------------

    async def items(self, call: Call) -> Answer:
        query = call.query(asked.SearchQuery)
        variant, served = self.service.pick(None)
        self._page(query)
        rows = await self.service.in_thread(served.catalogue.search, query.search, query.n, query.offset)
        return self._answer(call, variant, served, {"items": [served.catalogue.show(row) for row in rows]})

    async def item(self, call: Call) -> Answer:
        call.query(asked.Nothing)
        variant, served = self.service.pick(None)
        row = self._row(served, call.parameter)
        return self._answer(call, variant, served, {"items": [served.catalogue.show(row)]})

    async def poster(self, call: Call) -> Answer:
        call.query(asked.Nothing)
        _, served = self.service.pick(None)
        place = served.catalogue.posters[self._row(served, call.parameter)]
        found = await self.service.in_thread(poster, place)
        if found is None:
            raise Problem(404, "this item has no poster that can be shown")
        return Answer(found[0], content_type=found[1], headers={b"cache-control": b"public, max-age=86400"})

    async def popular(self, call: Call) -> Answer:
        query = call.query(asked.PopularQuery)
        variant, served = self.service.pick(None)
        self._page(query)
        catalogue = served.catalogue
        rows_I = catalogue.by_popularity_I
        allowed_I = served.allowed(None if query.genre is None else genre_mask(served, query.genre))
        if allowed_I is not None:
            rows_I = rows_I[allowed_I[rows_I]]
        rows = rows_I[query.offset : query.offset + query.n].tolist()
        items = [catalogue.show(row) | {"interactions": int(catalogue.counts_I[row])} for row in rows]
        return self._answer(call, variant, served, {"items": items})

    # -- users --------------------------------------------------------------------------------------------------

    async def feedback(self, call: Call) -> Answer:
        request = await call.json(asked.FeedbackRequest)
        _, served = self.service.pick(None)
        by_user: dict[str, list[asked.FeedbackEvent]] = {}
        for event in request.events:
            by_user.setdefault(self._writable(served, event.user_id), []).append(event)
        events = {user: self._events(sent) for user, sent in by_user.items()}
        for item in (event.item for sent in events.values() for event in sent):
            if typed_id(item, served.bundle.item_ids.type) is None:
                raise Problem(422, "item_id: the items of this data have whole numbers as ids")
        hours = {user: self._life(user) for user in events}
        await asyncio.gather(*(self.service.remember(user, sent, hours=hours[user]) for user, sent in events.items()))
        unknown = sum(event.item not in served.catalogue.rows for sent in events.values() for event in sent)
        answer = {"accepted": len(request.events), "unknown_items": unknown, "took_ms": _milliseconds(call.started)}
        return Answer(encode(answer))

    async def onboarding_items(self, call: Call) -> Answer:
        query = call.query(asked.OnboardingQuery)
        variant, served = self.service.pick(None)
        settings = self.service.settings.onboarding
        chosen = (cold_start.onboarding_rows, served.catalogue, query.n or settings.items, settings.pool)
        rows = await self.service.in_thread(*chosen)
        answer = {
            "items": [served.catalogue.show(row) for row in rows],
            "minimum": settings.minimum,
            "rating_scale": await self._scale(served),
        }
        return self._answer(call, variant, served, answer)

    async def onboarding_ratings(self, call: Call) -> Answer:
        request = await call.json(asked.OnboardingRequest)
        settings = self.service.settings.onboarding
        _, served = self.service.pick(None)
        events = self._events(request.ratings)
        known = {event.item for event in events if event.item in served.catalogue.rows}
        if len(known) < settings.minimum:
            raise Problem(422, f"ratings: rate at least {settings.minimum} different items, found {len(known)}")
        if request.user_id is None:
            user: str = cold_start.temporary_user()
            shown: int | str = user
        else:
            user, shown = self._writable(served, request.user_id), request.user_id
        hours = self._life(user)
        expires = None if hours is None else int((time.time() + hours * 3600) * 1000)
        await self.service.remember(user, events, hours=hours)
        ask = Ask(n=request.n, explain=request.explain)
        body, cached = await self.service.recommend_user(user, shown, ask, None)
        front = encode({"user_id": shown, "expires_at": expires, "strength": cold_start.strength(len(known))})
        return Answer(front[:-1] + b',"recommendations":' + finish(body, call.started, cached) + b"}")

    async def demo_users(self, call: Call) -> Answer:
        call.query(asked.Nothing)
        variant, served = self.service.pick(None)
        users = await self.service.in_thread(cold_start.demo_users, served, self.service.settings.demo_users)
        return self._answer(call, variant, served, {"users": users})

    # -- the service itself ---------------------------------------------------------------------------------------

    async def models(self, call: Call) -> Answer:
        call.query(asked.Nothing)
        return Answer(encode({"variants": await self.service.in_thread(self.service.models.describe)}))

    async def activate(self, call: Call) -> Answer:
        request = await call.json(asked.ActivateRequest)
        variant = request.variant or self.service.models.default
        self.service.pick(variant)
        try:
            if request.roll_back:
                await self.service.models.roll_back(variant)
            else:
                await self.service.models.activate(variant, request.run_id)
        except RecsysError as error:
            raise Problem(409, str(error)) from error
        return Answer(encode({"variants": await self.service.in_thread(self.service.models.describe)}))

    async def live(self, call: Call) -> Answer:
        return Answer(b'{"status":"live"}')

    async def ready(self, call: Call) -> Answer:
        if not self.service.models.ready:
            raise Problem(503, "not every variant has a run loaded", self.service.retry_after)
        return Answer(b'{"status":"ready"}')

    async def info(self, call: Call) -> Answer:
        call.query(asked.Nothing)
        _, served = self.service.pick(None)
        own, *others = [facts["info"] for facts in await self.service.everybody()]
        answer = {
            "name": "recsys_ray",
            "version": __version__,
            "users": int(served.bundle.manifest["num_users"]),
            "items": len(served.catalogue),
            "genres": list(served.catalogue.genre_rows),
            "rating_scale": await self._scale(served),
            "evaluation": served.evaluation,
            "others": others,
        }
        return Answer(encode(answer | own))

    async def metrics(self, call: Call) -> Answer:
        found = {facts["info"]["replica"]: facts["metrics"] for facts in await self.service.everybody()}
        return Answer(text(found), content_type=CONTENT_TYPE)

    # -- what they share --------------------------------------------------------------------------------------------

    def _ask(
        self,
        query: asked.RecommendationsQuery,
        allow: Sequence[ItemId] | None = None,
        deny: Sequence[ItemId] | None = None,
        context: asked.Context | None = None,
    ) -> Ask:
        self._page(query)
        return Ask(
            n=query.n,
            offset=query.offset,
            genre=query.genre,
            exclude_seen=query.exclude_seen,
            explain=query.explain,
            allow=None if allow is None else self._ids(allow, "allow"),
            deny=None if deny is None else self._ids(deny, "deny"),
            diversity=None if context is None else context.diversity,
            max_per_genre=None if context is None else context.max_per_genre,
        )

    def _page(self, page: asked.Page) -> None:
        self._at_most(page.n + page.offset, self.service.settings.limits.rows, "offset + n")

    def _ids(self, ids: Sequence[ItemId], name: str) -> tuple[str, ...]:
        self._at_most(len(ids), self.service.settings.limits.events, name)
        return tuple(sorted({self._id(item) for item in ids}))

    def _id(self, value: int | str) -> str:
        text = str(value)
        self._at_most(len(text), self.service.settings.limits.id_length, "characters of an id")
        return text

    def _events(self, sent: Sequence[asked.Interaction]) -> list[Event]:
        """In the order of their times; those without one have happened just now, in the order given."""
        self._at_most(len(sent), self.service.settings.limits.events, "interactions")
        now = int(time.time() * 1000)
        events = [
            Event(self._id(one.item_id), one.rating, now if one.timestamp is None else one.timestamp) for one in sent
        ]
        return sorted(events, key=lambda event: event.timestamp)

    def _writable(self, served: Served, user_id: int | str) -> str:
        """A user id that interactions may be kept for."""
        user = self._id(user_id)
        temporary = user.startswith(cold_start.TEMPORARY)
        if not temporary and typed_id(user, served.bundle.user_id_type) is None:
            raise Problem(422, "user_id: the users of this data have whole numbers as ids")
        return user

    def _life(self, user: str) -> float | None:
        """Hours that interactions of a temporary user are kept; None for those of a lasting one."""
        return self.service.settings.onboarding.hours if user.startswith(cold_start.TEMPORARY) else None

    async def _scale(self, served: Served) -> dict[str, float]:
        lowest, highest = await self.service.in_thread(lambda: served.rating_scale)
        return {"lowest": lowest, "highest": highest}

    def _row(self, served: Served, item: str) -> int:
        row = served.catalogue.rows.get(item)
        if row is None:
            raise Problem(404, "no item with this id in the catalogue")
        return row

    def _answer(self, call: Call, variant: str, served: Served, parts: dict[str, Any]) -> Answer:
        return _finished(encode(parts | origin(variant, served))[:-1], call, False)

    def _at_most(self, found: int, limit: int, what: str) -> None:
        if found > limit:
            raise Problem(422, f"{what}: at most {limit}, found {found}")


def finish(body: bytes, started: float, cached: bool) -> bytes:
    """Close an answer with what differs from call to call."""
    return body + b',"cached":%s,"took_ms":%.3f}' % (b"true" if cached else b"false", _milliseconds(started))


def _finished(body: bytes, call: Call, cached: bool) -> Answer:
    return Answer(finish(body, call.started, cached))


def _milliseconds(started: float) -> float:
    return (time.perf_counter() - started) * 1000
