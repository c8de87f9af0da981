"""Columns of times as UTC milliseconds, and the one unit that all numbers of an input are in.

A number says nothing of its unit, so it is told by magnitude: a day as yyyymmdd, seconds, or milliseconds. What was
told travels with the rows, and two different answers in one input are an error: one of them would be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.errors import DataError
from recsys_ray.base.types import BoolArray, LongArray
from recsys_ray.data.prepare.values import Place, numbers_of, plain, trimmed

MILLISECONDS_FROM = 10**11  # as seconds that is the year 5138, as milliseconds March 1973
MILLISECONDS_TO = 10**14
FIRST_TIME = int(np.datetime64("1990-01-01", "ms").astype(np.int64))
"""Logs that are older are rare; units taken for others are not."""
DAY = 86_400_000
LATEST_SECOND = int(np.datetime64("9999-12-31T23:59:59", "s").astype(np.int64))
DAYS_FROM, DAYS_TO = 19000101, 21001231
"""As seconds these numbers are August 1970, a month that no log is of."""
UNITS = {"s": "seconds", "ms": "milliseconds", "yyyymmdd": "days written yyyymmdd"}
NEITHER = "neither epoch seconds nor milliseconds nor yyyymmdd"
Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Times:
    """E times of one column."""

    milliseconds_E: LongArray
    bad_E: BoolArray
    """Which values are no times; their milliseconds mean nothing."""
    unit: str | None = None
    """The unit that was told by magnitude; None where nothing had to be told."""


def timestamps(
    column: pa.ChunkedArray | pa.Array, name: str, place: Place, unit: str = "auto"
) -> tuple[pa.Array, str | None]:
    """UTC milliseconds from Arrow times, ISO text, or numbers in a unit (``auto``: by magnitude), and what was told.

    Raises:
        DataError: a value is empty or no time, numbers are of two units, or the column is of another kind.
    """
    array = plain(column)
    times = read_times(array, name, place, unit)
    if times.bad_E.any():
        row = int(times.bad_E.argmax())
        value, what = _as_found(array, row), f"{place.file}: column {name!r}, {place.row(row)}"
        if value is None:
            raise DataError(f"{what}: empty timestamp")
        number = numbers_of(pa.array([str(value)]))[0].as_py()
        is_number = number is not None and np.isfinite(number)
        cure = "convert the column" if is_number else "write epoch seconds, milliseconds, or dates (ISO, yyyymmdd)"
        raise DataError(f"{what}: {value!r} is {NEITHER if is_number else 'not a time'}; {cure}")
    return pa.array(times.milliseconds_E), times.unit


def read_times(column: pa.ChunkedArray | pa.Array, name: str, place: Place, unit: str = "auto") -> Times:
    """As ``timestamps``, with the values that are no times marked instead of refused."""
    array = plain(column)
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    if pa.types.is_null(array.type):
        return Times(np.zeros(len(array), np.int64), np.ones(len(array), np.bool_))
    if pa.types.is_string(array.type):
        return _text(trimmed(array), name, place, unit)
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        return _typed(array)
    if any(is_kind(array.type) for is_kind in kinds):
        return _numeric(array, name, place, unit)
    raise DataError(
        f"{place.file}: column {name!r} must hold times, found {array.type}; write epoch seconds, milliseconds or dates"
    )


def _as_found(array: pa.Array, row: int) -> Any:
    """A value for a message; Python has no moment for every one that Arrow has."""
    try:
        return array[row].as_py()
    except (ValueError, ArithmeticError):
        return array.cast(pa.int64())[row].as_py()


def _typed(array: pa.Array) -> Times:
    """Of Arrow's own types; beyond the year 9999 there is no time."""
    bad_E = array.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_date(array.type):
        array = array.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
        per_second, counts_E = 1, array.fill_null(0).to_numpy() * 86_400
    else:
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
        counts_E = array.cast(pa.int64()).fill_null(0).to_numpy()
    seconds_E = counts_E // per_second
    far_E = (seconds_E > LATEST_SECOND) | (seconds_E < -LATEST_SECOND)  # looked at before a product can wrap
    counts_E = np.where(far_E, 0, counts_E)
    milliseconds_E = counts_E * (1000 // per_second) if per_second <= 1000 else counts_E // (per_second // 1000)
    return Times(milliseconds_E.astype(np.int64), bad_E | far_E)


def _text(array: pa.Array, name: str, place: Place, unit: str) -> Times:
    """Numbers where most of the values are, else dates."""
    import pandas as pd

    for target in (pa.int64(), pa.timestamp("ms"), pa.timestamp("ms", "UTC"), pa.timestamp("us")):
        try:
            found = array.cast(target, safe=False)
        except pa.ArrowInvalid:
            continue
        return _numeric(found, name, place, unit) if pa.types.is_integer(target) else _typed(found)
    numbers = numbers_of(array)
    if numbers.null_count * 2 <= len(array):
        return _numeric(numbers, name, place, unit)
    begins = pc.match_substring_regex(array, "^[0-9]").to_numpy(zero_copy_only=False)  # pandas knows words such as now
    text = array.to_pandas().where(begins == True, None)  # noqa: E712 - null is none, too
    return _typed(pa.array(pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True)))


def _numeric(array: pa.Array, name: str, place: Place, unit: str) -> Times:
    try:
        array = array.cast(pa.int64() if pa.types.is_integer(array.type) else pa.float64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{place.file}: column {name!r} holds a number that is {NEITHER}; convert the column"
        ) from error
    values_E = array.fill_null(0).to_numpy(zero_copy_only=False)
    sizes_E = np.abs(values_E.astype(np.float64))
    largest = MILLISECONDS_FROM if unit == "s" else MILLISECONDS_TO
    bad_E = array.is_null().to_numpy(zero_copy_only=False) | ~(sizes_E < largest)
    values_E = np.where(bad_E, 0, values_E)
    told = _told(values_E, name, place) if unit == "auto" else unit
    if told == "yyyymmdd":
        days_E, wrong_E = _days(values_E)
        milliseconds_E, bad_E = days_E * DAY, bad_E | (wrong_E & (values_E != 0))
    else:
        milliseconds_E = np.rint(values_E * (1000 if told == "s" else 1)).astype(np.int64)
    return Times(milliseconds_E, bad_E, told if unit == "auto" else None)


def _told(values_E: Numbers, name: str, place: Place) -> str | None:
    """The unit by magnitude; zeros, which say that there is no time, have none."""
    some_E = values_E != 0
    if not some_E.any():
        return None
    large_E = np.abs(values_E) >= MILLISECONDS_FROM
    if large_E.any() and (some_E & ~large_E).any():
        one, other = int((some_E & ~large_E).argmax()), int(large_E.argmax())
        raise DataError(
            f"{place.file}: column {name!r}: {values_E[one]} at {place.row(one)} looks like seconds, {values_E[other]} "
            f"at {place.row(other)} like milliseconds; convert one of them, or set data.timestamp_unit"
        )
    if large_E.any():
        return "ms"
    inside = values_E[some_E]
    return "yyyymmdd" if ((inside >= DAYS_FROM) & (inside <= DAYS_TO)).all() else "s"


def _days(values_E: Numbers) -> tuple[LongArray, BoolArray]:
    """Days since 1970 of numbers such as 20200131, and which are no day of the calendar."""
    years_E, rest_E = np.divmod(values_E.astype(np.int64), 10_000)
    months_E, days_E = np.divmod(rest_E, 100)
    sound_E = (values_E >= DAYS_FROM) & (values_E <= DAYS_TO) & (months_E >= 1) & (months_E <= 12) & (days_E >= 1)
    months_since = np.where(sound_E, (years_E - 1970) * 12 + months_E - 1, 0).astype("datetime64[M]")
    found_E = months_since.astype("datetime64[D]").astype(np.int64) + days_E - 1
    last_E = (months_since + 1).astype("datetime64[D]").astype(np.int64)
    sound_E &= (found_E < last_E) & (values_E == np.rint(values_E))
    return np.where(sound_E, found_E, 0).astype(np.int64), ~sound_E


def span(times_E: LongArray) -> tuple[int, int] | None:
    """First and last; those of 0 have no time."""
    some_E = times_E[times_E != 0]
    return (int(some_E.min()), int(some_E.max())) if len(some_E) else None


def day(milliseconds: int) -> str:
    """As an ISO date, UTC."""
    return str(np.datetime64(milliseconds, "ms").astype("datetime64[D]"))
