"""A written table of recommendations as item rows by user and rank; E are its rows, or entries of all lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import ragged, schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.types import BoolArray, LongArray


def read_lists(table: pa.Table, user_ids: pa.Array, item_ids: pa.Array, width: int) -> tuple[LongArray, BoolArray]:
    """Item rows by user and rank, up to ``width`` ranks; and which users have any row at all."""
    _no_repeats(_rows_of(user_ids, user_ids, "user"), 1, user_ids, "the shard has it twice")
    rows_E, ranks_E, ids = _entries(table, user_ids, item_ids.type)
    items_E = _rows_of(ids, item_ids, "item")
    # One number for each (user, rank) and each (user, item): what is there twice is listed twice.
    most = int(ranks_E.max(initial=0)) + 1
    _no_repeats(rows_E * most + ranks_E, most, user_ids, "a rank occurs twice")
    _no_repeats(rows_E * len(item_ids) + items_E, len(item_ids), user_ids, "an item occurs twice")
    listed_B = np.zeros(len(user_ids), np.bool_)
    listed_B[rows_E] = True
    # From one row per entry to one row per user: rank r goes to column r - 1, ranks beyond the width are dropped.
    near = ranks_E <= width
    items_BK = np.full((len(user_ids), width), -1, np.int64)
    items_BK[rows_E[near], ranks_E[near] - 1] = items_E[near]
    return items_BK, listed_B


def _entries(table: pa.Table, user_ids: pa.Array, item_type: pa.DataType) -> tuple[LongArray, LongArray, pa.Array]:
    """(user row, rank, outside item id) of every recommendation in a table of either layout."""
    if "rank" in table.schema.names:
        schema.check(table, schema.recommendations(user_ids.type, item_type), "recommendations")
        rows_E = _rows_of(table.column("user_id"), user_ids, "user")
        ranks_E = pc.fill_null(table.column("rank"), 0).to_numpy().astype(np.int64)
        if ranks_E.min(initial=1) < 1:
            raise DataError(f"recommendations: rank {ranks_E.min()} (0: missing) found; ranks count from 1")
        return rows_E, ranks_E, table.column("item_id")
    schema.check(table, schema.nested_recommendations(user_ids.type, item_type), "recommendations")
    rows = _rows_of(table.column("user_id"), user_ids, "user")
    _no_repeats(rows, 1, user_ids, "two rows for one user")
    offsets, item_ids_E = ragged.of_list_array(table.column("item_ids"))
    lengths = np.diff(offsets)
    return np.repeat(rows, lengths), ragged.places_in_rows(lengths) + 1, item_ids_E


def _rows_of(ids: pa.Array | pa.ChunkedArray, known: pa.Array, what: str) -> LongArray:
    """The position of every id among the known ones."""
    positions = pc.index_in(ids, value_set=known)
    if positions.null_count:
        stranger = ids.filter(pc.is_null(positions))[0].as_py()
        place = "shard" if what == "user" else "catalogue"
        raise DataError(f"recommendations: {what} {stranger!r} is not in the {place}; evaluate a run on its own data")
    return np.asarray(positions, np.int64)


def _no_repeats(keys_E: LongArray, divisor: int, user_ids: pa.Array, problem: str) -> None:
    """DataError when a key occurs twice; ``key // divisor`` is the row of the user it belongs to."""
    ordered = np.sort(keys_E)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        user = user_ids[int(repeated[0]) // divisor].as_py()
        raise DataError(f"recommendations: user {user!r}: {problem}; write every user, rank and item once")
