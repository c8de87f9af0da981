"""The blows of the siege: something is broken, for a while or for good, while everybody goes on calling.

A blow says what it needs to be struck at all (``reason`` why it can't be, else None), and how it is seen that it hit.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.redis_server import RedisServer, running_redis
from tests.serving_soak import family, replicas

DISK_MIB = 192
ON_THE_WAY_SECONDS = 3.0


@dataclass
class Town:
    """What is besieged."""

    folder: Path
    pauses: list[Any]
    """Events that, while set, keep all callers from sending what users did."""
    redis: RedisServer | None
    disk: str | None
    """Why the folder is on no small disk of its own; None where it is."""
    hold_seconds: float
    """How long a blow lasts."""
    notes: dict[str, Any] = field(default_factory=dict)


class Blow:
    """``strike`` breaks something and takes as long as that lasts; what it did is mended by the service, or ends."""

    name = ""
    kills = False
    """Callers may fail for some seconds."""
    named: str | None = None
    """The part that health must name meanwhile."""

    def reason(self, town: Town) -> str | None:
        return None

    def strike(self, town: Town) -> None:
        raise NotImplementedError

    def hit(self, town: Town) -> bool:
        """Whether it is seen, beside what health says, that something was broken."""
        return True


class FrozenRedis(Blow):
    name, named = "Redis frozen", "redis"

    def reason(self, town: Town) -> str | None:
        return "no redis-server here" if town.redis is None else None

    def strike(self, town: Town) -> None:
        assert town.redis is not None
        town.redis.freeze()
        time.sleep(town.hold_seconds)
        town.redis.thaw()


class FullDisk(Blow):
    name, named = "disk full", "replicas"

    def reason(self, town: Town) -> str | None:
        return town.disk

    def strike(self, town: Town) -> None:
        ballast = town.folder / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        town.notes["free"] = shutil.disk_usage(town.folder).free
        time.sleep(town.hold_seconds)
        ballast.unlink()

    def hit(self, town: Town) -> bool:
        return int(town.notes["free"]) < 4096


class DamagedState(Blow):
    """After what was acknowledged is in files: what is in a destroyed file alone nobody can have back."""

    name = "state damaged"

    def strike(self, town: Town) -> None:
        file = town.folder / "serving" / "state.sqlite"
        for pause in town.pauses:
            pause.set()
        try:
            await_files(file)
            for path in (file, Path(f"{file}-wal")):
                with suppress(FileNotFoundError), path.open("r+b") as opened:
                    opened.write(os.urandom(path.stat().st_size))
        finally:
            for pause in town.pauses:
                pause.clear()

    def hit(self, town: Town) -> bool:
        return bool(list((town.folder / "serving").glob("state.sqlite.damaged-*")))


class Killed(Blow):
    """SIGKILL for one process whose name has this in it."""

    kills = True

    def __init__(self, name: str, process: str) -> None:
        self.name, self._process = name, process
        self._dead = 0

    def strike(self, town: Town) -> None:
        deadline = time.monotonic() + 60
        while not (found := [one for one in family() if self._process in _name(one)]):
            assert time.monotonic() < deadline, f"there is no {self._process} to kill"
            time.sleep(0.1)  # the one before was killed a moment ago
        found[0].kill()
        self._dead += 1

    def hit(self, town: Town) -> bool:
        return self._dead > 0


class ReplicaKilled(Killed):
    def __init__(self) -> None:
        super().__init__("replica killed", "ServeReplica")

    def hit(self, town: Town) -> bool:
        """Another one came: there are as many as before."""
        deadline = time.monotonic() + 60
        while len(replicas()) < 2:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        return True


def blows() -> list[Blow]:
    return [
        FrozenRedis(),
        FullDisk(),
        DamagedState(),
        ReplicaKilled(),
        Killed("proxy killed", "haproxy"),
        Killed("proxy's manager killed", "HAProxyManager"),
    ]


def await_files(file: Path) -> None:
    """Until all that was acknowledged is in files, also what callers had sent when they were told to pause."""
    time.sleep(ON_THE_WAY_SECONDS)
    deadline = time.monotonic() + 60
    while waiting(file):
        assert time.monotonic() < deadline, "events that wait for a file were not written"
        time.sleep(0.1)


def waiting(file: Path) -> bool:
    """Whether events in the journal are on their way to a file."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as db:
        [(found,)] = db.execute("SELECT EXISTS (SELECT 1 FROM events WHERE step IN (1, 2))")
    return bool(found)


@contextmanager
def small_disk(folder: Path) -> Iterator[str | None]:
    """A file system of its own for the folder; why there is none where none can be had."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        yield "only root can mount a small disk"
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "siege", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        yield f"no small disk: {done.stderr.strip()}"
        return
    try:
        yield None
    finally:
        # MNT_DETACH: also where a process that was killed late still holds a file of it.
        ctypes.CDLL(None).umount2(str(folder).encode(), 2)


@contextmanager
def our_redis() -> Iterator[RedisServer | None]:
    """A Redis of our own; None where there is no redis-server."""
    try:
        import redis  # noqa: F401
    except ImportError:
        yield None
        return
    if shutil.which("redis-server") is None:
        yield None
        return
    with running_redis() as server:
        yield server


def left_over() -> list[str]:
    """Names of processes that outlived the service, given some seconds."""
    deadline = time.monotonic() + 10
    while found := [name for name in map(_name, family()) if name not in ("", "redis-server")]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return sorted(found)


def _name(process: psutil.Process) -> str:
    try:
        ours = "multiprocessing.resource_tracker" in " ".join(process.cmdline())  # it goes when this process does
        return "" if ours else str(process.name())
    except psutil.NoSuchProcess:
        return ""
