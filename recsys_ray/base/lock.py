"""One at a time: a lock file says who works at something, and goes with whoever holds it.

On a local filesystem the operating system keeps the lock (``flock``), so that a killed holder holds nothing. On an
object store the file itself is the lock: it is created if none is there, says every few seconds that its holder lives,
and counts for nothing when it has not said so for two minutes.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys_ray.base.errors import StorageError
from recsys_ray.base.storage import Location

SUFFIX = ".lock"
SAY_SECONDS, DEAD_SECONDS, ASK_SECONDS = 20.0, 120.0, 0.2


class Lock:
    """Who works at something. Not to be taken twice by one holder."""

    def __init__(self, file: Location, what: str = "") -> None:
        self.file = file
        self._notes: dict[str, Any] = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "what": what,
        }
        self._open: int | None = None
        self._over: threading.Event | None = None

    def take(self) -> str | None:
        """None when it is held from here on, else who holds it, in words.

        Raises:
            StorageError: the file can't be written.
        """
        return self._take_local() if self.file.is_local else self._take_remote()

    def release(self) -> None:
        """Let others have it."""
        if self._open is not None:
            path = Path(self.file.url)
            path.unlink(missing_ok=True)
            os.close(self._open)
            self._open = None
            with suppress(OSError):  # others hold locks there
                path.parent.rmdir() if path.parent.name == RUNNING else None
        if self._over is not None:
            self._over.set()
            self._over = None
            with suppress(StorageError):
                self.file.remove()

    def note(self, **facts: Any) -> None:
        """What others may read of the holder while it is held."""
        self._notes |= facts
        if self._open is not None:
            data = json.dumps(self._notes).encode()
            os.pwrite(self._open, data.ljust(os.fstat(self._open).st_size), 0)
        if self._over is not None:
            self._say()

    def _take_local(self) -> str | None:
        path = Path(self.file.url)
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                found = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # another holder has just removed the directory
                continue
            except OSError as error:
                raise StorageError(f"{self.file}: can't write ({error.strerror})") from error
            try:
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                same = os.path.samestat(os.fstat(found), path.stat())
            except FileNotFoundError:
                same = False
            except OSError:
                os.close(found)
                return _in_words(read_notes(self.file))
            if same:
                os.ftruncate(found, 0)
                self._open = found
                self.note()
                return None
            os.close(found)  # released between opening and locking: the file has gone

    def _take_remote(self) -> str | None:
        for _ in range(2):
            if self._create():
                self._over = threading.Event()
                threading.Thread(target=self._keep_saying, args=(self._over,), daemon=True).start()
                return None
            notes = read_notes(self.file)
            if _lives(notes):
                return _in_words(notes)
            self.file.remove()
        return _in_words(read_notes(self.file))

    def _create(self) -> bool:
        fs, path = self.file.filesystem()
        try:
            fs.pipe_file(path, self._said(), mode="create")
        except FileExistsError:
            return False
        except (TypeError, NotImplementedError):  # a filesystem that can't create exclusively
            if self.file.exists():
                return False
            self.file.write_bytes(self._said())
        except OSError as error:
            if self.file.exists():
                return False
            raise StorageError(f"{self.file}: can't write ({str(error).partition(chr(10))[0]})") from error
        return True

    def _keep_saying(self, over: threading.Event) -> None:
        while not over.wait(SAY_SECONDS):
            with suppress(StorageError):
                self._say()

    def _say(self) -> None:
        self.file.write_bytes(self._said())

    def _said(self) -> bytes:
        return json.dumps(self._notes | {"at": time.time()}).encode()


RUNNING = "running"
"""The directory of an output that holds the locks of commands."""


def read_notes(file: Location) -> dict[str, Any] | None:
    """What the holder of a lock says of itself; None where that can't be read."""
    with suppress(StorageError):
        return file.read_json()
    return None


def is_held(file: Location) -> bool:
    """Whether somebody who lives holds it."""
    if not file.is_local:
        return _lives(read_notes(file))
    try:
        found = os.open(file.url, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(found)


def _lives(notes: Mapping[str, Any] | None) -> bool:
    at = (notes or {}).get("at")
    return isinstance(at, float) and time.time() - at < DEAD_SECONDS


def _in_words(notes: Mapping[str, Any] | None) -> str:
    """``another run works here since ...``"""
    if notes is None:
        return "another run works here"
    with suppress(KeyError, TypeError, ValueError):
        since = datetime.fromisoformat(notes["since"])
        age = max(0, int((datetime.now(UTC) - since).total_seconds()))
        where = f"process {notes['process']} on {notes['host']}"
        return f"another run works here since {since:%Y-%m-%d %H:%M:%S} UTC, for {age} s ({where})"
    return "another run works here"


@contextmanager
def alone(directory: Location, say: Callable[[str], None]) -> Iterator[None]:
    """Only one process at a time makes what is in a directory; the others wait, and say so once."""
    lock, told = Lock(directory.parent / f".{directory.name}{SUFFIX}"), False
    while (holder := lock.take()) is not None:
        if not told:
            say(f"{holder}; waiting for {directory}")
            told = True
        time.sleep(ASK_SECONDS)
    try:
        yield
    finally:
        lock.release()
