"""How much memory there is, and how much processes take."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

LOOK_SECONDS = 0.5


def available_memory() -> int:
    """Bytes a new process could take here: the machine's free memory, or what its control group leaves."""
    free = int(psutil.virtual_memory().available)
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            free = min(free, int(limit.read()) - int(used.read()))
    except (OSError, ValueError):
        pass  # no control group, or no limit ("max")
    return free


class MemoryWatch:
    """The most memory that this process and those it started, Ray's among them, held together: as a context manager.

    What they share is not counted. Processes on other machines are not seen.
    """

    def __init__(self) -> None:
        self._peak = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> MemoryWatch:
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="memory")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def take(self) -> int | None:
        """Bytes at the peak since it was asked last; None while nobody watches."""
        if self._thread is None:
            return None
        peak, self._peak = max(self._peak, held_memory()), 0
        return peak

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._peak = max(self._peak, held_memory())


def held_memory() -> int:
    """Bytes that this process and those it started hold now, each for itself."""
    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        try:
            told = process.memory_info()
        except psutil.Error:  # it has just ended
            continue
        total += max(0, told.rss - getattr(told, "shared", 0))
    return total
