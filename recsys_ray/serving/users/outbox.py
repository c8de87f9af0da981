"""Rows on their way to Parquet files: first in a SQLite file, that a killed process loses none, then in a whole file.

As in ``Journal.export`` rows are first given the name of their file, and a file that a killed process left unwritten is
written again under that name: each row is in exactly one. The processes of one machine share the outbox. After a power
cut the rows of the last moments may be missing.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from recsys_ray.base.storage import Location
from recsys_ray.serving.users.database import open_database, written_whole

ROWS_PER_FILE = 50_000
_TABLE = """
CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, folder TEXT NOT NULL, row TEXT NOT NULL, file TEXT);
CREATE INDEX IF NOT EXISTS by_file ON rows (folder, file, id);
"""


class Outbox:
    """Rows by the folder that they go to. Every method may wait for the disk; safe to use from several threads."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._db = open_database(file, _TABLE, "keep exposures", synchronous="NORMAL")
        self._lock = threading.Lock()

    def add(self, folder: str, rows: Sequence[str]) -> None:
        """Keep rows until they are exported. All of them or, with a StorageError, none."""
        with self._lock, written_whole(self._db, self.file):
            self._db.executemany("INSERT INTO rows (folder, row) VALUES (?, ?)", [(folder, row) for row in rows])

    def export(self, folder: str, place: Location, table_of: Callable[[list[str]], pa.Table]) -> int:
        """Write the rows of a folder as Parquet files into ``place``; how many files. A table without rows is no file.

        Raises:
            StorageError: a file can't be written; the rows stay.
        """
        written = 0
        while name := self._named(folder):
            with self._lock:
                found = self._db.execute(
                    "SELECT row FROM rows WHERE folder = ? AND file = ? ORDER BY id", (folder, name)
                ).fetchall()
            table = table_of([row for (row,) in found])
            if table.num_rows:
                (place / name).write_parquet(table)
                written += 1
            with self._lock:
                self._db.execute("DELETE FROM rows WHERE folder = ? AND file = ?", (folder, name))
        return written

    def _named(self, folder: str) -> str | None:
        """The name of a file to write: one begun by a process that died, else a new one for what waits."""
        name = f"{folder}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}.parquet"
        with self._lock:
            [(begun,)] = self._db.execute("SELECT min(file) FROM rows WHERE folder = ?", (folder,))
            if begun is not None:
                return str(begun)
            changed = self._db.execute(
                "UPDATE rows SET file = ? WHERE id IN "
                "(SELECT id FROM rows WHERE folder = ? AND file IS NULL ORDER BY id LIMIT ?)",
                (name, folder, ROWS_PER_FILE),
            )
            return name if changed.rowcount else None

    def close(self) -> None:
        with self._lock:
            self._db.close()
