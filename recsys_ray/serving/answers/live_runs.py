"""Which run answers for which variant: loaded beside the one in use, warmed, then swapped by one assignment.

A request takes its run once and keeps it to the end, so no response mixes two runs and no request waits for a swap. The
choice of an administrator is a small file beside the runs, which every process and machine reads each
``serving.poll_seconds``; without one the variant follows LATEST. The run that answered before is read from files too,
so that every replica rolls back to the same run, also one that has just started.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from recsys_ray.base.errors import PublishError, RecsysError, StorageError
from recsys_ray.base.storage import Location
from recsys_ray.runs import publish
from recsys_ray.runs.history import SERVES
from recsys_ray.runs.publish import FOLDER, POINTER, RECOMMENDATIONS, valid_run_id
from recsys_ray.runs.published import is_published, read_run
from recsys_ray.serving.answers.live_run import LiveRun, open_run
from recsys_ray.serving.config import ServingSettings, VariantSettings

log = logging.getLogger(__name__)
RETRY_SECONDS, SAY_SECONDS = 30.0, 600.0


@dataclass
class Slot:
    """One variant: the run that answers now, and the one before it, kept for a roll-back."""

    settings: VariantSettings
    output: Location
    current: LiveRun | None = None
    previous: LiveRun | None = None
    failed: str | None = None
    """The run that could not be opened last; it is tried again now and then, not at every poll."""
    retry_at: float = 0.0
    problem: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def pointer(self) -> Location:
        return self.output / FOLDER / f"{POINTER}{self.settings.name}.json"

    def published_before(self, run_id: str) -> str | None:
        """The run published before this one; None when this one is gone."""
        run = self.output / RECOMMENDATIONS / run_id
        return read_run(run).previous if is_published(run) else None


class LiveRuns:
    """The runs of all variants."""

    def __init__(self, settings: ServingSettings, output: Location, executor: Executor, replica: str = "one") -> None:
        self._settings, self._executor = settings, executor
        self._replica, self._said_at = replica, 0.0
        by_item = settings.image is not None and settings.image.directory is not None
        size = settings.user_cache_mib << 20
        self._open_run = partial(open_run, user_cache_bytes=size, posters_by_item=by_item)
        self._said: dict[Location, list[str]] = {}
        self.on_swap: Callable[[str, LiveRun], None] = lambda variant, run: None
        self.slots = {
            variant.name: Slot(variant, Location.of(variant.output) if variant.output else output)
            for variant in settings.variants
        }

    @property
    def default(self) -> str:
        return next(iter(self.slots))

    def current(self, variant: str) -> LiveRun | None:
        """The run that answers for a variant now; None before the first is opened."""
        return self.slots[variant].current

    @property
    def ready(self) -> bool:
        return all(slot.current is not None for slot in self.slots.values())

    @property
    def degraded(self) -> list[str]:
        """Variants that answer without their model."""
        return [name for name, slot in self.slots.items() if slot.current is not None and slot.current.degraded]

    @property
    def poster_origins(self) -> set[str]:
        """Where the posters of the runs that answer are on the web."""
        runs = [slot.current for slot in self.slots.values() if slot.current is not None]
        return set().union(*(run.catalogue.poster_origins for run in runs))

    async def refresh(self) -> None:
        """Read the pointers once and load what changed. A run that can't be opened leaves the old one in place."""
        for slot in self.slots.values():
            async with slot.lock:
                try:
                    wanted = await self._in_thread(self._wanted, slot)
                    if wanted != slot.failed or time.monotonic() >= slot.retry_at:
                        first = slot.current is None
                        await self._switch(slot, wanted)
                        if first and not self._settings.follow_latest and not slot.pointer.exists():
                            await self._in_thread(self._pin, slot, None)  # replicas that start later stay on it too
                except RecsysError as error:
                    slot.problem = str(error)
                    log.error("variant %s: %s", slot.settings.name, error)
                    if slot.current is None and slot.failed is not None:
                        await self._answer_without_model(slot, slot.failed)
        await self._in_thread(self._say_what_answers)

    def _say_what_answers(self) -> None:
        """Beside the runs, for the batch job: it deletes no run that a replica holds."""
        held: dict[Location, list[str]] = {}
        for slot in self.slots.values():
            runs = {run.run_id for run in (slot.current, slot.previous) if run is not None}
            held[slot.output] = sorted({*held.get(slot.output, []), *runs})
        now = time.monotonic()
        if held == self._said and now - self._said_at < SAY_SECONDS:
            return
        self._said, self._said_at = held, now
        for output, names in held.items():
            with suppress(StorageError):  # where nothing can be written runs are kept by their age
                at = datetime.now(UTC).isoformat()
                self._notice(output).write_json({"runs": names, "at": at})

    def _notice(self, output: Location) -> Location:
        return output / FOLDER / f"{SERVES}{self._replica}.json"

    def close(self) -> None:
        """Hold no run any more."""
        for output in {slot.output for slot in self.slots.values()}:
            with suppress(StorageError):
                self._notice(output).remove()

    async def _answer_without_model(self, slot: Slot, run_id: str) -> None:
        """Nothing else answers for the variant: what the run falls back on does, until its model can be opened."""
        try:
            run = await self._in_thread(partial(self._open_run, slot.output, run_id, degraded=True))
        except RecsysError as error:
            log.error("variant %s: its fallbacks can't answer either: %s", slot.settings.name, error)
            return
        self.on_swap(slot.settings.name, run)
        slot.current = run
        log.warning("variant %s: run %s answers without its model, by its fallbacks", slot.settings.name, run_id)

    async def activate(self, variant: str, run_id: str | None) -> LiveRun:
        """Serve another published run (None: follow LATEST again), here at once and elsewhere at their next poll.

        Raises:
            PublishError: no such published run. Other RecsysErrors: its model can't be opened. Nothing changes then.
        """
        slot = self.slots[variant]
        async with slot.lock:
            wanted = await self._in_thread(self._latest, slot) if run_id is None else run_id
            before = await self._in_thread(self._before, slot)
            if slot.current is not None and slot.current.run_id != wanted:
                before = slot.current.run_id
            run = await self._switch(slot, wanted)
            await self._in_thread(self._pin, slot, before, run_id is None)
        await self._in_thread(self._say_what_answers)
        return run

    async def roll_back(self, variant: str) -> LiveRun:
        """Back to the run that answered before the one in use."""
        before = await self._in_thread(self._before, self.slots[variant])
        if before is None:
            raise PublishError("no run answered before this one; name one with run_id")
        return await self.activate(variant, before)

    def describe(self) -> list[dict[str, Any]]:
        """Every variant with its run, and the runs it could switch to."""
        return [self._describe(slot) for slot in self.slots.values()]

    def _describe(self, slot: Slot) -> dict[str, Any]:
        current = slot.current
        root = slot.output / RECOMMENDATIONS
        return {
            "variant": slot.settings.name,
            "weight": slot.settings.weight,
            "run_id": current.run_id if current else None,
            "model": current.model if current else None,
            "published_at": current.published_at if current else None,
            "previous_run_id": self._before(slot),
            "follows_latest": self._pinned(slot) is None and self._settings.follow_latest,
            "problem": slot.problem,
            "runs": [name for name in root.names() if valid_run_id(name) and is_published(root / name)],
        }

    async def _switch(self, slot: Slot, run_id: str) -> LiveRun:
        if slot.current is not None and run_id == slot.current.run_id and not slot.current.degraded:
            return slot.current
        if slot.previous is not None and run_id == slot.previous.run_id:
            run = slot.previous
        else:
            slot.failed, slot.retry_at = run_id, time.monotonic() + RETRY_SECONDS
            run = await self._in_thread(self._open_run, slot.output, run_id)
        self.on_swap(slot.settings.name, run)
        slot.previous = slot.previous if slot.current is None or slot.current.degraded else slot.current
        slot.current = run
        slot.failed = slot.problem = None
        log.info("variant %s: run %s answers now", slot.settings.name, run_id)
        return run

    def _wanted(self, slot: Slot) -> str:
        pinned = self._pinned(slot)
        if pinned is not None:
            return pinned
        if slot.current is not None and not self._settings.follow_latest:
            return slot.current.run_id
        return self._latest(slot)

    def _pinned(self, slot: Slot) -> str | None:
        noted = self._noted(slot)
        return slot.settings.run if noted is None else noted.get("run_id")

    def _noted(self, slot: Slot) -> dict[str, Any] | None:
        """The choice of an administrator; None without one, or where it can't be read."""
        if not slot.pointer.exists():
            return None
        try:
            noted = slot.pointer.read_json()
            if all(isinstance(noted.get(name), str | None) for name in ("run_id", "answers", "previous")):
                return noted
            error = StorageError(f"{slot.pointer}: names no run")
        except StorageError as found:
            error = found
        log.warning("variant %s: the choice of its run counts for nothing: %s", slot.settings.name, error)
        return None

    def _pin(self, slot: Slot, before: str | None, follow: bool = False) -> None:
        """Write for every process what answers, what answered before, and whether LATEST is followed from here."""
        assert slot.current is not None
        answers = slot.current.run_id
        run_id = None if follow and self._settings.follow_latest else answers
        slot.pointer.write_json({"run_id": run_id, "answers": answers, "previous": before})

    def _before(self, slot: Slot) -> str | None:
        """The run that answered before: as the last switch noted it, or the one published before this one."""
        if slot.current is None:
            return None
        run_id = slot.current.run_id
        noted = self._noted(slot) or {}
        if noted.get("answers") != run_id:
            return slot.published_before(run_id)
        previous: str | None = noted.get("previous")
        return previous

    def _latest(self, slot: Slot) -> str:
        run = publish.latest_run(slot.output / RECOMMENDATIONS)
        if run is None:
            raise PublishError(f"{slot.output}: nothing is published yet; run recsys-ray run first")
        return run.name

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
