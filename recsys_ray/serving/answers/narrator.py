"""Rephrases reasons by a language model; where it gives no text in time or for the money, the template's stays."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from recsys_ray.base.errors import StorageError
from recsys_ray.serving.answers.cache import AnswerCache
from recsys_ray.serving.answers.language_model import INSTRUCTION, LanguageModel, Written
from recsys_ray.serving.answers.spending import LocalSpending, SharedSpending, Spending, today
from recsys_ray.serving.config import NarratorSettings
from recsys_ray.serving.prometheus import Metrics
from recsys_ray.serving.users.redis_state import Redis, SharedCache

log = logging.getLogger(__name__)

CACHE_BYTES = 8 << 20
GRACE_SECONDS = 0.2
PAUSE_SECONDS = 20.0  # without the language model, after a call that failed or would have cost too much


class Narrator:
    """Texts of a language model: cached, counted, paid up to a limit, and never waited for too long."""

    def __init__(
        self, settings: NarratorSettings, metrics: Metrics, spending: Spending, shared: SharedCache | None = None
    ) -> None:
        self._settings, self._metrics = settings, metrics
        self._spending, self._shared = spending, shared
        self._model = LanguageModel(settings)
        self._cache = AnswerCache(CACHE_BYTES, settings.cache_hours * 3600)
        self._pool = ThreadPoolExecutor(settings.items, "narrator")
        self._paused_until, self._pause = 0.0, "spared"
        metrics.set_narration_limit(settings.daily_limit)

    async def rephrase(self, items: list[dict[str, Any]], profile: dict[str, Any]) -> None:
        """Rephrase the reasons of the leading items in place; those that get no text in time keep the template's.

        ``profile`` is what the language model is told of the user, see ``Profiler.profile``.
        """
        await asyncio.gather(*(self._rephrase_one(item, profile) for item in items[: self._settings.items]))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._spending.close()

    async def _rephrase_one(self, item: dict[str, Any], profile: dict[str, Any]) -> None:
        reason = item["reason"]
        about = {"item": item["title"] or str(item["item_id"]), "genres": item["genres"], "year": item["year"]}
        facts = to_json(about | reason | ({"user": profile} if profile and self._settings.profile else {})).decode()
        key = hashlib.sha256("\0".join((self._settings.model, INSTRUCTION, facts)).encode()).hexdigest()
        text, outcome = await self._cached(key), "cached"
        if text is None:
            text, outcome = await self._written(facts)
            if text is not None:
                self._cache.put(key, text.encode())
                if self._shared is not None:
                    await self._shared.put(key, text.encode())
        self._metrics.narrations.labels(outcome).inc()
        if text is not None:
            reason |= {"text": text, "by": self._settings.model}

    async def _cached(self, key: str) -> str | None:
        found = self._cache.get(key)
        if found is None and self._shared is not None:
            found = await self._shared.get(key)
            if found is not None:
                self._cache.put(key, found)
        return None if found is None else found.decode()

    @property
    def is_away(self) -> bool:
        """Whether the model failed lately, so that it is not asked."""
        return self._pause == "spared" and time.monotonic() < self._paused_until

    async def _written(self, facts: str) -> tuple[str | None, str]:
        """(text, outcome); no text when the call fails, is late, says nothing of use, or is above the limit."""
        if time.monotonic() < self._paused_until:
            return None, self._pause
        day, reserved = today(), 0.0
        try:
            if self._settings.daily_limit is not None:
                reserved = self._model.most_cost(facts)
                if not await self._reserve(day, reserved, self._settings.daily_limit):
                    return None, "limit"
            work = asyncio.get_running_loop().run_in_executor(self._pool, self._model.write, facts)
            # The model's own time-out is one of silence: an answer in drops would last.
            found = await asyncio.wait_for(work, self._settings.timeout_seconds + GRACE_SECONDS)
            await self._count(day, found, reserved)
        except TimeoutError:
            self._pause_for("spared", f"no answer in {self._settings.timeout_seconds:g} s")
            return None, "failed"
        except StorageError as error:  # nothing is spent that isn't counted
            self._pause_for("spared", str(error))
            return None, "failed"
        if found.problem is not None:
            self._pause_for("spared", found.problem)
            return None, "failed"
        return found.text, "written"

    async def _reserve(self, day: str, cost: float, limit: float) -> bool:
        """Whether the most that a call may cost is left of the day's money. It is taken before the call, so that calls
        at the same moment, of all processes, don't spend the rest twice."""
        totals = await self._spending.add(day, {"cost": cost})
        if totals["cost"] <= limit:
            return True
        await self._spending.add(day, {"cost": -cost})
        self._pause_for("limit", f"{totals['cost'] - cost:g} of serving.narrator.daily_limit={limit:g} is spent")
        return False

    async def _count(self, day: str, found: Written, reserved: float) -> None:
        self._metrics.count_narration(found.seconds, found.input_tokens, found.output_tokens, found.cost)
        tokens = {"input_tokens": found.input_tokens, "output_tokens": found.output_tokens}
        amounts = {"cost": found.cost - reserved, "seconds": found.seconds, "texts": float(found.text is not None)}
        totals = await self._spending.add(day, amounts | tokens)
        self._metrics.set_narrations_of(day, totals)
        log.debug("language model: %s, %.3f s, cost %g", tokens, found.seconds, found.cost)

    def _pause_for(self, pause: str, why: str) -> None:
        self._paused_until, self._pause = time.monotonic() + PAUSE_SECONDS, pause
        log.warning("language model: %s; the template's texts stand for %g s", why, PAUSE_SECONDS)


def open_narrator(settings: NarratorSettings, metrics: Metrics, folder: Path, redis: Redis | None) -> Narrator:
    """One that counts in a file of this folder and, where there is a Redis, shares totals and texts through it."""
    spending: Spending = LocalSpending(folder / "spending.sqlite")
    if redis is None:
        return Narrator(settings, metrics, spending)
    texts = SharedCache(redis, settings.cache_hours * 3600, "text")
    return Narrator(settings, metrics, SharedSpending(redis, spending), texts)
