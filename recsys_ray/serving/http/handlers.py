"""The handlers of the API: each takes an ``HttpRequest``, calls the service, gives an ``HttpResponse``."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from recsys_ray import __version__
from recsys_ray.base.errors import RecsysError
from recsys_ray.content.config import ImageSettings
from recsys_ray.serving.answers.live_run import LiveRun
from recsys_ray.serving.answers.params import RecommendParams, filter_mask
from recsys_ray.serving.answers.poster_images import poster_image
from recsys_ray.serving.facts import origin
from recsys_ray.serving.http import request_models
from recsys_ray.serving.http.asked import Asked
from recsys_ray.serving.http.messages import HttpRequest, HttpResponse, encode
from recsys_ray.serving.overview import Overviews
from recsys_ray.serving.problem import Problem
from recsys_ray.serving.prometheus import CONTENT_TYPE, exposition
from recsys_ray.serving.service import Service
from recsys_ray.serving.users import cold_start
from recsys_ray.serving.users.checks import admitted
from recsys_ray.serving.users.events import RATED, Event


class Handlers:
    """Handlers over one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.overviews = Overviews(service)
        self._asked = Asked(service.settings.limits)

    # -- recommendations --------------------------------------------------------------------------------------

    async def recommendations(self, request: HttpRequest) -> HttpResponse:
        query = request.query(request_models.RecommendationsQuery)
        user = request.parameter
        body, cached = await self.service.recommend_user(user, user, self._asked.params(query), query.variant)
        return _finished(body, request, cached)

    async def recommendations_posted(self, request: HttpRequest) -> HttpResponse:
        body = request.json(request_models.RecommendationsRequest)
        params = self._asked.params(body, body.allow, body.deny, body.context)
        if body.history is not None:
            history = self._asked.events(body.history)
            return _finished(await self.service.recommend_history(history, params, body.variant), request, False)
        if body.user_id is not None:
            user = self._asked.id(body.user_id)
            found, cached = await self.service.recommend_user(user, body.user_id, params, body.variant)
            return _finished(found, request, cached)
        users = body.user_ids or []
        limits = self.service.settings.limits
        self._asked.at_most(len(users), limits.users, "user_ids")
        rows, most = len(users) * (params.offset + params.n), limits.answer_rows // (10 if params.explain else 1)
        self._asked.at_most(rows, most, "user_ids x (offset + n)" + (" with reasons" if params.explain else ""))
        work = [
            self.service.recommend_user(self._asked.id(user), user, params, body.variant, place)
            for place, user in enumerate(users)
        ]
        lists = [finish(found, request.started, cached) for found, cached in await asyncio.gather(*work)]
        took = _milliseconds(request.started)
        return HttpResponse(b'{"results":[%s],"took_ms":%.3f}' % (b",".join(lists), took))

    async def similar(self, request: HttpRequest) -> HttpResponse:
        query = request.query(request_models.SimilarQuery)
        variant, run = self.service.run_for(query.variant)
        row = self._row(run, request.parameter)
        found = await self.service.similar(run, row, query.n)
        describe = run.catalogue.describe
        items = [describe(like) | {"rank": rank, "score": score} for rank, (like, score) in enumerate(found, start=1)]
        return self._respond(request, variant, run, {"item": describe(row), "items": items})

    # -- catalogue ----------------------------------------------------------------------------------------------

    async def items(self, request: HttpRequest) -> HttpResponse:
        query = request.query(request_models.SearchQuery)
        variant, run = self.service.run_for(None)
        self._asked.page(query)
        rows = await self.service.in_thread(run.catalogue.search, query.search, query.n, query.offset)
        return self._respond(request, variant, run, {"items": [run.catalogue.describe(row) for row in rows]})

    async def item(self, request: HttpRequest) -> HttpResponse:
        request.query(request_models.NoQuery)
        variant, run = self.service.run_for(None)
        row = self._row(run, request.parameter)
        catalogue = run.catalogue
        more = {"text": catalogue.texts[row], "interactions": int(catalogue.counts_I[row])}
        return self._respond(request, variant, run, {"items": [catalogue.describe(row) | more]})

    async def poster(self, request: HttpRequest) -> HttpResponse:
        request.query(request_models.NoQuery)
        _, run = self.service.run_for(None)
        row = self._row(run, request.parameter)
        settings, posters = self.service.settings.image or ImageSettings(), run.catalogue.posters
        found = await self.service.in_posters(poster_image, posters[row], str(run.catalogue.ids[row]), settings)
        if found is None:
            raise Problem(404, "this item has no poster that can be shown")
        return HttpResponse(found[0], content_type=found[1], headers={b"cache-control": b"public, max-age=86400"})

    async def popular(self, request: HttpRequest) -> HttpResponse:
        query = request.query(request_models.PopularQuery)
        variant, run = self.service.run_for(None)
        self._asked.page(query)
        catalogue, filters = run.catalogue, query.filters
        rows_I = catalogue.by_popularity_I
        mask_I = None if filters is None else filter_mask(run, filters)
        allowed_I = run.allowed(run.moment(query.at), mask_I)
        if allowed_I is not None:
            rows_I = rows_I[allowed_I[rows_I]]
        rows = rows_I[query.offset : query.offset + query.n].tolist()
        items = [catalogue.describe(row) | {"interactions": int(catalogue.counts_I[row])} for row in rows]
        return self._respond(request, variant, run, {"items": items})

    # -- users --------------------------------------------------------------------------------------------------

    async def feedback(self, request: HttpRequest) -> HttpResponse:
        body = request.json(request_models.FeedbackRequest)
        _, run = self.service.run_for(None)
        if self.service.exposures is None and any(event.kind == "clicked" for event in body.events):
            raise Problem(422, "kind: clicks are kept only where exposures are; set serving.exposures")
        found: dict[tuple[str, str], list[request_models.FeedbackEvent]] = {}
        for event in body.events:
            found.setdefault((self._asked.writable(run, event.user_id), event.kind), []).append(event)
        events, unknown = await self._admitted(run, {key: self._asked.events(sent) for key, sent in found.items()})
        sizes = self._take(request, events)
        await asyncio.gather(*(self._keep(user, kind, sent) for (user, kind), sent in events.items() if sent))
        parts = {"accepted": sizes.total(), "unknown_items": unknown, "took_ms": _milliseconds(request.started)}
        return HttpResponse(encode(parts))

    async def _admitted(self, run: LiveRun, sent: Mapping[Any, Sequence[Event]]) -> tuple[dict[Any, list[Event]], int]:
        return await self.service.in_thread(admitted, run, sent, self.service.settings.feedback)  # type: ignore[no-any-return]

    def _take(self, request: HttpRequest, events: Mapping[tuple[str, str], Sequence[Event]]) -> Counter[str]:
        """Events by user, counted against what the holder of the key may send. Raises Problem 429."""
        sizes: Counter[str] = Counter()
        items: Counter[str] = Counter()
        for (user, kind), kept in events.items():
            sizes[user] += len(kept)
            if kind == RATED and not cold_start.is_temporary(user):  # what the next run counts
                items.update(event.item for event in kept)
        self.service.quota.take(request.holder, sizes, items)
        return sizes

    async def _keep(self, user: str, kind: str, sent: Sequence[Event]) -> None:
        if kind == "clicked":
            await self.service.add_clicks(user, sent)
        else:
            await self.service.add_events(user, sent, hours=self._hours_kept(user))

    async def history(self, request: HttpRequest) -> HttpResponse:
        query = request.query(request_models.HistoryQuery)
        user = request.parameter
        variant, run = self.service.run_for(query.variant, user)
        self._asked.page(query)
        kind, histories = await self.service.history(run, user)
        newest = slice(query.offset, query.offset + query.n)
        columns = (histories.items_E[::-1], histories.ratings_E[::-1], histories.timestamps_E[::-1])
        items = [
            run.catalogue.describe(row) | {"rating": rating, "timestamp": time or None}
            for row, rating, time in zip(*(column[newest].tolist() for column in columns), strict=True)
        ]
        parts = {"user_id": user, "user": kind, "history": len(histories.items_E), "items": items}
        return self._respond(request, variant, run, parts)

    async def onboarding_items(self, request: HttpRequest) -> HttpResponse:
        query = request.query(request_models.OnboardingQuery)
        variant, run = self.service.run_for(None)
        settings = self.service.settings.onboarding
        allowed_I, n = run.allowed(run.moment(None)), query.n or settings.items
        rows = await self.service.in_thread(cold_start.onboarding_rows, run.catalogue, n, settings.pool, allowed_I)
        if query.seed:
            rest = (rows, settings.pool, query.seed, allowed_I)
            rows = await self.service.in_thread(cold_start.similar_mix, run.catalogue, *rest)
        parts = {
            "items": [run.catalogue.describe(row) for row in rows],
            "minimum": settings.minimum,
            "rating_scale": await self._scale(run),
        }
        return self._respond(request, variant, run, parts)

    async def onboarding_ratings(self, request: HttpRequest) -> HttpResponse:
        body = request.json(request_models.OnboardingRequest)
        settings = self.service.settings.onboarding
        _, run = self.service.run_for(None)
        events = self._asked.events(body.ratings)
        known = {event.item for event in events if event.item in run.catalogue.rows}
        if len(known) < settings.minimum:
            raise Problem(422, f"ratings: rate at least {settings.minimum} different items, found {len(known)}")
        if body.user_id is None:
            user: str = cold_start.temporary_user()
            sent_id: int | str = user
        else:
            user, sent_id = self._asked.writable(run, body.user_id), body.user_id
        hours = self._hours_kept(user)
        expires = None if hours is None else int((time.time() + hours * 3600) * 1000)
        kept, _ = await self._admitted(run, {(user, RATED): events})
        self._take(request, kept)
        await self.service.add_events(user, kept[user, RATED], hours=hours)
        params = RecommendParams(n=body.n, explain=body.explain)
        found, cached = await self.service.recommend_user(user, sent_id, params, None)
        front = encode({"user_id": sent_id, "expires_at": expires, "strength": cold_start.strength(len(known))})
        return HttpResponse(front[:-1] + b',"recommendations":' + finish(found, request.started, cached) + b"}")

    async def demo_users(self, request: HttpRequest) -> HttpResponse:
        request.query(request_models.NoQuery)
        variant, run = self.service.run_for(None)
        settings = self.service.settings
        users = await self.service.in_thread(cold_start.demo_users, run, settings.demo_users, settings.personas)
        return self._respond(request, variant, run, {"users": users})

    # -- the service itself ---------------------------------------------------------------------------------------

    async def models(self, request: HttpRequest) -> HttpResponse:
        request.query(request_models.NoQuery)
        return HttpResponse(encode({"variants": await self.service.in_thread(self.service.runs.describe)}))

    async def activate(self, request: HttpRequest) -> HttpResponse:
        body = request.json(request_models.ActivateRequest)
        variant = body.variant or self.service.runs.default
        self.service.run_for(variant)
        try:
            if body.roll_back:
                await self.service.runs.roll_back(variant)
            else:
                await self.service.runs.activate(variant, body.run_id)
        except RecsysError as error:
            raise Problem(409, str(error)) from error
        return HttpResponse(encode({"variants": await self.service.in_thread(self.service.runs.describe)}))

    async def overview(self, request: HttpRequest) -> HttpResponse:
        request.query(request_models.NoQuery)
        return HttpResponse(encode(await self.overviews.now()))

    async def live(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(b'{"status":"live"}')

    async def ready(self, request: HttpRequest) -> HttpResponse:
        if not self.service.runs.ready:
            raise Problem(503, "not every variant has a run loaded", self.service.retry_after)
        degraded = [*self.service.runs.degraded, *self.service.troubles]
        return HttpResponse(encode({"status": "degraded" if degraded else "ready", "degraded": degraded}))

    async def info(self, request: HttpRequest) -> HttpResponse:
        request.query(request_models.NoQuery)
        _, run = self.service.run_for(None)
        own, *others = [facts["info"] for facts in await self.service.all_replicas()]
        parts = {
            "name": "recsys_ray",
            "version": __version__,
            "users": int(run.bundle.manifest["num_users"]),
            "items": len(run.catalogue),
            "genres": list(run.catalogue.genre_rows),
            "newest_year": run.catalogue.newest_year,
            "rating_scale": await self._scale(run),
            "evaluation": run.evaluation,
            "others": others,
        }
        return HttpResponse(encode(parts | own))

    async def metrics(self, request: HttpRequest) -> HttpResponse:
        found = {facts["info"]["replica"]: facts["metrics"] for facts in await self.service.all_replicas()}
        return HttpResponse(exposition(found), content_type=CONTENT_TYPE)

    # -- what they share --------------------------------------------------------------------------------------------

    def _hours_kept(self, user: str) -> float | None:
        """Hours that interactions of a temporary user are kept; None for those of a user of the data."""
        return self.service.settings.onboarding.hours if cold_start.is_temporary(user) else None

    async def _scale(self, run: LiveRun) -> dict[str, float]:
        lowest, highest = await self.service.in_thread(lambda: run.rating_scale)
        return {"lowest": lowest, "highest": highest}

    def _row(self, run: LiveRun, item: str) -> int:
        row = run.catalogue.rows.get(item)
        if row is None:
            raise Problem(404, "no item with this id in the catalogue")
        return row

    def _respond(self, request: HttpRequest, variant: str, run: LiveRun, parts: dict[str, Any]) -> HttpResponse:
        return _finished(encode(parts | origin(variant, run))[:-1], request, False)


def finish(body: bytes, started: float, cached: bool) -> bytes:
    """Close a body with what differs from request to request."""
    return body + b',"cached":%s,"took_ms":%.3f}' % (b"true" if cached else b"false", _milliseconds(started))


def _finished(body: bytes, request: HttpRequest, cached: bool) -> HttpResponse:
    return HttpResponse(finish(body, request.started, cached))


def _milliseconds(started: float) -> float:
    return (time.perf_counter() - started) * 1000
