"""What ``prepare`` says of the rows it read: files and rows left out, and the times."""

from __future__ import annotations

from collections.abc import Callable

from recsys_ray.base.errors import DataError
from recsys_ray.base.proportion import MANY, in_proportion
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.staging import StageTotal
from recsys_ray.data.prepare.times import FIRST_TIME, day
from recsys_ray.data.sources.base import BAD_ROWS, REFUSED

Say = Callable[[str], None]


def say_left_out(settings: DataSettings, total: StageTotal, say: Say) -> None:
    """One line per reason.

    Raises:
        DataError: bad rows are too many to be accidents.
    """
    every, at_most = total.read + total.left_out.total(), settings.bad_rows_at_most
    bad = total.left_out[BAD_ROWS]
    if bad > at_most * every:
        raise DataError(
            f"{bad:,} of {every:,} rows can't be read, more than data.bad_rows_at_most={at_most:g} of them; the first: "
            f"{total.bad_example}"
        )
    for reason, count in sorted(total.left_out.items()):
        if reason == REFUSED:
            say(f"prepare: warning: {count:,} files of feedback can't be used, and are left out ({total.bad_example})")
            continue
        loud = "warning: " if reason == BAD_ROWS and count >= MANY * every else ""
        first = f"; the first: {total.bad_example}" if reason == BAD_ROWS else ""
        say(f"prepare: {loud}{count:,} rows left out: {reason}{first}")


def say_times(settings: DataSettings, total: StageTotal, say: Say) -> None:
    """The range of the times as dates, and what is wrong with it.

    Raises:
        DataError: most interactions lie in the future.
    """
    if total.times is None:
        return
    first, last = total.times
    say(f"prepare: times from {day(first)} to {day(last)}")
    cure = "look at the unit of the time column, or set data.timestamp_unit"
    if first < FIRST_TIME:
        say(f"prepare: warning: the first interaction is of {day(first)}, before {day(FIRST_TIME)}; {cure}")
    if total.in_future:
        kept = settings.filters.future == "keep"
        what = "interactions lie in the future" + ("" if kept else ", and are filtered as seen alone")
        bounds = (1.0 if kept else settings.left_out_at_most, "data.left_out_at_most")
        say("prepare: " + in_proportion(total.in_future, total.read, what, f"{cure}, or data.filters.future", *bounds))


def say_unknown(settings: DataSettings, unknown: int, read: int, say: Say) -> None:
    """Interactions of items that the catalogue lacks, where they are dropped.

    Raises:
        DataError: that are most of them.
    """
    if unknown:
        what, cure = (
            "interactions are of unknown items, and dropped",
            "complete data.items, or set data.unknown_items=add",
        )
        bounds = (settings.left_out_at_most, "data.left_out_at_most")
        say("prepare: " + in_proportion(unknown, read, what, cure, *bounds))
