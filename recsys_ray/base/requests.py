"""What is asked: histories of users, lists of items, and requests made of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from recsys_ray.base.arrays import FloatArray, IntArray, LongArray
from recsys_ray.base.ragged import Ragged, offsets_of

if TYPE_CHECKING:
    import scipy.sparse as sp


@dataclass(frozen=True, slots=True)
class Histories(Ragged):
    """The histories of B users, oldest event first."""

    items_E: IntArray
    ratings_E: FloatArray
    timestamps_E: LongArray

    @property
    def num_interactions(self) -> int:
        return len(self.items_E)

    def matrix(self, num_items: int, values_E: FloatArray | None = None) -> sp.csr_matrix:
        """(B, I) CSR float32. Without values it is binary, however often a pair occurs; with values they add up."""
        import scipy.sparse as sp

        data = np.ones(self.num_interactions, np.float32) if values_E is None else values_E
        matrix = sp.csr_matrix(
            (data, self.items_E, self.offsets_B1), shape=(len(self), num_items), dtype=np.float32, copy=True
        )
        matrix.sum_duplicates()
        if values_E is None:
            matrix.data[:] = 1.0
        return matrix

    @classmethod
    def from_lists(
        cls,
        items: Sequence[Sequence[int]],
        ratings: Sequence[Sequence[float]] | None = None,
        timestamps: Sequence[Sequence[int]] | None = None,
    ) -> Histories:
        """Build from plain lists; ratings default to 1, timestamps to positions."""
        flat = [item for row in items for item in row]
        values = [1.0] * len(flat) if ratings is None else [value for row in ratings for value in row]
        times = (
            [position for row in items for position in range(len(row))]
            if timestamps is None
            else [time for row in timestamps for time in row]
        )
        arrays = np.array(flat, np.int32), np.array(values, np.float32), np.array(times, np.int64)
        return cls(offsets_of(items), *arrays)


@dataclass(frozen=True, slots=True)
class ItemLists(Ragged):
    """B lists of item rows; used for what must not be shown, and for held-out targets."""

    items_E: IntArray

    def row(self, row: int) -> IntArray:
        return self.items_E[self.span(row)]

    @classmethod
    def empty(cls, num_rows: int) -> ItemLists:
        return cls(np.zeros(num_rows + 1, np.int64), np.zeros(0, np.int32))

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> ItemLists:
        return cls(offsets_of(rows), np.array([item for row in rows for item in row], np.int32))


@dataclass(frozen=True, slots=True)
class Requests:
    """B questions "what next for this user?".

    ``users_B`` are row numbers of the fit, -1 for a user (or a history) the fit has not seen: those are answered from
    ``histories`` and ``attributes`` alone. ``seen`` are further items to filter beside the history. What is ``hidden``
    is never listed, also where seen items are not filtered; None is nothing.
    """

    user_ids: pa.Array
    users_B: IntArray
    histories: Histories
    seen: ItemLists
    attributes: pa.Table | None = None
    """What the table of users says of each, a row a request; None where nothing is known of any."""
    hidden: ItemLists | None = None

    def __len__(self) -> int:
        return len(self.users_B)

    def slice(self, start: int, stop: int) -> Requests:
        return Requests(
            self.user_ids.slice(start, stop - start),
            self.users_B[start:stop],
            self.histories.slice(start, stop),
            self.seen.slice(start, stop),
            None if self.attributes is None else self.attributes.slice(start, stop - start),
            None if self.hidden is None else self.hidden.slice(start, stop),
        )

    def take(self, rows_R: LongArray) -> Requests:
        """These requests, in this order."""
        histories, seen, rows = self.histories.take(rows_R), self.seen.take(rows_R), pa.array(rows_R)
        attributes = None if self.attributes is None else self.attributes.take(rows)
        hidden = None if self.hidden is None else self.hidden.take(rows_R)
        return Requests(self.user_ids.take(rows), self.users_B[rows_R], histories, seen, attributes, hidden)

    @classmethod
    def concatenate(cls, parts: Sequence[Requests]) -> Requests:
        """Those of the first, then of the second, and so on; at least one part."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            pa.concat_arrays([part.user_ids for part in parts]),
            np.concatenate([part.users_B for part in parts]),
            Histories.concatenate([part.histories for part in parts]),
            ItemLists.concatenate([part.seen for part in parts]),
            _together(parts),
            None
            if all(part.hidden is None for part in parts)
            else ItemLists.concatenate([part.hidden or ItemLists.empty(len(part)) for part in parts]),
        )


def _together(parts: Sequence[Requests]) -> pa.Table | None:
    """The attributes of all parts, null in the rows of a part without."""
    some = next((part.attributes for part in parts if part.attributes is not None), None)
    if some is None:
        return None
    tables = [
        pa.table([pa.nulls(len(part), field.type) for field in some.schema], schema=some.schema)
        if part.attributes is None
        else part.attributes
        for part in parts
    ]
    return pa.concat_tables(tables).combine_chunks()
