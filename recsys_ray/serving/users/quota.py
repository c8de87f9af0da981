"""How many events a user, and the holder of a key, may send in a minute; and of one item in a day, so that no source
moves the popularity of an item by more."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from recsys_ray.serving.config import FeedbackSettings
from recsys_ray.serving.problem import Problem

MOST_USERS = 100_000  # that are told apart within a minute; all others share what one may send
MOST_ITEMS = 1_000_000  # that are told apart within a day, as with users
DAY = 24 * 60  # minutes
OTHERS = ""


class Quota:
    """Counts by the minute and by the day of UTC, of this process. One event loop, so no lock."""

    def __init__(self, settings: FeedbackSettings) -> None:
        self._of_user, self._of_key = settings.events_per_minute, settings.events_per_minute_of_key
        self._of_item = settings.events_per_day_of_item
        self._minute = self._day = 0
        self._users: Counter[str] = Counter()
        self._keys: Counter[str | None] = Counter()
        self._items: Counter[tuple[str | None, str]] = Counter()

    def take(self, holder: str | None, sizes: Mapping[str, int], items: Mapping[str, int]) -> None:
        """Count events by user, and those that rate by item, that come with a key. All of them or, with a Problem 429,
        none."""
        now = time.time()
        if (day := int(now // 60) // DAY) != self._day:
            self._day = day
            self._items.clear()
        if (minute := int(now // 60)) != self._minute:
            self._minute = minute
            self._users.clear()
            self._keys.clear()
        wait = {b"retry-after": b"%d" % (60 - int(now) % 60)}
        total = sum(sizes.values())
        if self._keys[holder] + total > self._of_key:
            raise Problem(429, f"more than {self._of_key} events a minute with this key; send them later", wait)
        for user, size in sizes.items():
            if self._users[self._known(user)] + size > self._of_user:
                raise Problem(429, f"more than {self._of_user} events a minute of one user; send them later", wait)
        for item, size in items.items():
            if self._items[self._known_item(holder, item)] + size > self._of_item:
                late = {b"retry-after": b"%d" % (DAY * 60 - int(now) % (DAY * 60))}
                raise Problem(429, f"more than {self._of_item} events a day of one item with this key", late)
        self._keys[holder] += total
        for item, size in items.items():
            self._items[self._known_item(holder, item)] += size
        for user, size in sizes.items():
            self._users[self._known(user)] += size

    def _known_item(self, holder: str | None, item: str) -> tuple[str | None, str]:
        key = holder, item
        return key if key in self._items or len(self._items) < MOST_ITEMS else (holder, OTHERS)

    def _known(self, user: str) -> str:
        return user if user in self._users or len(self._users) < MOST_USERS else OTHERS
