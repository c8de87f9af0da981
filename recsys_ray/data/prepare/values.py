"""Columns as they are found in files, checked and turned into the types of ``schema.interactions``.

Every refusal is one line: the file, the column, about which row, the first bad value, and what to set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.errors import DataError
from recsys_ray.base.types import BoolArray
from recsys_ray.data.config import IdType

INTEGER = r"^-?(0|[1-9][0-9]*)$"
NUMBER = r"^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$"
MILLISECONDS_FROM = 10**11  # as seconds that is the year 5138, as milliseconds March 1973
MILLISECONDS_TO = 10**14


@dataclass(frozen=True, slots=True)
class Place:
    """Where a column was read, for messages. ``first_row`` is exact, or None inside a later part of a text file."""

    file: str
    first_row: int | None = 0
    first_byte: int = 0

    def row(self, row: int) -> str:
        """Rows count from 1, without the header."""
        if self.first_row is not None:
            return f"row {self.first_row + row + 1:,}"
        return f"row {row + 1:,} after byte {self.first_byte:,}"


def ids(column: pa.ChunkedArray | pa.Array, id_type: IdType, name: str, place: Place, *, text: bool) -> pa.Array:
    """Ids as int64 or string, none missing. ``text``: read from a file that declares no types.

    Raises:
        DataError: empty, mixed, negative, too large, or of a type that is no id.
    """
    array = _one(column)
    if len(array) == 0:
        return pa.array([], pa.string() if id_type == "string" else pa.int64())
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        array = array.cast(pa.string())
    if pa.types.is_integer(array.type):
        _refuse_missing(array, name, place)
        return _integers(array, id_type, name, place)
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise DataError(f"{place.file}: column {name!r} must hold integers or strings as ids, found {array.type}")
    array = array.cast(pa.string())
    if text:
        array = pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
    _refuse_missing(array, name, place)
    if id_type == "string" or (id_type == "auto" and not text):
        return array
    return _parsed(array, id_type, name, place)


def _integers(array: pa.Array, id_type: IdType, name: str, place: Place) -> pa.Array:
    try:
        array = array.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{place.file}: column {name!r} holds ids above the largest int64; write the column as strings"
        ) from error
    _refuse_negative(array, name, place)
    return array.cast(pa.string()) if id_type == "string" else array


def _parsed(array: pa.Array, id_type: IdType, name: str, place: Place) -> pa.Array:
    integers = _canonical_integers(array)
    if integers is not None:
        _refuse_negative(integers, name, place)
        return integers
    matches = pc.match_substring_regex(array, INTEGER)
    wanted = id_type == "int64" or bool(matches[0].as_py())
    if not pc.all(pc.equal(matches, wanted)).as_py():
        row = _first(pc.not_equal(matches, wanted))
        what = "an integer id" if wanted else "like the ids before it, which are not integers"
        raise DataError(
            f"{place.file}: column {name!r}, {place.row(row)}: {array[row].as_py()!r} is not {what}; "
            "set data.id_type=string"
        )
    if wanted:
        raise DataError(f"{place.file}: column {name!r} holds ids above the largest int64; set data.id_type=string")
    return array


def _canonical_integers(array: pa.Array) -> pa.Array | None:
    """Int64 when every value is written as Python would write it: no sign but a minus, no leading zero, no space."""
    try:
        integers = array.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return integers if pc.all(pc.equal(integers.cast(pa.string()), array)).as_py() else None


def _refuse_negative(array: pa.Array, name: str, place: Place) -> None:
    negative = pc.fill_null(pc.less(array, 0), False)
    if pc.any(negative).as_py():
        row = _first(negative)
        raise DataError(
            f"{place.file}: column {name!r}, {place.row(row)}: negative id {array[row].as_py()}; ids must be 0 or above"
        )


def _refuse_missing(array: pa.Array, name: str, place: Place) -> None:
    if array.null_count:
        row = _first(pc.is_null(array))
        raise DataError(
            f"{place.file}: column {name!r} has {array.null_count:,} empty ids, the first at {place.row(row)}"
        )


def ratings(column: pa.ChunkedArray | pa.Array, name: str, place: Place) -> pa.Array:
    """Finite float32.

    Raises:
        DataError: text, empty, NaN or infinite.
    """
    array = _one(column)
    numbers = _cast(array, pa.float64(), name, place, "a number")
    bad = pc.invert(pc.fill_null(pc.is_finite(numbers), False))
    if pc.any(bad).as_py():
        row = _first(bad)
        value = array[row].as_py()
        raise DataError(f"{place.file}: column {name!r}, {place.row(row)}: {value!r} is not a finite rating")
    return numbers.cast(pa.float32())


def timestamps(column: pa.ChunkedArray | pa.Array, name: str, place: Place, unit: str = "auto") -> pa.Array:
    """UTC milliseconds from Arrow times, ISO text, or epoch seconds or milliseconds (``auto``: by magnitude).

    Raises:
        DataError: empty, or none of these.
    """
    array = _one(column)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = _text_times(array.cast(pa.string()), name, place)
    if array.null_count:
        row = _first(pc.is_null(array))
        raise DataError(f"{place.file}: column {name!r}, {place.row(row)}: empty timestamp")
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        return array.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    numbers = _cast(array, pa.float64() if pa.types.is_floating(array.type) else pa.int64(), name, place, "a time")
    return pa.array(_epoch_milliseconds(numbers, name, place, unit))


def _epoch_milliseconds(numbers: pa.Array, name: str, place: Place, unit: str) -> npt.NDArray[np.int64]:
    values = numbers.to_numpy(zero_copy_only=False)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(f"{place.file}: column {name!r}, {place.row(row)}: {values[row]} is not a time")
    largest = float(np.abs(values).max(initial=0))
    if largest >= (MILLISECONDS_TO / 1000 if unit == "s" else MILLISECONDS_TO):
        row = int(np.abs(values).argmax())
        raise DataError(
            f"{place.file}: column {name!r}, {place.row(row)}: {values[row]} is neither epoch seconds nor "
            "milliseconds; convert the column"
        )
    if unit == "s" or (unit == "auto" and largest < MILLISECONDS_FROM):
        values = values * 1000
    whole: npt.NDArray[np.int64] = np.rint(values).astype(np.int64)
    return whole


def _text_times(array: pa.Array, name: str, place: Place) -> pa.Array:
    for target in (pa.int64(), pa.float64(), pa.timestamp("ms"), pa.timestamp("ms", "UTC"), pa.timestamp("us")):
        try:
            return array.cast(target, safe=False)
        except pa.ArrowInvalid:
            continue
    moments = pd.to_datetime(array.to_pandas(), errors="coerce", format="ISO8601", utc=True)
    bad = moments.isna().to_numpy()
    numeric = pc.match_substring_regex(array, NUMBER).to_numpy(zero_copy_only=False)
    if numeric[:1].any():  # a column of numbers, so the odd one out is what is not a number
        bad = ~numeric
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{place.file}: column {name!r}, {place.row(row)}: {array[row].as_py()!r} is not a time; "
            "write epoch seconds, milliseconds, or ISO dates"
        )
    return pa.array(moments).cast(pa.timestamp("ms", "UTC"), safe=False)


def _cast(array: pa.Array, target: pa.DataType, name: str, place: Place, what: str) -> pa.Array:
    try:
        return array.cast(target, safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if not pa.types.is_string(array.type):
            raise DataError(f"{place.file}: column {name!r} must hold {what}, found {array.type}") from error
        numbers = pd.to_numeric(array.to_pandas(), errors="coerce")
        row = _first(pa.array(numbers.isna().to_numpy()))
        raise DataError(
            f"{place.file}: column {name!r}, {place.row(row)}: {array[row].as_py()!r} is not {what}"
        ) from error


def bad_ids(column: pa.ChunkedArray | pa.Array, id_type: IdType, *, text: bool) -> BoolArray:
    """(E,) which values ``ids`` refuses, one by one."""
    array = _one(column)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_integer(array.type):
        return _mask(pc.fill_null(pc.less(array, 0), True))
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return _mask(pc.is_null(array))
    bad_E = _mask(pc.is_null(array)) | (_mask(pc.fill_null(pc.equal(array, ""), True)) & text)
    if id_type != "string" and (text or id_type == "int64"):
        whole_E = _mask(pc.fill_null(pc.match_substring_regex(array, INTEGER), False))
        if id_type == "int64":
            bad_E |= ~whole_E
        if (whole_E | bad_E).all():  # integers all of them, so a minus is a sign
            bad_E |= _mask(pc.fill_null(pc.starts_with(array, "-"), True))
    return bad_E


def bad_ratings(column: pa.ChunkedArray | pa.Array) -> BoolArray:
    """(E,) which values ``ratings`` refuses."""
    numbers_E = pd.to_numeric(_one(column).to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return np.asarray(~np.isfinite(numbers_E))


def bad_timestamps(column: pa.ChunkedArray | pa.Array) -> BoolArray:
    """(E,) which values ``timestamps`` refuses."""
    array = _one(column)
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        return _mask(pc.is_null(array))
    text = array.to_pandas()
    numbers_E = pd.to_numeric(text, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    readable_E = np.abs(np.nan_to_num(numbers_E, nan=np.inf)) < MILLISECONDS_TO
    if pa.types.is_string(array.type) and not readable_E[:1].any():
        readable_E = pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True).notna().to_numpy()
    return np.asarray(~readable_E)


def _mask(array: pa.Array) -> BoolArray:
    return np.asarray(array.to_numpy(zero_copy_only=False), np.bool_)


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _first(mask: pa.Array) -> int:
    return int(np.flatnonzero(mask.to_numpy(zero_copy_only=False))[0])
