"""The service without HTTP: parameters in, the bytes of a response out.

Every response names the run, model and variant it came from. It is made by ``rank``, so it equals the published file of
that run for a user who has sent nothing since.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from pydantic_core import to_json

from recsys_ray.base.errors import StorageError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import Histories, Requests
from recsys_ray.recommend.moments import Moment
from recsys_ray.recommend.rank import Ranked
from recsys_ray.recommend.similar import similar_rows
from recsys_ray.serving.answers.batching import Batcher
from recsys_ray.serving.answers.cache import AnswerCache
from recsys_ray.serving.answers.listed import FORMAT, NOTHING, Listed, kind_of_stranger, list_items, listed
from recsys_ray.serving.answers.live_run import LiveRun
from recsys_ray.serving.answers.live_runs import LiveRuns
from recsys_ray.serving.answers.narrator import Narrator, open_narrator
from recsys_ray.serving.answers.params import RecommendParams, options_of
from recsys_ray.serving.answers.reasons import list_reasons
from recsys_ray.serving.answers.variants import Assignment
from recsys_ray.serving.background import every
from recsys_ray.serving.config import ServingSettings
from recsys_ray.serving.facts import Facts, origin
from recsys_ray.serving.problem import Problem
from recsys_ray.serving.prometheus import Metrics
from recsys_ray.serving.users.cold_start import is_temporary, stage
from recsys_ray.serving.users.events import RATED, Event, UserStates
from recsys_ray.serving.users.exposures import FLUSH_SECONDS, ExposureJournal
from recsys_ray.serving.users.forgotten import Forgotten
from recsys_ray.serving.users.journal import Journal, state_file
from recsys_ray.serving.users.quota import Quota
from recsys_ray.serving.users.redis_state import Redis, SharedCache, SharedPeers, SharedStates
from recsys_ray.serving.users.replicas import SECONDS, LocalPeers, Peers

log = logging.getLogger(__name__)
FORGOTTEN = -1
"""In place of the version of what a user sent: the answers of before are not those of now."""
EXPOSURES = logging.getLogger("recsys_ray.exposures")

FOREVER = 24 * 365.25 * 100
"""Hours."""


class Service:
    """All parts together. ``start`` before the first request, ``stop`` after the last."""

    def __init__(self, settings: ServingSettings, output: Location) -> None:
        self.settings, self.output = settings, output
        self.metrics = Metrics()
        self.cache = AnswerCache(settings.cache.mib << 20, settings.cache.ttl_seconds)
        self.journal = Journal(state_file(settings, output))
        self.states: UserStates = self.journal
        self.peers: Peers = LocalPeers(self.journal.file.parent / "replicas")
        self.shared: SharedCache | None = None
        self._redis: Redis | None = None
        if settings.redis is not None:
            prefix = f"recsys_ray:{hashlib.sha256(str(output).encode()).hexdigest()[:12]}"
            self._redis = Redis(settings.redis, prefix, self.metrics.redis_errors.inc)
            self.states = SharedStates(self._redis, self.journal)
            self.shared = SharedCache(self._redis, settings.cache.ttl_seconds)
            self.peers = SharedPeers(self._redis, self.peers)
        self.narrator: Narrator | None = None
        if settings.narrator is not None:
            self.narrator = open_narrator(settings.narrator, self.metrics, self.journal.file.parent, self._redis)
        self.quota = Quota(settings.feedback)
        self.exposures: ExposureJournal | None = None
        if settings.exposures is not None:
            outbox = self.journal.file.with_name("exposures.sqlite")
            self.exposures = ExposureJournal(outbox, settings.exposures, self.metrics.count_exposure_rows)
        self.forgotten = Forgotten(output, self.states)
        self.assignment = Assignment(settings.variants, settings.salt)
        self._io = ThreadPoolExecutor(4, "io")
        self._posters = ThreadPoolExecutor(4, "posters")
        self._scoring = ThreadPoolExecutor(settings.threads, "scoring")
        self.runs = LiveRuns(settings, output, self._io, self.peers.name)
        self.runs.on_swap = self.metrics.set_run
        batching = settings.batching
        self.batcher = Batcher(
            self._scoring, batching.max_rows, batching.max_wait_ms / 1000, self.metrics.batch_rows.observe
        )
        self.started = time.time()
        self.facts = Facts(self.runs, self.cache, self.metrics, self.peers, self.started)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the runs that answer, then keep polling. A run that can't be opened leaves the service unready."""
        await self._refresh_forgotten()
        await self.runs.refresh()
        self._tasks = [
            asyncio.create_task(every(self.settings.poll_seconds, self._refresh_forgotten)),
            asyncio.create_task(every(self.settings.poll_seconds, self.runs.refresh)),
            asyncio.create_task(every(self.settings.feedback.roll_seconds, self.export_feedback)),
            asyncio.create_task(every(SECONDS, self.facts.publish)),
        ]
        if self.exposures is not None:
            self._tasks += [
                asyncio.create_task(every(FLUSH_SECONDS, self.exposures.flush)),
                asyncio.create_task(every(self.exposures.settings.roll_seconds, self.export_exposures)),
            ]
        await self.facts.publish()

    async def stop(self) -> None:
        """Write out what was taken and let go of everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.export_feedback()
        if self.exposures is not None:
            await self.exposures.close(self.export_exposures)
        await self.in_thread(self.runs.close)
        await self.peers.leave()
        if self._redis is not None:
            await self._redis.close()
        if self.narrator is not None:
            self.narrator.close()
        self._scoring.shutdown()
        self._io.shutdown()
        self._posters.shutdown(wait=False, cancel_futures=True)
        self.journal.close()

    async def export_feedback(self) -> None:
        """What was taken so far as Parquet under <output>/feedback, what users hide under <output>/hidden."""
        run = self.runs.current(self.runs.default)
        if run is None:
            return
        types = run.bundle.user_id_type, run.bundle.item_ids.type
        files = await self.in_thread(self.journal.export, self.output / "feedback", *types)
        self.metrics.feedback_files.inc(len(files))

    async def export_exposures(self) -> None:
        """What was shown so far as Parquet under <output>/exposures, and what was clicked under <output>/clicks."""
        run = self.runs.current(self.runs.default)
        if run is not None and self.exposures is not None:
            await self.exposures.export(self.output, run.bundle.user_id_type, run.bundle.item_ids.type)

    async def all_replicas(self) -> list[dict[str, Any]]:
        """The facts of every replica, this one first and as of now."""
        return await self.facts.all()

    @property
    def troubles(self) -> list[str]:
        """Optional parts that don't work now: what was asked of them goes on without."""
        found = {"state": self.journal.problem, "replicas": self.facts.problem}
        if self._redis is not None and self._redis.away:
            found["redis"] = "away"
        if self.narrator is not None and self.narrator.is_away:
            found["narrator"] = "away"
        return [name for name, why in found.items() if why is not None]

    # -- which run answers ------------------------------------------------------------------------------------

    def run_for(self, variant: str | None, user: str = "") -> tuple[str, LiveRun]:
        """The variant of this name, or the user's own, and its run. Raises Problem 422, 503."""
        name = self.assignment.variant_of(user) if variant is None else variant
        if name not in self.runs.slots:
            raise Problem(422, f"variant: there is none of this name; there are {', '.join(self.runs.slots)}")
        run = self.runs.current(name)
        if run is None:
            raise Problem(503, "no run is loaded yet; see /health/ready", self.retry_after)
        return name, run

    @property
    def retry_after(self) -> dict[bytes, bytes]:
        return {b"retry-after": b"%d" % self.settings.limits.retry_after_seconds}

    # -- recommendations --------------------------------------------------------------------------------------

    async def recommend_user(
        self, user: str, sent_id: int | str, params: RecommendParams, variant: str | None, place: int = 0
    ) -> tuple[bytes, bool]:
        """JSON of one user's list, without its closing brace, and whether it was in the cache.

        ``sent_id``: the id as the caller wrote it; ``place``: of the user in the call.
        """
        name, run = self.run_for(variant, user)
        version = FORGOTTEN if user in self.forgotten else await self.states.version(user)
        moment = run.moment(params.at)
        key = (FORMAT, run.run_id, run.degraded, name, sent_id, version, params, moment, self._most_shown)
        found = await self._cached(key)
        if found is not None:
            self._record_exposure(name, run, user, found, True)
            return found.body, True
        events = await self.states.events(user) if version > 0 else []
        request, ignored, kind = await self.in_thread(self._user_request, run, user, events)
        about = {"user_id": sent_id, "user": kind, "ignored": ignored}
        made = await self._recommend(name, run, request, params, moment, about, place)
        await self._store(key, made.packed())
        self._record_exposure(name, run, user, made, False)
        return made.body, False

    async def history(self, run: LiveRun, user: str) -> tuple[str, Histories]:
        """What kind of user it is, and what a list for them would be based on, the oldest first."""
        forgotten = user in self.forgotten
        events = [] if forgotten or not await self.states.version(user) else await self.states.events(user)
        request, _, kind = await self.in_thread(self._user_request, run, user, events)
        return kind, request.histories

    async def recommend_history(self, history: Sequence[Event], params: RecommendParams, variant: str | None) -> bytes:
        """The same for a history without a user."""
        digest = hashlib.sha256(to_json([event.item for event in history])).hexdigest()
        name, run = self.run_for(variant, digest)
        request, ignored = run.request(None, list(history))
        about = {"user_id": None, "user": kind_of_stranger(request), "ignored": ignored}
        made = await self._recommend(name, run, request, params, run.moment(params.at), about)
        self._count_exposure(name, run, digest, made, False)
        return made.body

    @property
    def _most_shown(self) -> int:
        return 0 if self.settings.exposures is None else self.settings.exposures.items

    async def _cached(self, key: Any) -> Listed | None:
        found = self._counted("memory", self.cache.get(key))
        if found is None and self.shared is not None:
            found = self._counted("redis", await self.shared.get(key))
            if found is not None:
                self.cache.put(key, found)
        return None if found is None else Listed.unpacked(found)

    def _counted(self, cache: str, found: bytes | None) -> bytes | None:
        self.metrics.count_lookup(cache, found is not None)
        return found

    async def _store(self, key: Any, value: bytes) -> None:
        self.cache.put(key, value)
        self.metrics.cache_bytes.set(self.cache.bytes)
        if self.shared is not None:
            await self.shared.put(key, value)

    def _user_request(self, run: LiveRun, user: str, events: list[Event]) -> tuple[Requests, int, str]:
        """(request, events of unknown items, kind of user)."""
        forgotten = user in self.forgotten
        known = None if is_temporary(user) or forgotten else run.users.find(user)
        base = run.empty_request if forgotten else run.with_lists(known or run.empty_request, user)
        request, ignored = run.request(base, events)
        if known is None:
            return request, ignored, kind_of_stranger(request)
        return request, ignored, "known" if request is base else "updated"

    async def _recommend(
        self,
        name: str,
        run: LiveRun,
        request: Requests,
        params: RecommendParams,
        moment: Moment,
        about: dict[str, Any],
        place: int = 0,
    ) -> Listed:
        options = options_of(run, params, moment)
        items: list[dict[str, Any]] = []
        if options is not None:
            ranked = await self.batcher.rank(run, request, options, (params.ranking, moment), place)
            page = ranked.part(slice(None), slice(params.offset, None))
            items = list_items(run, page, params.offset)
            if params.explain and items:
                await self._add_reasons(run, request, page, items)
        history = len(request.histories.items_E)
        front = about | {"stage": stage(history, run.options.stages), "history": history}
        back = {"message": None if items else NOTHING[options is None]} | origin(name, run)
        return listed(front, items, back, self._most_shown)

    async def _add_reasons(self, run: LiveRun, request: Requests, page: Ranked, items: list[dict[str, Any]]) -> None:
        for item, reason in zip(items, await self.in_scoring(list_reasons, run, request, page), strict=True):
            item["reason"] = reason
        if self.narrator is not None:
            await self.narrator.rephrase(items, await self.in_scoring(run.profiler.profile, request.histories))

    # -- the rest ---------------------------------------------------------------------------------------------

    async def add_events(self, user: str, events: Sequence[Event], *, hours: float | None = None) -> None:
        """Keep what a user sent: for some hours, or, without a number, until a batch run has learned it. What is hidden
        stays so."""
        self._refuse_forgotten(user)
        rated = [event for event in events if event.kind == RATED]
        wishes = [event for event in events if event.kind != RATED]
        try:
            for some, kept in ((rated, self.settings.feedback.remember_days * 24), (wishes, FOREVER)):
                if some:
                    await self.states.add(user, some, hours or kept, durable=hours is None)
        except StorageError as error:
            log.error("%s", error)
            raise Problem(503, "nothing can be kept now; send it again later", self.retry_after) from error
        self.metrics.feedback.inc(len(events))

    async def add_clicks(self, user: str, events: Sequence[Event]) -> None:
        """Keep that a user opened items: outcomes of an experiment, of which no list takes notice."""
        assert self.exposures is not None, "clicks are refused without it"
        self._refuse_forgotten(user)
        await self.in_thread(self.exposures.clicked, user, events)
        self.metrics.feedback.inc(len(events))

    async def _refresh_forgotten(self) -> None:
        await self.forgotten.refresh()
        if self.exposures is not None:
            self.exposures.forgotten = self.forgotten.users

    def _refuse_forgotten(self, user: str) -> None:
        if user in self.forgotten:
            raise Problem(422, "user_id: this user asked to be forgotten, so nothing is kept")

    async def similar(self, run: LiveRun, row: int, n: int) -> list[tuple[int, float]]:
        """Rows and scores of the items most like one, as the model sees it."""
        rows_R, n = np.array([row], np.int32), min(n, len(run.catalogue))
        top = await self.in_scoring(similar_rows, run.bundle, rows_R, n, run.allowed(run.moment(None)))
        return [pair for pair in zip(top.rows_BK[0].tolist(), top.scores_BK[0].tolist(), strict=True) if pair[0] >= 0]

    async def in_thread(self, function: Any, *args: Any) -> Any:
        """For what may read files."""
        return await asyncio.get_running_loop().run_in_executor(self._io, function, *args)

    async def in_posters(self, function: Any, *args: Any) -> Any:
        """For what may wait long for a file or another machine, and hold up nothing else."""
        return await asyncio.get_running_loop().run_in_executor(self._posters, function, *args)

    async def in_scoring(self, function: Any, *args: Any) -> Any:
        """For what computes."""
        return await asyncio.get_running_loop().run_in_executor(self._scoring, function, *args)

    def _record_exposure(self, variant: str, run: LiveRun, user: str, made: Listed, cached: bool) -> None:
        self._count_exposure(variant, run, user, made, cached)
        if self.exposures is not None and user not in self.forgotten:
            assigned = variant == self.assignment.variant_of(user)
            self.exposures.shown(user, variant, assigned, run.run_id, made.shown.decode())

    def _count_exposure(self, variant: str, run: LiveRun, user: str, made: Listed, cached: bool) -> None:
        self.metrics.count_exposure(variant, run.model, made.source, cached)
        if len(self.runs.slots) > 1:
            EXPOSURES.info('{"variant": "%s", "run_id": "%s", "user": %s}', variant, run.run_id, to_json(user).decode())
