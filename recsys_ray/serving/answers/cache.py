"""Finished responses by what they depend on: bounded by bytes, the longest unused one goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable

OVERHEAD = 200  # bytes of one entry beside its value: key, tuple, place in the table


class AnswerCache:
    """Least recently used out first; entries die of age. One event loop, so no lock."""

    def __init__(self, max_bytes: int, ttl_seconds: float) -> None:
        self.max_bytes, self.ttl_seconds = max_bytes, ttl_seconds
        self.hits = self.misses = self.bytes = 0
        self._entries: OrderedDict[Hashable, tuple[float, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> bytes | None:
        entry = self._entries.get(key)
        if entry is not None and entry[0] > time.monotonic():
            self._entries.move_to_end(key)
            self.hits += 1
            return entry[1]
        if entry is not None:
            self._drop(key)
        self.misses += 1
        return None

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep it, unless it is larger than the whole cache."""
        if key in self._entries:
            self._drop(key)
        if len(value) + OVERHEAD > self.max_bytes:
            return
        self._entries[key] = (time.monotonic() + self.ttl_seconds, value)
        self.bytes += len(value) + OVERHEAD
        while self.bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        self._entries.clear()
        self.bytes = 0

    def _drop(self, key: Hashable) -> None:
        self.bytes -= len(self._entries.pop(key)[1]) + OVERHEAD
