"""The journal of an experiment: which variant showed which user what, and what users clicked.

An answer only puts a row into a list in memory. A second later the list is in the outbox, and every
``serving.exposures.roll_seconds`` the outbox becomes ``<output>/exposures/*.parquet`` (``schema.exposures``) and
``<output>/clicks/*.parquet`` (``schema.clicks``). Users who are none of the data's, and so send no feedback that lasts,
are not in the files: ``foreign`` in the count of rows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.errors import StorageError
from recsys_ray.base.storage import Location
from recsys_ray.runs.experiment import CLICKS, EXPOSURES
from recsys_ray.serving.config import ExposureSettings
from recsys_ray.serving.users.cold_start import TEMPORARY
from recsys_ray.serving.users.histories import plain_id
from recsys_ray.serving.users.journal import Event
from recsys_ray.serving.users.outbox import Outbox

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0

Count = Callable[[str, int], None]


class ExposureJournal:
    """See the module. ``shown`` never waits; ``clicked`` may, and belongs into a thread; the rest has a thread of its
    own, for which no answer ever waits."""

    def __init__(self, file: Path, settings: ExposureSettings, count: Count) -> None:
        """
        Args:
            file: of the outbox. count: told what became of rows: ``written``, ``foreign``, ``lost``, and how many.
        """
        self.settings = settings
        self._outbox, self._count = Outbox(file), count
        self._thread = ThreadPoolExecutor(1, "exposures")
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._on_the_way = 0

    def shown(self, user: str, variant: str, assigned: bool, run_id: str, items: str) -> None:
        """One answer went to a user. ``items`` is a JSON list of ids."""
        if user.startswith(TEMPORARY):
            self._count("foreign", 1)
            return
        row = f"[{json.dumps(user)},{_now()},{json.dumps([variant, assigned, run_id])},{items}]"
        with self._lock:
            room = len(self._waiting) + self._on_the_way < self.settings.waiting
            if room:
                self._waiting.append(row)
        if not room:
            self._count("lost", 1)

    def clicked(self, user: str, events: Sequence[Event]) -> None:
        """A user opened items. Raises StorageError where that can't be kept."""
        if user.startswith(TEMPORARY):
            self._count("foreign", len(events))
            return
        self._outbox.add(CLICKS, [json.dumps([user, event.item, event.timestamp]) for event in events])

    async def flush(self) -> None:
        """What waits in memory goes to the disk; where it can't, it waits on, and StorageError says why."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._flush)

    async def export(self, output: Location, user_type: pa.DataType, item_type: pa.DataType) -> None:
        """Everything so far as Parquet below the output. Raises StorageError; the rows stay then."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._export, output, user_type, item_type)

    async def close(self, export: Callable[[], Awaitable[None]]) -> None:
        """Write out everything and end. What can't be written is logged: no service is kept from stopping by it."""
        try:
            await self.flush()
            await export()
        except StorageError as error:
            log.error("exposures: %s", error)
        self._thread.shutdown()
        self._outbox.close()

    def _flush(self) -> None:
        with self._lock:
            rows, self._waiting = self._waiting, []
            self._on_the_way = len(rows)
        try:
            if rows:
                self._outbox.add(EXPOSURES, rows)
        except StorageError:
            with self._lock:
                self._waiting = rows + self._waiting
            raise
        finally:
            self._on_the_way = 0

    def _export(self, output: Location, user_type: pa.DataType, item_type: pa.DataType) -> None:
        self._flush()
        for folder, table_of in ((EXPOSURES, _exposures), (CLICKS, _clicks)):
            self._outbox.export(folder, output / folder, partial(self._table, table_of, user_type, item_type))

    def _table(
        self, table_of: Callable[..., pa.Table], user_type: pa.DataType, item_type: pa.DataType, rows: list[str]
    ) -> pa.Table:
        table = table_of([json.loads(row) for row in rows], user_type, item_type)
        self._count("written", table.num_rows)
        self._count("foreign", len(rows) - table.num_rows)
        return table


def _exposures(rows: list[Any], user_type: pa.DataType, item_type: pa.DataType) -> pa.Table:
    wanted = schema.exposures(user_type, item_type)
    item_kind = str if pa.types.is_string(item_type) else int
    kept = []
    for user, shown_at, (variant, assigned, run_id), items in rows:
        typed = plain_id(user, user_type)
        if typed is not None:
            # A variant of another output may have ids of another type: nobody can like these here.
            ids = [item for item in items if isinstance(item, item_kind)]
            kept.append((typed, shown_at, variant, assigned, run_id, ids))
    return _table(kept, wanted)


def _clicks(rows: list[Any], user_type: pa.DataType, item_type: pa.DataType) -> pa.Table:
    typed = [(plain_id(user, user_type), plain_id(item, item_type), clicked_at) for user, item, clicked_at in rows]
    return _table([row for row in typed if None not in row], schema.clicks(user_type, item_type))


def _table(rows: list[tuple[Any, ...]], wanted: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(wanted)
    return pa.table([pa.array(list(column), field.type) for column, field in zip(columns, wanted, strict=True)], wanted)


def _now() -> int:
    return int(time.time() * 1000)
