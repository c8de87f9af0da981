"""What every source of interactions does, and the row that only says a user exists."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import schema
from recsys_ray.base.ragged import list_array, offsets
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.files import Chunk

BAD_ROWS = "bad_rows"
REFUSED = "feedback_files_refused"


@dataclass(frozen=True, slots=True)
class Rows:
    """What was read of one chunk."""

    events: pa.Table
    """user_id, item_id, rating, timestamp and part (uint8), in the order of the file."""
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    """Rows that are not among the events, by reason."""
    example: str | None = None
    """The first bad row: where it is and what it holds."""
    time_unit: str | None = None
    """What the numbers of the time column were told to be in; None where nothing had to be told."""

    def without(self, bad: int, example: str) -> Rows:
        """The same with so many more rows that could not be read."""
        left_out = self.left_out | {BAD_ROWS: self.left_out.get(BAD_ROWS, 0) + bad}
        return dataclasses.replace(self, left_out=left_out, example=self.example or example)


USER_ONLY = 128
"""Value of ``part`` in a row without an item: the user is in the data, but this row is no interaction."""


class Source(Protocol):
    """Raw data, in chunks that can be read anywhere. Picklable; opening one reads nothing."""

    @property
    def settings(self) -> DataSettings: ...

    def chunks(self) -> list[Chunk]:
        """All pieces, in the order that decides between interactions at the same time."""
        ...

    def read(self, chunk: Chunk) -> Rows:
        """The events of one chunk.

        Raises:
            DataError: one line naming the file, the column and about which row.
        """
        ...

    def items(self) -> pa.Table | None:
        """The catalogue (``schema.items``, then extras), in any order; None when the source has none."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What changes when the data changes, without reading it."""
        ...

    def estimated_rows(self) -> int: ...


@runtime_checkable
class Tells(Protocol):
    """A source that has something to say of its files."""

    def notes(self) -> list[str]:
        """A line each."""
        ...


def notes_of(source: Source) -> list[str]:
    """What the source has to say that stands inside others."""
    inner: Any = source
    while (next_inner := getattr(inner, "source", None)) is not None:
        inner = next_inner
    return inner.notes() if isinstance(inner, Tells) else []


def interactions(
    user_ids: pa.Array,
    item_ids: pa.Array,
    ratings: pa.Array | None = None,
    timestamps: pa.Array | None = None,
    parts: pa.Array | int = schema.TRAIN,
) -> pa.Table:
    """The events that a ``read`` returns; rating 1 and timestamp 0 where the source has none."""
    rows = len(user_ids)
    columns = [
        user_ids,
        item_ids,
        pa.array(np.ones(rows, np.float32)) if ratings is None else ratings,
        pa.array(np.zeros(rows, np.int64)) if timestamps is None else timestamps,
        pa.array(np.full(rows, parts, np.uint8)) if isinstance(parts, int) else parts,
    ]
    names = [*schema.interactions(user_ids.type, item_ids.type).names, "part"]
    return pa.Table.from_arrays(columns, names=names)


def only_users(user_ids: pa.Array, item_type: pa.DataType) -> pa.Table:
    """Rows that say of each of these users no more than that there is one."""
    nobody = pa.nulls(len(user_ids), item_type)
    none = pa.array(np.zeros(len(user_ids), np.float32))
    return interactions(user_ids, nobody, none, parts=USER_ONLY)


def catalogue(item_ids: pa.Array, columns: dict[str, Any], extras: Sequence[tuple[str, pa.Array]] = ()) -> pa.Table:
    """``schema.items`` with null where ``columns`` says nothing, then the extras."""
    wanted = schema.items(item_ids.type)
    arrays = [item_ids]
    for field in list(wanted)[1:]:
        found = columns.get(field.name)
        arrays.append(pa.nulls(len(item_ids), field.type) if found is None else found.cast(field.type))
    table = pa.Table.from_arrays(arrays, schema=wanted)
    for name, array in extras:
        table = table.append_column(name, array)
    return table


def split(text: pa.Array, separator: str) -> pa.Array:
    """Lists of the pieces, blanks around them and empty pieces removed; null and empty text give empty lists."""
    pieces = pc.split_pattern(pc.fill_null(text, ""), separator)
    parents, flat = pc.list_parent_indices(pieces), pc.utf8_trim_whitespace(pc.list_flatten(pieces))
    kept = pc.not_equal(flat, "")
    lengths = np.bincount(parents.filter(kept).to_numpy(zero_copy_only=False), minlength=len(text))
    return list_array(offsets(lengths), flat.filter(kept))
