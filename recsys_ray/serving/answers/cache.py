"""Finished responses by what they depend on: bounded by bytes, the longest unused one goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from hashlib import blake2b

OVERHEAD = 400  # bytes of one entry beside its value: digest, tuple, time, place in the table


class AnswerCache:
    """Least recently used out first; entries die of age. One event loop, so no lock.

    Keys are kept as digests of their ``repr``, so an entry has the same size whatever a caller asked for.
    """

    def __init__(self, max_bytes: int, ttl_seconds: float) -> None:
        self.max_bytes, self.ttl_seconds = max_bytes, ttl_seconds
        self.hits = self.misses = self.bytes = 0
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> bytes | None:
        digest = _digest(key)
        entry = self._entries.get(digest)
        if entry is not None and entry[0] > time.monotonic():
            self._entries.move_to_end(digest)
            self.hits += 1
            return entry[1]
        if entry is not None:
            self._drop(digest)
        self.misses += 1
        return None

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep it, unless it is larger than the whole cache; the longest unused ones that are too old go."""
        digest, now = _digest(key), time.monotonic()
        if digest in self._entries:
            self._drop(digest)
        if len(value) + OVERHEAD > self.max_bytes:
            return
        self._entries[digest] = (now + self.ttl_seconds, value)
        self.bytes += len(value) + OVERHEAD
        while self.bytes > self.max_bytes or next(iter(self._entries.values()))[0] < now:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        self._entries.clear()
        self.bytes = 0

    def _drop(self, digest: bytes) -> None:
        self.bytes -= len(self._entries.pop(digest)[1]) + OVERHEAD


def _digest(key: Hashable) -> bytes:
    return blake2b(repr(key).encode(), digest_size=16).digest()
