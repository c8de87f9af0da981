"""From when and until when items may be recommended, as the columns ``schema.AVAILABILITY`` of the item table say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.types import BoolArray, LongArray

ALWAYS, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Availability:
    """An item may be recommended at ``from_I <= time < until_I``, in UTC milliseconds.

    Between two of the moments at which that changes for some item it changes for none: such a span has a number, and
    all that depends on the time depends on the number alone.
    """

    from_I: LongArray
    until_I: LongArray
    changes_N: LongArray
    """Ascending: every moment at which some item comes or goes."""

    @classmethod
    def of(cls, items: pa.Table) -> Availability | None:
        """None where the table says nothing of it."""
        if not set(schema.AVAILABILITY) & set(items.schema.names):
            return None
        limits = zip(schema.AVAILABILITY, (ALWAYS, NEVER), strict=True)
        from_I, until_I = (_milliseconds(items, name, missing) for name, missing in limits)
        changes_N = np.unique(np.concatenate([from_I, until_I]))
        return cls(from_I, until_I, changes_N[(changes_N != ALWAYS) & (changes_N != NEVER)])

    def span(self, at: int) -> int:
        """The number of the span that a moment lies in."""
        return int(np.searchsorted(self.changes_N, at, side="right"))

    def mask(self, span: int) -> BoolArray:
        """(I,) the items that may be recommended in this span."""
        first = self.changes_N[span - 1] if span else ALWAYS
        return np.asarray((self.from_I <= first) & (first < self.until_I), np.bool_)


def _milliseconds(items: pa.Table, name: str, missing: int) -> LongArray:
    if name not in items.schema.names:
        return np.full(items.num_rows, missing, np.int64)
    column = items.column(name).combine_chunks().cast(pa.int64()).fill_null(missing)
    return np.asarray(column.to_numpy(), np.int64)
