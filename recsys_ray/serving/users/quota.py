"""How many events a user, and the holder of a key, may send in a minute; and of one item in a day, so that no source
moves the popularity of an item by more."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from recsys_ray.serving.config import FeedbackSettings
from recsys_ray.serving.problem import Problem

MOST_USERS = 100_000  # that are told apart within a minute; all others share what one may send
MOST_ITEMS = 1_000_000  # that are told apart within a day, as with users
MINUTE, DAY = 60, 86_400  # seconds
OTHERS = ""


Key = TypeVar("Key", bound=Hashable)


class Quota:
    """Counts by the minute and by the day of UTC, of this process. One event loop, so no lock."""

    def __init__(self, settings: FeedbackSettings) -> None:
        self._keys: _Period[str | None] = _Period(MINUTE, settings.events_per_minute_of_key, math.inf)
        self._users: _Period[str] = _Period(MINUTE, settings.events_per_minute, MOST_USERS)
        self._items: _Period[tuple[str | None, str]] = _Period(DAY, settings.events_per_day_of_item, MOST_ITEMS)

    def take(self, holder: str | None, sizes: Mapping[str, int], items: Mapping[str, int]) -> None:
        """Count events by user, and those that rate by item, that come with a key. All of them or, with a Problem 429,
        none."""
        now = int(time.time())
        of_key = self._keys.sums({holder: sum(sizes.values())}, holder, now)
        of_users = self._users.sums(sizes, OTHERS, now)
        of_items = self._items.sums({(holder, item): size for item, size in items.items()}, (holder, OTHERS), now)
        self._keys.check(of_key, "a minute with this key; send them later", now)
        self._users.check(of_users, "a minute of one user; send them later", now)
        self._items.check(of_items, "a day of one item with this key", now)
        self._keys.counts.update(of_key)
        self._users.counts.update(of_users)
        self._items.counts.update(of_items)


class _Period(Generic[Key]):
    """What was counted since the last full minute or day; ``apart`` keys are told apart, all others are one."""

    def __init__(self, seconds: int, most: int, apart: float) -> None:
        self._seconds, self._most, self._apart = seconds, most, apart
        self._number = 0
        self.counts: dict[Key, int] = {}

    def sums(self, sizes: Mapping[Key, int], others: Key, now: int) -> dict[Key, int]:
        """What the counts of these keys would be."""
        if (number := now // self._seconds) != self._number:
            self._number = number
            self.counts.clear()
        room, found = self._apart - len(self.counts), Counter[Key]()
        for key, size in sizes.items():
            known = key in self.counts
            room -= not known
            found[key if known or room >= 0 else others] += size
        return {key: self.counts.get(key, 0) + size for key, size in found.items()}

    def check(self, sums: Mapping[Key, int], what: str, now: int) -> None:
        """Raises Problem 429 where one is too large."""
        if any(size > self._most for size in sums.values()):
            late = {b"retry-after": b"%d" % (self._seconds - now % self._seconds)}
            raise Problem(429, f"more than {self._most} events {what}", late)
