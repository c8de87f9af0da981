"""What users send, and who keeps it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.serving.users.histories import typed_id

log = logging.getLogger(__name__)

MOST_EVENTS = 2_000  # of a user that are kept, ratings and wishes each
RATED, SEEN = "rated", "seen"


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction, or a wish not to see an item; ids as text, time in UTC milliseconds."""

    item: str
    rating: float
    timestamp: int
    kind: str = RATED
    """RATED; SEEN, which teaches nothing; or one of ``recommend.hidden``: HIDDEN, and SHOWN, which takes that back."""


class UserStates(Protocol):
    """What is known of users beyond the bundle."""

    async def version(self, user: str) -> int:
        """0 for nothing; another number whenever something was added."""
        ...

    async def events(self, user: str) -> list[Event]:
        """The newest of each item and kind, MOST_EVENTS at most, oldest first."""
        ...

    async def add(self, user: str, events: Sequence[Event], hours: float, *, durable: bool) -> None:
        """Remember them for some hours; ``durable`` ones also go to the next batch run. On the disk on return."""
        ...

    async def forget(self, users: Collection[str]) -> None:
        """Delete all that they sent, also what waits for a batch run."""
        ...


def newest_of_each(events: Sequence[Event]) -> list[Event]:
    """Of the events of a user, given in order, the last of each item and kind; oldest first."""
    last = {(event.item, event.kind): place for place, event in enumerate(events)}
    return sorted((events[place] for place in sorted(last.values())), key=lambda event: event.timestamp)


def typed_table(
    rows: list[tuple[str, str, float, int, str]], user_type: pa.DataType, item_type: pa.DataType
) -> pa.Table:
    """``schema.interactions``, and the kind of each."""
    wanted = schema.interactions(user_type, item_type).append(pa.field("kind", pa.string()))
    typed = [(typed_id(row[0], user_type), typed_id(row[1], item_type), row) for row in rows]
    fit = [(user[0], item[0], *row[2:]) for user, item, row in typed if user is not None and item is not None]
    if len(fit) < len(rows):
        log.warning("feedback: %d events with ids of another type were left out", len(rows) - len(fit))
    columns = list(zip(*fit, strict=True)) or [()] * len(wanted)
    return pa.table([pa.array(list(column), field.type) for column, field in zip(columns, wanted, strict=True)], wanted)
