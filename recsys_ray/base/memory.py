"""How much memory a command and the processes below it take."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

SECONDS = 0.25
"""Between two looks: what comes and goes between them is missed."""


class PeakMemory:
    """The largest memory that was seen while it is open: of this process and those below it, in bytes.

    Pages that processes share, as those of Ray's object store, are left out, so nothing is counted twice; nor are
    processes of other machines, or of a Ray that was there before.
    """

    def __init__(self) -> None:
        self._peak = 0
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join()

    def take(self) -> int:
        """The peak since the last call, or since it was opened."""
        now = private_bytes()
        with self._lock:
            peak, self._peak = max(self._peak, now), 0
        return peak

    def _watch(self) -> None:
        while not self._closed.wait(SECONDS):
            now = private_bytes()
            with self._lock:
                self._peak = max(self._peak, now)


def private_bytes() -> int:
    """Bytes that this process and those below it hold for themselves."""
    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        try:
            memory = process.memory_info()
        except psutil.Error:  # it has just ended
            continue
        total += memory.rss - getattr(memory, "shared", 0)
    return total
