"""Columns as they are found in files, checked and turned into the types of ``schema.interactions``.

Every refusal is one line: the file, the column, about which row, the first bad value, and what to set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.errors import DataError
from recsys_ray.base.types import BoolArray
from recsys_ray.data.config import IdType

INTEGER = r"^\s*-?(0|[1-9][0-9]*)\s*$"
NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"


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
    array = plain(column)
    if len(array) == 0:
        return pa.array([], pa.string() if id_type == "string" else pa.int64())
    if pa.types.is_null(array.type):
        array = array.cast(pa.string())
    if pa.types.is_integer(array.type):
        _refuse_missing(array, name, place)
        return _integers(array, id_type, name, place)
    if not pa.types.is_string(array.type):
        raise DataError(f"{place.file}: column {name!r} must hold integers or strings as ids, found {array.type}")
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
    """Int64 when every value is written as Python would write it: no sign but a minus, no leading zero. Blanks around
    them are no part of a number."""
    array = trimmed(array)
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


def plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The values as they are meant, in one array: categories, runs and views of text written out."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    return array


def trimmed(array: pa.Array) -> pa.Array:
    """Text without blanks around it."""
    return pc.utf8_trim_whitespace(array)


def numbers_of(array: pa.Array) -> pa.Array:
    """Text as float64, null where it is no number."""
    array = trimmed(array)
    try:
        return array.cast(pa.float64())
    except pa.ArrowInvalid:
        matches = pc.match_substring_regex(array, NUMBER)
    return pc.if_else(matches, array, pa.scalar(None, pa.string())).cast(pa.float64())


def ratings(column: pa.ChunkedArray | pa.Array, name: str, place: Place) -> pa.Array:
    """Finite float32.

    Raises:
        DataError: text, empty, NaN or infinite.
    """
    array = plain(column)
    numbers = _rated(array, name, place)
    bad_E = _not_finite(numbers)
    if bad_E.any():
        row = int(bad_E.argmax())
        value = array[row].as_py()
        is_number = value is None or numbers[row].as_py() is not None
        what = "a finite rating" if is_number else "a number"
        raise DataError(f"{place.file}: column {name!r}, {place.row(row)}: {value!r} is not {what}")
    return numbers.cast(pa.float32())


def bad_ratings(column: pa.ChunkedArray | pa.Array, name: str, place: Place) -> BoolArray:
    """(E,) which values ``ratings`` refuses, one by one."""
    return _not_finite(_rated(plain(column), name, place))


def _rated(array: pa.Array, name: str, place: Place) -> pa.Array:
    if pa.types.is_string(array.type):
        return numbers_of(array)
    try:
        return array.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{place.file}: column {name!r} must hold a number, found {array.type}") from error


def _not_finite(numbers: pa.Array) -> BoolArray:
    """(E,) also what float32 can't hold."""
    values_E = numbers.fill_null(np.nan).to_numpy(zero_copy_only=False)
    return np.asarray(~(np.abs(values_E) <= np.finfo(np.float32).max), np.bool_)


def bad_ids(column: pa.ChunkedArray | pa.Array, id_type: IdType, *, text: bool) -> BoolArray:
    """(E,) which values ``ids`` refuses, one by one."""
    array = plain(column)
    if pa.types.is_integer(array.type):
        return _mask(pc.fill_null(pc.less(array, 0), True))
    if not pa.types.is_string(array.type):
        return _mask(pc.is_null(array))
    bad_E = _mask(pc.is_null(array)) | (_mask(pc.fill_null(pc.equal(array, ""), True)) & text)
    if id_type != "string" and (text or id_type == "int64"):
        whole_E = _mask(pc.fill_null(pc.match_substring_regex(array, INTEGER), False))
        if id_type == "int64":
            bad_E |= ~whole_E
        if (whole_E | bad_E).all():  # integers all of them, so a minus is a sign
            bad_E |= _mask(pc.fill_null(pc.starts_with(trimmed(array), "-"), True))
    return bad_E


def _mask(array: pa.Array) -> BoolArray:
    return np.asarray(array.to_numpy(zero_copy_only=False), np.bool_)


def _first(mask: pa.Array) -> int:
    return int(np.flatnonzero(mask.to_numpy(zero_copy_only=False))[0])
