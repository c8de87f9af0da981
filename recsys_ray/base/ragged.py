"""Ragged arrays: rows of different lengths, end to end, cut and put together without a loop.

Row r of B rows is ``offsets[r]:offsets[r + 1]`` of the E entries; the offsets begin at 0 and end at E.

>>> offsets(np.array([2, 0, 1]))
array([0, 2, 2, 3])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.arrays import BoolArray, IntArray, LongArray


@dataclass(frozen=True, slots=True)
class Ragged:
    """Parallel values on one set of offsets.

    A subclass adds the values as fields: those named ``*_E`` hold one value per entry, all others one per row.
    """

    offsets_B1: LongArray

    def __post_init__(self) -> None:
        num_rows, num_entries = len(self.offsets_B1) - 1, self.offsets_B1[-1]
        for name in self._names():
            expected = num_entries if name.endswith("_E") else num_rows
            assert len(getattr(self, name)) == expected, f"{name} does not fit the offsets"

    def __len__(self) -> int:
        return len(self.offsets_B1) - 1

    @property
    def lengths_B(self) -> LongArray:
        return np.diff(self.offsets_B1)

    @property
    def rows_E(self) -> IntArray:
        """The row number of every entry."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths_B)

    def span(self, row: int) -> slice:
        """Where the entries of a row are."""
        return slice(int(self.offsets_B1[row]), int(self.offsets_B1[row + 1]))

    def per_row(self, chosen_E: BoolArray) -> LongArray:
        """(B,) how many entries of each row are chosen."""
        return np.diff(kept_offsets(self.offsets_B1, chosen_E))

    def entries_of(self, rows_R: npt.NDArray[np.integer]) -> tuple[LongArray, LongArray]:
        """(place in ``rows_R``, place in the values) of every entry of these rows, row by row."""
        lengths_R = self.offsets_B1[rows_R + 1] - self.offsets_B1[rows_R]
        return np.repeat(np.arange(len(rows_R)), lengths_R), positions(self.offsets_B1[rows_R], lengths_R)

    def slice(self, start: int, stop: int) -> Self:
        """Rows start:stop; the values are views."""
        offsets_R1 = self.offsets_B1[start : stop + 1]
        first, last = int(offsets_R1[0]), int(offsets_R1[-1])
        return self._changed(offsets_R1 - first, lambda values: values[first:last], lambda values: values[start:stop])

    def take(self, rows_R: npt.NDArray[np.integer]) -> Self:
        """These rows in their order; views where they follow each other."""
        if len(rows_R) and (np.diff(rows_R) == 1).all():
            return self.slice(int(rows_R[0]), int(rows_R[-1]) + 1)
        places_E = self.entries_of(rows_R)[1]
        return self._changed(
            offsets(self.lengths_B[rows_R]), lambda values: values[places_E], lambda values: values.take(rows_R)
        )

    def only(self, keep_E: BoolArray) -> Self:
        """All rows, with these entries alone."""
        if keep_E.all():
            return self
        return self._changed(kept_offsets(self.offsets_B1, keep_E), lambda values: values[keep_E])

    def split(self, chosen_E: BoolArray) -> tuple[Self, Self]:
        """All rows with the chosen entries, and all rows with the others."""
        return self.only(chosen_E), self.only(~chosen_E)

    def join(self, other: Self) -> Self:
        """Row by row, the entries of this one and then of the other."""
        offsets_B1 = self.offsets_B1 + other.offsets_B1
        # In every row of the sum, this one's entries begin where the row begins, the other's where these end.
        first_E = positions(offsets_B1[:-1], self.lengths_B)
        second_E = positions(offsets_B1[:-1] + self.lengths_B, other.lengths_B)

        def joined(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
            values_E = np.empty(int(offsets_B1[-1]), first.dtype)
            values_E[first_E], values_E[second_E] = first, second
            return values_E

        values = {name: joined(getattr(self, name), getattr(other, name)) for name in self._values()}
        return replace(self, offsets_B1=offsets_B1, **values)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Rows of the first, then rows of the second, and so on; at least one part, and no values per row."""
        values = {name: np.concatenate([getattr(part, name) for part in parts]) for name in cls._values()}
        return cls(offsets(np.concatenate([part.lengths_B for part in parts])), **values)

    def to_columns(self) -> list[pa.ListArray]:
        """A list column for each of the values per entry, in the order of the fields."""
        return [list_array(self.offsets_B1, getattr(self, name)) for name in self._values()]

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        """Of all fields behind the offsets; the quickest way to them, for single requests."""
        names: tuple[str, ...] = cls.__match_args__
        return names[1:]

    @classmethod
    def _values(cls) -> list[str]:
        """The names of the values per entry."""
        return [name for name in cls._names() if name.endswith("_E")]

    def _changed(
        self,
        offsets_B1: LongArray,
        of_entries: Callable[[Any], Any],
        of_rows: Callable[[Any], Any] = lambda values: values,
    ) -> Self:
        changed = {
            name: of_entries(getattr(self, name)) if name.endswith("_E") else of_rows(getattr(self, name))
            for name in self._names()
        }
        return type(self)(offsets_B1, **changed)


def offsets(lengths_B: npt.ArrayLike) -> LongArray:
    """(B + 1,) where each row begins, and the end of the last."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_B, dtype=np.int64)])


def offsets_of(lists: Sequence[Sequence[Any]]) -> LongArray:
    """(B + 1,) the offsets of plain lists."""
    return offsets([len(row) for row in lists])


def kept_offsets(offsets_B1: LongArray, keep_E: BoolArray) -> LongArray:
    """(B + 1,) the offsets of the same rows when only these entries are kept: how many are kept before each row."""
    return offsets(keep_E)[offsets_B1]


def positions(starts_B: LongArray, lengths_B: LongArray) -> LongArray:
    """(E,) the ranges start:start + length, end to end."""
    ends_B = np.cumsum(lengths_B, dtype=np.int64)
    # Counted through from 0, row b would begin at ends - lengths; it is moved to where it has to begin.
    found_E: LongArray = np.arange(int(lengths_B.sum()), dtype=np.int64)
    found_E += np.repeat(starts_B - (ends_B - lengths_B), lengths_B)
    return found_E


def places_in_rows(lengths_B: LongArray) -> LongArray:
    """(E,) the place of every entry in its row, from 0."""
    return positions(np.zeros_like(lengths_B), lengths_B)


def list_array(offsets_B1: LongArray, values_E: npt.NDArray[Any] | pa.Array) -> pa.ListArray:
    """The same rows as an Arrow array of lists, which holds at most 2^31 - 1 values."""
    values = values_E if isinstance(values_E, pa.Array) else pa.array(values_E)
    return pa.ListArray.from_arrays(pa.array(offsets_B1, pa.int32()), values)


def of_list_array(lists: pa.ListArray | pa.ChunkedArray) -> tuple[LongArray, pa.Array]:
    """(offsets, values end to end) of Arrow lists, whole or a slice; a null list is an empty one."""
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    lengths_B = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return offsets(lengths_B), lists.flatten()
