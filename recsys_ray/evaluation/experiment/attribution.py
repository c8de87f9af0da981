"""Exposures and events to outcomes of users.

A user counts for the variant that answered, from the first exposure until the window after it is over; what happens
then changes nothing any more. So a user is one finished observation, which is what an interval that may be looked at
again and again needs. An event is an outcome when it falls into the window of its user; it is one of a *shown* item
when that item was in an answer before it. An item counts once for a user. Times are those of the events, whenever
their file was written: a look within minutes of the end of a window may miss what still waits for its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.types import DoubleArray

PARTS_KEPT = 64  # tables of single files before they become one
PAIR = ["user_id", "item_id"]


@dataclass(frozen=True, slots=True)
class Arm:
    """The users of one variant."""

    variant: str
    users: int
    """All of them."""
    exposures: int
    """Answers that they got."""
    shown_U: DoubleArray
    """Outcomes with shown items, of each user whose window is over."""
    any_U: DoubleArray
    """Outcomes with any item, of the same users."""

    @property
    def judged(self) -> int:
        """Users whose window is over."""
        return len(self.shown_U)


@dataclass(frozen=True, slots=True)
class Attributed:
    """What is known of an experiment at one moment."""

    arms: tuple[Arm, ...]
    """By name of the variant; those that answered somebody."""
    in_two: int
    """Users left out because two variants answered them."""
    chosen: int
    """Users left out because the caller chose their variant: not by lot."""


class Tally:
    """Takes exposures file by file; keeps a row for each user and variant, and for each pair that has an event."""

    def __init__(self, events: pa.Table, since: int = 0) -> None:
        """
        Args:
            events: ``user_id``, ``item_id`` and ``timestamp`` of everything that may be an outcome.
            since: UTC milliseconds; exposures before don't count.
        """
        self._events, self._since = events.select([*PAIR, "timestamp"]), since
        self._pairs = self._events.select(PAIR).group_by(PAIR, use_threads=False).aggregate([])
        self._answered: list[pa.Table] = []
        self._shown: list[pa.Table] = []

    def add(self, exposures: pa.Table) -> None:
        """One table of ``schema.exposures``."""
        exposures = exposures.filter(pc.field("timestamp") >= self._since)
        ones = pa.array(np.ones(exposures.num_rows, np.int64))
        columns = exposures.select(["user_id", "variant", "assigned"])
        self._answered.append(
            _answered(columns.append_column("first", exposures["timestamp"]).append_column("n", ones))
        )
        items = exposures["items"].combine_chunks()
        rows = pc.list_parent_indices(items)
        shown = pa.table(
            {
                "user_id": exposures["user_id"].take(rows),
                "item_id": pc.list_flatten(items),
                "shown": exposures["timestamp"].take(rows),
            }
        )
        self._shown.append(_shown(shown.join(self._pairs, PAIR, join_type="inner", use_threads=False)))
        if len(self._answered) >= PARTS_KEPT:
            self._answered = [_answered(pa.concat_tables(self._answered))]
            self._shown = [_shown(pa.concat_tables(self._shown))]

    @property
    def variants(self) -> list[str]:
        """Names of the variants that answered."""
        return sorted({name for part in self._answered for name in pc.unique(part["variant"]).to_pylist()})

    def attributed(self, variants: Sequence[str], window: int, now: int) -> Attributed:
        """The outcomes until now. ``window`` and ``now`` in milliseconds."""
        users = (
            _answered(pa.concat_tables(self._answered))
            .group_by("user_id", use_threads=False)
            .aggregate([("variant", "count"), ("variant", "min"), ("assigned", "all"), ("first", "min"), ("n", "sum")])
            .rename_columns(["user_id", "variants", "variant", "assigned", "first", "n"])
        )
        alone = users.filter(pc.field("variants") == 1)
        kept = alone.filter(pc.field("assigned"))
        outcomes = self._outcomes(kept, window)
        arms = [_arm(name, kept.filter(pc.field("variant") == name), outcomes, now - window) for name in variants]
        return Attributed(
            tuple(arm for arm in arms if arm.users), users.num_rows - alone.num_rows, alone.num_rows - kept.num_rows
        )

    def _outcomes(self, users: pa.Table, window: int) -> pa.Table:
        """``user_id``, ``any`` and ``shown``: how many items, for the users who have any."""
        events = self._events.join(users.select(["user_id", "first"]), "user_id", join_type="inner", use_threads=False)
        after = pc.subtract(events["timestamp"], events["first"])
        events = events.filter(pc.and_(pc.greater_equal(after, 0), pc.less_equal(after, window)))
        shown = _shown(pa.concat_tables(self._shown))
        events = events.join(shown, PAIR, join_type="left outer", use_threads=False)
        was_shown = pc.fill_null(pc.less_equal(events["shown"], events["timestamp"]), False)
        pairs = (
            events.select(PAIR)
            .append_column("shown", was_shown)
            .group_by(PAIR, use_threads=False)
            .aggregate([("shown", "any")])
        )
        counted = pairs.append_column("one", pc.cast(pairs["shown_any"], pa.int64()))
        return (
            counted.group_by("user_id", use_threads=False)
            .aggregate([("one", "count"), ("one", "sum")])
            .rename_columns(["user_id", "any", "shown"])
        )


def _answered(parts: pa.Table) -> pa.Table:
    """A row for each user and variant: all exposures drawn by lot, the first time, how many."""
    return (
        parts.group_by(["user_id", "variant"], use_threads=False)
        .aggregate([("assigned", "all"), ("first", "min"), ("n", "sum")])
        .rename_columns(["user_id", "variant", "assigned", "first", "n"])
    )


def _shown(parts: pa.Table) -> pa.Table:
    """When an item was first shown to a user, for each pair."""
    return parts.group_by(PAIR, use_threads=False).aggregate([("shown", "min")]).rename_columns([*PAIR, "shown"])


def _arm(name: str, users: pa.Table, outcomes: pa.Table, begun_until: int) -> Arm:
    judged = users.filter(pc.field("first") <= begun_until).select(["user_id"])
    counts = judged.join(outcomes, "user_id", join_type="left outer", use_threads=False)
    any_U, shown_U = (pc.fill_null(counts[column], 0).to_numpy().astype(np.float64) for column in ("any", "shown"))
    return Arm(name, users.num_rows, int(pc.sum(users["n"]).as_py() or 0), shown_U, any_U)
