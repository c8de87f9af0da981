"""SQLite files of the service: how they are opened, and how something is written into them whole or not at all."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from recsys_ray.base.errors import StorageError


def open_database(
    file: Path, tables: str, what: str, *, synchronous: Literal["FULL", "NORMAL"] = "FULL", timeout: float = 30
) -> sqlite3.Connection:
    """A connection for several threads and processes, with these tables; readers never wait for a writer.

    Args:
        tables: SQL that makes what is not there. what: for the message, what can't be done without the file.
        synchronous: FULL writes what is committed to the disk at once. timeout: seconds that a writer waits for others.

    Raises:
        StorageError: the file can't be had.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # what users sent is for nobody else; SQLite's other files get the same mode
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        db = sqlite3.connect(file, timeout=timeout, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.executescript(tables)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{file}: can't {what} ({error}); set serving.state") from error
    return db


def is_damaged(file: Path) -> bool:
    """Whether it is there and SQLite can't read it as its own."""
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.DatabaseError as error:
        return not isinstance(error, sqlite3.OperationalError)  # those are of places, locks and permissions


@contextmanager
def held(file: Path, *, alone: bool = False) -> Iterator[None]:
    """The database stays in its place meanwhile; ``alone``: nobody else holds it, so another may be put there.

    Raises:
        StorageError: that can't be had.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(f"{file}: can't lock it ({error}); set serving.state") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def head_of(file: Path) -> int:
    """A descriptor for ``is_headed``; to be kept, for closing it would let go of SQLite's locks on the file."""
    return os.open(file, os.O_RDONLY)


def is_headed(head: int) -> bool:
    """Whether the file still begins as SQLite's do: a connection with all it needs in memory does not look."""
    return os.pread(head, 16, 0) == b"SQLite format 3\0"


def number_of(file: Path) -> int | None:
    """Of the file that has this name now; another when it was replaced, None when it is gone."""
    try:
        return file.stat().st_ino
    except OSError:
        return None


def set_aside(file: Path) -> Path:
    """Rename a database with what belongs to it; its new name."""
    aside = file.with_name(f"{file.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    for ending in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{file}{ending}").rename(f"{aside}{ending}")
    return aside


@contextmanager
def written_whole(db: sqlite3.Connection, file: Path) -> Iterator[None]:
    """All of what is done inside, or nothing of it.

    Raises:
        StorageError: it can't be written.
    """
    with writing(file):
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except sqlite3.Error:
            db.execute("ROLLBACK")
            raise


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """What SQLite says against a write is a StorageError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"{file}: can't write ({error}); free space or set serving.state") from error


def with_column(db: sqlite3.Connection, table: str, column: str, declared: str) -> None:
    """A table of a version before gets this column; another process may do that at the same time."""
    db.execute("BEGIN IMMEDIATE")
    if column not in [row[1] for row in db.execute(f"PRAGMA table_info({table})")]:
        db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {declared}")
    db.execute("COMMIT")
