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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.json import ParseOptions, ReadOptions, read_json

from recsys_ray.base import schema
from recsys_ray.base.errors import StorageError
from recsys_ray.base.storage import Location
from recsys_ray.data.forgotten import without
from recsys_ray.runs.experiment import CLICKS, EXPOSURES
from recsys_ray.serving.config import ExposureSettings
from recsys_ray.serving.users.cold_start import is_temporary
from recsys_ray.serving.users.events import Event
from recsys_ray.serving.users.histories import fitting
from recsys_ray.serving.users.outbox import Outbox

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
TEXT = pa.string()

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
        self.forgotten: frozenset[str] = frozenset()
        """Users of whom nothing is written out."""

    def shown(self, user: str, variant: str, assigned: bool, run_id: str, items: str) -> None:
        """One answer went to a user. ``items`` is a JSON list of the texts of ids."""
        if is_temporary(user):
            self._count("foreign", 1)
            return
        now = int(time.time() * 1000)
        row = {"user_id": user, "timestamp": now, "variant": variant, "assigned": assigned, "run_id": run_id}
        line = f'{json.dumps(row)[:-1]},"items":{items}}}'
        with self._lock:
            room = len(self._waiting) + self._on_the_way < self.settings.waiting
            if room:
                self._waiting.append(line)
        if not room:
            self._count("lost", 1)

    def clicked(self, user: str, events: Sequence[Event]) -> None:
        """A user opened items. Raises StorageError where that can't be kept."""
        if is_temporary(user):
            self._count("foreign", len(events))
            return
        rows = [{"user_id": user, "item_id": event.item, "timestamp": event.timestamp} for event in events]
        self._outbox.add(CLICKS, [json.dumps(row) for row in rows])

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
        # Ids are texts in the outbox. Everything is done by Arrow, for whose work no answer waits.
        for folder, written, table_of in (
            (EXPOSURES, schema.exposures(TEXT, TEXT), _exposures),
            (CLICKS, schema.clicks(TEXT, TEXT), _clicks),
        ):
            made = partial(self._table, written, partial(table_of, user_type=user_type, item_type=item_type))
            self._outbox.export(folder, output / folder, made)

    def _table(self, schema_of_rows: pa.Schema, table_of: Callable[[pa.Table], pa.Table], rows: list[str]) -> pa.Table:
        lines = "\n".join(rows).encode()
        reading = ReadOptions(use_threads=False, block_size=len(lines) + 1)
        parsing = ParseOptions(explicit_schema=schema_of_rows, unexpected_field_behavior="ignore")
        try:
            table = table_of(without(read_json(pa.BufferReader(lines), reading, parsing), self.forgotten))
        except pa.ArrowException as error:  # rows nobody can read must not keep those behind them
            log.error("exposures: %d rows of the outbox can't be read (%s)", len(rows), error)
            self._count("lost", len(rows))
            return schema_of_rows.empty_table()
        self._count("written", table.num_rows)
        self._count("foreign", len(rows) - table.num_rows)
        return table


def _exposures(written: pa.Table, user_type: pa.DataType, item_type: pa.DataType) -> pa.Table:
    items = written["items"].combine_chunks()
    rows_E, ids_E = pc.list_parent_indices(items).to_numpy(), pc.list_flatten(items)
    # A variant of another output may have ids of another type: nobody can like these here.
    fits_E = fitting(ids_E, item_type)
    counts_R = np.bincount(rows_E[fits_E.to_numpy(zero_copy_only=False)], minlength=len(written))
    offsets_R1 = np.concatenate([[0], np.cumsum(counts_R)]).astype(np.int32)
    listed = pa.ListArray.from_arrays(offsets_R1, ids_E.filter(fits_E).cast(item_type))
    place = written.schema.get_field_index("items")
    return _cast(written.set_column(place, "items", listed), schema.exposures(user_type, item_type))


def _clicks(written: pa.Table, user_type: pa.DataType, item_type: pa.DataType) -> pa.Table:
    known = written.filter(fitting(written["item_id"].combine_chunks(), item_type))
    return _cast(known, schema.clicks(user_type, item_type))


def _cast(written: pa.Table, wanted: pa.Schema) -> pa.Table:
    """The rows whose user has an id of the data's type."""
    users = written["user_id"].combine_chunks()
    return written.filter(fitting(users, wanted.field("user_id").type)).cast(wanted)
