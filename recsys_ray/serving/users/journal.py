"""What users sent since the model was fitted: kept in one SQLite file, and written out as interactions.

An event is on the disk before it is acknowledged. The processes of one machine share the file, so an event counts in
the next response of each of them. Events of users of the data, not of temporary ones, leave as Parquet
(``Journal.export``), exactly once: rows are first given the name of their file, and a file that a killed process left
unwritten is written again under that name. Of one user it keeps the newest events of each item and of each kind, and so
many of them; what is beyond goes once it is in a file.

Recommendations go on without the file: while it can't be read, nothing is known of what users sent (``problem`` says
why), and what they send is refused. A file that is damaged is set aside under another name and a new one begun, into
which goes what can still be read of events on their way to a file. A file that is gone is begun anew in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.errors import ConfigError, StorageError
from recsys_ray.base.storage import Location
from recsys_ray.recommend.hidden import HIDDEN
from recsys_ray.runs.publish import FOLDER
from recsys_ray.serving.config import ServingSettings
from recsys_ray.serving.users.database import (
    head_of,
    held,
    is_damaged,
    is_headed,
    number_of,
    open_database,
    set_aside,
    with_column,
    writing,
    written_whole,
)
from recsys_ray.serving.users.events import MOST_EVENTS, RATED, SEEN, Event, newest_of_each, typed_table

log = logging.getLogger(__name__)

STAYS, WAITS, NAMED, WRITTEN = 0, 1, 2, 3  # where an event is on its way to a file; STAYS: it never leaves
ROWS_PER_FILE = 200_000
READ_SECONDS = 0.2  # that an answer waits for a file which another process has locked
MOST_TOUCHED = 100_000  # users whose old events are looked for at the next export
MOST_WITHOUT_EVENTS = 100_000  # users remembered to have sent nothing
_COLUMNS = "item, rating, timestamp, kind"
_ROW = f"user, {_COLUMNS}, until, step, file"
_TABLE = """
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, item TEXT NOT NULL, rating REAL NOT NULL,
  timestamp INTEGER NOT NULL, until REAL NOT NULL, step INTEGER NOT NULL, file TEXT,
  kind TEXT NOT NULL DEFAULT 'rated');
INSERT INTO sqlite_sequence (name, seq) SELECT 'events', {first}
  WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'events');
CREATE INDEX IF NOT EXISTS by_user ON events (user, id);
CREATE INDEX IF NOT EXISTS by_time ON events (user, timestamp, id);
CREATE INDEX IF NOT EXISTS by_step ON events (step) WHERE step IN (1, 2);
"""

# Of one user: all but the newest of each item and kind, and of these all but so many.
_THIN = """
DELETE FROM events WHERE user = ?1 AND step IN (?2, ?3) AND id NOT IN (
  SELECT id FROM (
    SELECT max(id) AS id, row_number() OVER (PARTITION BY kind = ?5 ORDER BY max(timestamp) DESC, max(id) DESC) AS place
    FROM events WHERE user = ?4 GROUP BY item, kind)
  WHERE place <= ?6)
"""


@dataclass(slots=True)
class _Write:
    user: str
    events: Sequence[Event]
    until: float
    step: int
    done: asyncio.Future[None]


class Journal:
    """``UserStates`` in a SQLite file. One writer thread; events that come together are flushed together."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problem: str | None = None
        """Why what users sent can't be had now; None while it can."""
        with held(self.file, alone=True):
            self._open()
        self._lock, self._list_lock = threading.Lock(), threading.Lock()
        self._writer = ThreadPoolExecutor(1, "journal")
        self._waiting: list[_Write] = []
        self._without_events: set[str] = set()
        self._touched: set[str] = set()
        self._renewal: Future[bool] | None = None

    def _open(self) -> None:
        """Also anew. Nobody else does meanwhile."""
        # Events of a new file have higher numbers than those of any before: no version of a user comes twice.
        tables = _TABLE.format(first=time.time_ns() // 1000)
        try:
            self._db = open_database(self.file, tables, "keep what users send")
        except StorageError as error:
            if not isinstance(error.__cause__, sqlite3.DatabaseError) or not is_damaged(self.file):
                raise
            aside = set_aside(self.file)
            log.error("%s; it is kept as %s, and a new one begun", error, aside)
            self._db = open_database(self.file, tables, "keep what users send")
        try:
            with_column(self._db, "events", "kind", f"TEXT NOT NULL DEFAULT '{RATED}'")
            # A connection of its own: a reader never waits for the disk flush of a writer, nor long for anybody.
            self._reader = sqlite3.connect(
                self.file, timeout=READ_SECONDS, check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{self.file}: can't keep what users send ({error}); set serving.state") from error
        self._number, self._head, self._changes = number_of(self.file), head_of(self.file), -1

    def _renewed(self) -> bool:
        """Begin a new file where this one is damaged or gone, or join another's; whether there was reason to."""
        try:
            with self._lock, held(self.file, alone=True):
                number = number_of(self.file)
                mine = number == self._number
                if mine and not is_damaged(self.file):
                    return False
                on_their_way: list[Any] = []
                if mine or number is None:
                    with suppress(sqlite3.Error):  # as far as it can be read
                        query = f"SELECT {_ROW} FROM events WHERE step IN (?, ?) ORDER BY id"
                        on_their_way.extend(self._db.execute(query, (WAITS, NAMED)))
                if mine:
                    log.error("%s is damaged; it is kept as %s", self.file, set_aside(self.file))
                self._open()
                with written_whole(self._db, self.file):
                    query = f"INSERT INTO events ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                    self._db.executemany(query, on_their_way)
        except StorageError as error:
            log.error("%s", error)
            return False
        log.error("%s: begun anew, with %d events that were on their way to a file", self.file, len(on_their_way))
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The file that all processes write now, and none puts another in its place meanwhile.

        Raises:
            StorageError: it can't be written.
        """
        with self._lock, held(self.file):
            if number_of(self.file) != self._number or not is_headed(self._head):
                raise StorageError(f"{self.file}: is damaged, or another file is in its place")
            with writing(self.file):
                yield

    async def version(self, user: str) -> int:
        try:
            return self._version(user)
        except sqlite3.Error as error:
            self._trouble(error)
            return 0

    async def events(self, user: str) -> list[Event]:
        try:
            return self._events(user)
        except sqlite3.Error as error:
            self._trouble(error)
            return []

    def _trouble(self, error: sqlite3.Error | StorageError) -> None:
        if self.problem is None:
            log.error("%s: %s; what users sent does not count now", self.file, error)
        self.problem = str(error)
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        if damaged and (self._renewal is None or self._renewal.done()):
            self._renewal = self._writer.submit(self._renewed)

    def _version(self, user: str) -> int:
        # Most users have sent nothing: what was found is kept until any connection, of any process, writes.
        [(changes,)] = self._reader.execute("PRAGMA data_version")
        if changes != self._changes or len(self._without_events) > MOST_WITHOUT_EVENTS:
            self._changes = changes
            self._without_events.clear()
        if user in self._without_events:
            return 0
        [(last,)] = self._reader.execute("SELECT max(id) FROM events WHERE user = ? AND until > ?", (user, time.time()))
        if last is None:
            self._without_events.add(user)
        self.problem = None
        return int(last or 0)

    def _events(self, user: str) -> list[Event]:
        now = time.time()
        found: list[Event] = []
        for rated in ("=", "<>"):  # ratings without end hide no wish
            rows = self._reader.execute(
                f"SELECT {_COLUMNS} FROM events WHERE user = ? AND until > ? AND kind {rated} ? "
                "ORDER BY timestamp DESC, id DESC LIMIT ?",
                (user, now, RATED, MOST_EVENTS),
            ).fetchall()
            found += [Event(*row) for row in reversed(rows)]
        return newest_of_each(found)

    async def add(self, user: str, events: Sequence[Event], hours: float, *, durable: bool) -> None:
        loop = asyncio.get_running_loop()
        write = _Write(user, events, time.time() + hours * 3600, WAITS if durable else STAYS, loop.create_future())
        with self._list_lock:
            self._waiting.append(write)
            first = len(self._waiting) == 1
        if first:
            loop.run_in_executor(self._writer, self._flush, loop)
        await write.done

    async def forget(self, users: Collection[str]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, self._delete, list(users))

    def _delete(self, users: list[str]) -> None:
        with self._writing():
            self._db.executemany("DELETE FROM events WHERE user = ?", [(user,) for user in users])

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._list_lock:
            writes, self._waiting = self._waiting, []
        rows = [
            (write.user, event.item, event.rating, event.timestamp, event.kind, write.until, write.step)
            for write in writes
            for event in write.events
        ]
        error: Exception | None = None
        for again in (True, False):
            try:
                with self._writing(), written_whole(self._db, self.file):
                    self._db.executemany(
                        f"INSERT INTO events (user, {_COLUMNS}, until, step) VALUES (?, ?, ?, ?, ?, ?, ?)", rows
                    )
                break
            except StorageError as failure:
                if again and self._renewed():
                    continue
                error = failure
                loop.call_soon_threadsafe(self._trouble, failure)
                break
        if error is None and len(self._touched) < MOST_TOUCHED:
            self._touched.update(write.user for write in writes)
        for write in writes:
            loop.call_soon_threadsafe(_finish, write.done, error)

    def export(self, folder: Location, user_type: pa.DataType, item_type: pa.DataType) -> list[Location]:
        """Write what waits: interactions as Parquet of ``schema.interactions`` into ``folder``, what users hide or
        only have seen, as ``recommend.hidden`` reads it, into ``hidden`` beside it. Returns the files written. Forgets
        old rows.

        Events whose ids are not of these types stay behind: another data set's.

        Raises:
            StorageError: a file can't be written, or the journal; what waits stays. A damaged journal is begun anew.
        """
        try:
            return self._export_all(folder, user_type, item_type)
        except StorageError:
            self._renewed()
            raise

    def _export_all(self, folder: Location, user_type: pa.DataType, item_type: pa.DataType) -> list[Location]:
        written: list[Location] = []
        while True:
            written += self._export(self._name_files(), folder, user_type, item_type)
            with self._writing():
                [(waits,)] = self._db.execute("SELECT EXISTS (SELECT 1 FROM events WHERE step = ?)", (WAITS,))
            if not waits:
                break
        with self._writing():
            self._db.execute("DELETE FROM events WHERE until <= ? AND step IN (?, ?)", (time.time(), STAYS, WRITTEN))
            touched, self._touched = self._touched, set()
            self._db.executemany(_THIN, [(user, STAYS, WRITTEN, user, RATED, MOST_EVENTS) for user in touched])
        return written

    def _export(
        self, names: list[str], folder: Location, user_type: pa.DataType, item_type: pa.DataType
    ) -> list[Location]:
        written = []
        for name in names:
            with self._writing():
                rows = self._db.execute(
                    # Another process may have written the file since, and let go of rows of it.
                    f"SELECT user, {_COLUMNS} FROM events WHERE file = ? AND step = ? ORDER BY id",
                    (name, NAMED),
                ).fetchall()
            table = typed_table(rows, user_type, item_type)
            is_rated = pc.equal(table.column("kind"), RATED)
            kinds = pc.if_else(pc.equal(table.column("kind"), SEEN), HIDDEN, table.column("kind"))
            named = table.set_column(table.schema.get_field_index("kind"), "kind", kinds)
            events = table.filter(is_rated).drop_columns("kind"), named.filter(pc.invert(is_rated))
            for place, part in zip((folder, folder.parent / "hidden"), events, strict=True):
                if part.num_rows:
                    (place / name).write_parquet(part)
                    written.append(place / name)
            with self._writing():
                self._db.execute("UPDATE events SET step = ? WHERE file = ?", (WRITTEN, name))
        return written

    def _name_files(self) -> list[str]:
        """Names of files to write: those begun by a process that died, and a new one for what waits."""
        name = f"events-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}.parquet"
        with self._writing():
            self._db.execute(
                "UPDATE events SET step = ?, file = ? WHERE id IN (SELECT id FROM events WHERE step = ? LIMIT ?)",
                (NAMED, name, WAITS, ROWS_PER_FILE),
            )
            rows = self._db.execute("SELECT DISTINCT file FROM events WHERE step = ? ORDER BY file", (NAMED,))
            return [str(row[0]) for row in rows.fetchall()]

    def close(self) -> None:
        self._writer.shutdown()
        with self._lock:
            self._db.close()
            self._reader.close()


def _finish(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():  # the caller has gone away
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def state_file(settings: ServingSettings, output: Location) -> Path:
    """Where a machine keeps what users sent; ConfigError where no local directory is named."""
    if settings.state is not None:
        return Path(settings.state).expanduser().absolute() / "state.sqlite"
    if not output.is_local:
        raise ConfigError(f"serving.state: set a local directory for what users send; output {output} is not local")
    return Path(output.url) / FOLDER / "state.sqlite"
