"""The service without HTTP: what is asked in, the bytes of an answer out.

Every answer names the run, model and variant it came from. It is made by ``recommend``, so it equals the published
file of that run for a user who has sent nothing since.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import Requests
from recsys_ray.recommend.similar import similar_items
from recsys_ray.runs.publish import FOLDER
from recsys_ray.serving.answers.batching import Batcher
from recsys_ray.serving.answers.cache import AnswerCache
from recsys_ray.serving.answers.live_run import Served
from recsys_ray.serving.answers.live_runs import Models
from recsys_ray.serving.answers.query import Ask, options_of
from recsys_ray.serving.answers.reasons import Narrator, reasons, shown
from recsys_ray.serving.answers.variants import Assignment
from recsys_ray.serving.config import ServeSettings
from recsys_ray.serving.http.auth import Keys
from recsys_ray.serving.http.messages import Problem, encode
from recsys_ray.serving.metrics import Metrics
from recsys_ray.serving.users.cold_start import TEMPORARY, stage
from recsys_ray.serving.users.journal import Event, Journal, UserStates
from recsys_ray.serving.users.redis_state import Redis, SharedCache, SharedPeers, SharedStates
from recsys_ray.serving.users.replicas import SECONDS, LocalPeers, Peers

log = logging.getLogger(__name__)
EXPOSURES = logging.getLogger("recsys_ray.exposures")


class Service:
    """All parts together. ``start`` before the first question, ``stop`` after the last."""

    def __init__(self, settings: ServeSettings, output: Location) -> None:
        self.settings, self.output = settings, output
        self.metrics, self.keys = Metrics(), Keys(settings.keys)
        self.cache = AnswerCache(settings.cache.mib << 20, settings.cache.ttl_seconds)
        self.journal = Journal(_state_file(settings, output))
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
        self.narrator = None if settings.narrator is None else Narrator(settings.narrator, self.metrics)
        self.assignment = Assignment(settings.variants, settings.salt)
        self._io = ThreadPoolExecutor(4, "io")
        self._scoring = ThreadPoolExecutor(settings.threads, "scoring")
        self.models = Models(settings, output, self._io)
        self.models.on_swap = self._swapped
        batching = settings.batching
        self.batcher = Batcher(
            self._scoring, batching.max_rows, batching.max_wait_ms / 1000, self.metrics.batch_rows.observe
        )
        self.started = time.time()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load what should answer, then keep looking. A run that can't be opened leaves the service unready."""
        await self.models.refresh()
        self._tasks = [
            asyncio.create_task(_every(self.settings.poll_seconds, self.models.refresh)),
            asyncio.create_task(_every(self.settings.feedback.roll_seconds, self.export_feedback)),
            asyncio.create_task(_every(SECONDS, self.tell)),
        ]
        await self.tell()

    async def stop(self) -> None:
        """Write out what was taken and let go of everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.export_feedback()
        await self.peers.leave()
        if self._redis is not None:
            await self._redis.close()
        if self.narrator is not None:
            self.narrator.close()
        self._scoring.shutdown()
        self._io.shutdown()
        self.journal.close()

    async def export_feedback(self) -> None:
        """What was taken so far as Parquet under <output>/feedback."""
        served = self.models.served(self.models.default)
        if served is None:
            return
        types = served.bundle.user_id_type, served.bundle.item_ids.type
        files = await self.in_thread(self.journal.export, self.output / "feedback", *types)
        self.metrics.feedback_files.inc(len(files))

    async def tell(self) -> dict[str, Any]:
        """What the other replicas show of this one, told to them."""
        slots, cache = self.models.slots, self.cache
        looked_up = cache.hits + cache.misses
        info = {
            "replica": self.peers.name,
            "variants": [origin(name, slot.current) for name, slot in slots.items() if slot.current is not None],
            "cache": {
                "entries": len(cache),
                "bytes": cache.bytes,
                "hit_rate": cache.hits / looked_up if looked_up else 0.0,
            },
            "uptime_seconds": time.time() - self.started,
        }
        facts = {"info": info, "metrics": self.metrics.families()}
        await self.peers.tell(facts)
        return facts

    async def everybody(self) -> list[dict[str, Any]]:
        """What every replica says of itself, this one first and as of now."""
        own, found = await self.tell(), await self.peers.all()
        return [own, *(facts for name, facts in found.items() if name != self.peers.name)]

    # -- who answers ----------------------------------------------------------------------------------------

    def pick(self, variant: str | None, user: str = "") -> tuple[str, Served]:
        """The variant that was asked for, or the user's own, and its run. Raises Problem 422, 503."""
        name = self.assignment.of(user) if variant is None else variant
        if name not in self.models.slots:
            raise Problem(422, f"variant: there is none of this name; there are {', '.join(self.models.slots)}")
        served = self.models.served(name)
        if served is None:
            raise Problem(503, "no run is loaded yet; see /health/ready", self.retry_after)
        return name, served

    @property
    def retry_after(self) -> dict[bytes, bytes]:
        return {b"retry-after": b"%d" % self.settings.limits.retry_after_seconds}

    # -- recommendations --------------------------------------------------------------------------------------

    async def recommend_user(self, user: str, shown_id: int | str, ask: Ask, variant: str | None) -> tuple[bytes, bool]:
        """JSON of one user's list, without its closing brace, and whether it was in the cache."""
        name, served = self.pick(variant, user)
        version = await self.states.version(user)
        key = (served.run_id, name, shown_id, version, ask)
        body = await self._cached(key)
        if body is not None:
            self._exposed(name, served, user, body[0], True)
            return body[1], True
        events = await self.states.events(user) if version else []
        request, unknown, kind = await self.in_thread(self._known, served, user, events)
        source, answer = await self._answer(name, served, request, ask, (shown_id, kind, unknown))
        await self._keep(key, source.encode() + b"\n" + answer)
        self._exposed(name, served, user, source, False)
        return answer, False

    async def recommend_history(self, history: Sequence[Event], ask: Ask, variant: str | None) -> bytes:
        """The same for a history that belongs to nobody."""
        who = hashlib.sha256(encode([event.item for event in history])).hexdigest()
        name, served = self.pick(variant, who)
        request, unknown = served.request(None, list(history))
        kind = "new" if len(request.histories.items_E) else "unknown"
        source, answer = await self._answer(name, served, request, ask, (None, kind, unknown))
        self._exposed(name, served, who, source, False)
        return answer

    async def _cached(self, key: Any) -> tuple[str, bytes] | None:
        found = self._count("memory", self.cache.get(key))
        if found is None and self.shared is not None:
            found = self._count("redis", await self.shared.get(key))
            if found is not None:
                self.cache.put(key, found)
        if found is None:
            return None
        source, _, body = found.partition(b"\n")
        return source.decode(), body

    def _count(self, cache: str, found: bytes | None) -> bytes | None:
        self.metrics.looked_up(cache, found is not None)
        return found

    async def _keep(self, key: Any, value: bytes) -> None:
        self.cache.put(key, value)
        self.metrics.cache_bytes.set(self.cache.bytes)
        if self.shared is not None:
            await self.shared.put(key, value)

    def _known(self, served: Served, user: str, events: list[Event]) -> tuple[Requests, int, str]:
        known = None if user.startswith(TEMPORARY) else served.users.find(user)
        request, unknown = served.request(known, events)
        if known is None:
            return request, unknown, "new" if len(request.histories.items_E) else "unknown"
        return request, unknown, "known" if request is known else "updated"

    async def _answer(
        self, name: str, served: Served, request: Requests, ask: Ask, who: tuple[int | str | None, str, int]
    ) -> tuple[str, bytes]:
        options = options_of(served, ask)
        rows: list[dict[str, Any]] = []
        if options is not None:
            table = await self.batcher.answer(served, request, options, ask.scoring)
            rows = table.slice(ask.offset).select(["rank", "item_id", "score", "source"]).to_pylist()
        items = [served.catalogue.show(served.catalogue.rows[str(row["item_id"])]) | row for row in rows]
        if ask.explain and items:
            await self._explain(served, request, items)
        sources = {row["source"] for row in rows}
        source = sources.pop() if len(sources) == 1 else "mixed" if sources else "none"
        history = len(request.histories.items_E)
        shown_id, kind, unknown = who
        body = {
            "user_id": shown_id,
            "user": kind,
            "stage": stage(history),
            "history": history,
            "ignored": unknown,
            "source": source,
            "items": items,
            **origin(name, served),
        }
        return source, encode(body)[:-1]

    async def _explain(self, served: Served, request: Requests, items: list[dict[str, Any]]) -> None:
        rows = [served.catalogue.rows[str(item["item_id"])] for item in items]
        sources = [item["source"] for item in items]
        for item, reason in zip(items, await self.in_scoring(reasons, served, request, rows, sources), strict=True):
            item["reason"] = shown(reason)
        if self.narrator is not None:
            await self.narrator.word(items)

    # -- the rest ---------------------------------------------------------------------------------------------

    async def remember(self, user: str, events: Sequence[Event], *, hours: float | None = None) -> None:
        """Keep what a user sent: for some hours, or, without a number, until a batch run has learned it."""
        lasting = hours is None
        await self.states.add(user, events, hours or self.settings.feedback.remember_days * 24, lasting=lasting)
        self.metrics.feedback.inc(len(events))

    def similar(self, served: Served, row: int, n: int) -> list[tuple[int, float]]:
        """Rows and scores of the items most like one, as the model sees it."""
        table = similar_items(served.bundle, np.array([row], np.int32), min(n, len(served.catalogue)))
        rows = [served.catalogue.rows[str(item)] for item in table.column("similar_item_id").to_pylist()]
        return list(zip(rows, table.column("score").to_pylist(), strict=True))

    async def in_thread(self, function: Any, *args: Any) -> Any:
        """For what may read files."""
        return await asyncio.get_running_loop().run_in_executor(self._io, function, *args)

    async def in_scoring(self, function: Any, *args: Any) -> Any:
        """For what computes."""
        return await asyncio.get_running_loop().run_in_executor(self._scoring, partial(function, *args))

    def _swapped(self, variant: str, served: Served) -> None:
        self.metrics.serves(variant, served)

    def _exposed(self, variant: str, served: Served, user: str, source: str, cached: bool) -> None:
        self.metrics.exposed(variant, served.model, source, cached)
        if len(self.models.slots) > 1:
            EXPOSURES.info(
                '{"variant": "%s", "run_id": "%s", "user": %s}', variant, served.run_id, encode(user).decode()
            )


def origin(variant: str, served: Served) -> dict[str, str]:
    """The part of every answer that names what made it."""
    return {"run_id": served.run_id, "model": served.model, "variant": variant}


async def _every(seconds: float, work: Any) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:  # it is tried again; a broken disk must not end the service
            log.exception("background work failed")


def _state_file(settings: ServeSettings, output: Location) -> Path:
    if settings.state is not None:
        return Path(settings.state).expanduser().absolute() / "state.sqlite"
    if not output.is_local:
        raise ConfigError(f"serve.state: set a local directory for what users send; output {output} is not local")
    return Path(output.url) / FOLDER / "state.sqlite"
