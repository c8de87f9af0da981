"""What the table of users says, as numbers for a model: the same code for a fit, a batch and online."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.types import FloatArray

MOST_KINDS = 50
"""Names of a column that are told apart, the most frequent ones."""
LEAST_USERS = 2
"""Users that a name must have: one alone would name the user."""


@dataclass(frozen=True, slots=True)
class AttributeEncoder:
    """Numbers standardised over the users of the fit, a 1 for a known name of a kind; 0 where nothing is known."""

    numbers: dict[str, tuple[float, float]]
    """Mean and standard deviation by column."""
    kinds: dict[str, list[str]]
    """Names by column."""

    @classmethod
    def of(cls, attributes: pa.Table | None) -> AttributeEncoder | None:
        """From the attributes of all users; None where they tell no two of them apart."""
        if attributes is None:
            return None
        numbers, kinds = {}, {}
        for field in attributes.schema:
            column = attributes.column(field.name).drop_null()
            if pa.types.is_floating(field.type):
                mean, spread = pc.mean(column).as_py(), pc.stddev(column).as_py()
                if spread:
                    numbers[field.name] = (float(mean), float(spread))
            elif names := _frequent(column):
                kinds[field.name] = names
        return cls(numbers, kinds) if numbers or kinds else None

    @property
    def names(self) -> list[str]:
        """Of the columns that ``encode`` gives."""
        return [*self.numbers, *(f"{column}={name}" for column, names in self.kinds.items() for name in names)]

    def encode(self, attributes: pa.Table | None, rows: int) -> FloatArray:
        """(rows, A) one row a user; zeros for None."""
        encoded_BA = np.zeros((rows, len(self.names)), np.float32)
        if attributes is None:
            return encoded_BA
        for place, (column, (mean, spread)) in enumerate(self.numbers.items()):
            values_B = attributes.column(column).to_numpy(zero_copy_only=False).astype(np.float64)
            encoded_BA[:, place] = np.nan_to_num((values_B - mean) / spread)
        first = len(self.numbers)
        for column, names in self.kinds.items():
            codes = pc.index_in(attributes.column(column).combine_chunks(), value_set=pa.array(names, pa.string()))
            known = pc.is_valid(codes).to_numpy(zero_copy_only=False)
            encoded_BA[np.flatnonzero(known), first + codes.drop_null().to_numpy()] = 1
            first += len(names)
        return encoded_BA

    def to_json(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "kinds": self.kinds}

    @classmethod
    def from_json(cls, saved: dict[str, Any] | None) -> AttributeEncoder | None:
        if saved is None:
            return None
        return cls({name: (mean, spread) for name, (mean, spread) in saved["numbers"].items()}, dict(saved["kinds"]))


def _frequent(column: pa.ChunkedArray) -> list[str]:
    """The most frequent names, of equals the first by alphabet; none where all users have the same."""
    counts = pc.value_counts(column.combine_chunks())
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    found = sorted((-count, name) for name, count in pairs if count >= LEAST_USERS)
    return [name for _, name in found[:MOST_KINDS]] if len(counts) > 1 else []
