"""The Arrow tables that cross a boundary: input, prepared data, bundle, output.

Outside ids (``user_id``, ``item_id``) are ``string`` or ``int64``, as given, and come back as given.
Inside, ``user`` and ``item`` are int32 row numbers. The two are never mixed.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from recsys_ray.base.errors import DataError

ID_TYPES = (pa.int64(), pa.string())

# What one row of a history was: the split it belongs to, and whether it may teach or only be filtered.
TRAIN, VALID, TEST, SHOWN = 0, 1, 2, 3
"""SHOWN: known when the user is asked about, but taught to no model that is evaluated."""
PART_MASK = 3
SEEN_ONLY = 4  # rated too low, outside the time window, ...: never trained on, never a target, always filtered as seen
PARTS = {"train": TRAIN, "valid": VALID, "test": TEST, "shown": SHOWN}

SOURCE_MODEL = "model"
FALLBACK = "fallback:"
"""What a source that is not the model begins with; its name follows."""

AVAILABILITY = ("available_from", "available_until")
"""Columns of an item table that may follow: from when, and until before when, an item may be recommended."""


def interactions(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """One event a row; ``rating`` is 1.0 for implicit data, ``timestamp`` is UTC milliseconds, 0 when unknown."""
    return pa.schema(
        [("user_id", user_type), ("item_id", item_type), ("rating", pa.float32()), ("timestamp", pa.int64())]
    )


def exposures(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """One answer of the service a row: who got it, when (UTC milliseconds), from which variant and run, and the leading
    items of its list. ``assigned`` is false where the caller chose another variant than the user's own."""
    return pa.schema(
        [
            ("user_id", user_type),
            ("timestamp", pa.int64()),
            ("variant", pa.string()),
            ("assigned", pa.bool_()),
            ("run_id", pa.string()),
            ("items", pa.list_(item_type)),
        ]
    )


def clicks(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """One item that a user opened a row; ``timestamp`` is UTC milliseconds. No interaction: no model learns from it."""
    return pa.schema([("user_id", user_type), ("item_id", item_type), ("timestamp", pa.int64())])


def items(item_type: pa.DataType) -> pa.Schema:
    """The leading columns of an item table; sources may add numbers, texts and ``AVAILABILITY`` behind them."""
    return pa.schema(
        [
            ("item_id", item_type),
            ("title", pa.string()),
            ("text", pa.string()),
            ("genres", pa.list_(pa.string())),
            ("year", pa.int32()),
            ("poster", pa.string()),
        ]
    )


def prepared_users(user_type: pa.DataType) -> pa.Schema:
    """A user a row; four parallel lists, oldest event first. ``parts`` holds a code of PARTS, plus SEEN_ONLY."""
    return pa.schema(
        [
            ("user_id", user_type),
            ("items", pa.list_(pa.int32())),
            ("ratings", pa.list_(pa.float32())),
            ("timestamps", pa.list_(pa.int64())),
            ("parts", pa.list_(pa.uint8())),
        ]
    )


def users(user_type: pa.DataType) -> pa.Schema:
    """A user a row, as the bundle keeps it: the history the model saw, and ``seen``, further items to filter."""
    return pa.schema(
        [
            ("user_id", user_type),
            ("items", pa.list_(pa.int32())),
            ("ratings", pa.list_(pa.float32())),
            ("timestamps", pa.list_(pa.int64())),
            ("seen", pa.list_(pa.int32())),
        ]
    )


def embeddings(item_type: pa.DataType, dims: Mapping[str, int]) -> pa.Schema:
    """An item a row; ``dims`` is the length of the vectors by column ("text", "image", "fused"), null where absent."""
    vectors = [(name, pa.list_(pa.float32(), dim)) for name, dim in dims.items()]
    return pa.schema([("item_id", item_type), ("content_hash", pa.string()), *vectors])


def recommendations(user_type: pa.DataType, item_type: pa.DataType, *, reasons: bool = False) -> pa.Schema:
    """The published table, long: ``rank`` counts from 1, ``source`` is "model" or "fallback:<name>", ``score`` never
    rises with the rank; with ``reasons`` a last column ``reason`` for people."""
    return pa.schema(
        [
            ("user_id", user_type),
            ("rank", pa.int32()),
            ("item_id", item_type),
            ("score", pa.float32()),
            ("source", pa.string()),
            *([("reason", pa.string())] if reasons else []),
        ]
    )


def nested_recommendations(user_type: pa.DataType, item_type: pa.DataType, *, reasons: bool = False) -> pa.Schema:
    """The published table, nested: a user a row, parallel lists in rank order."""
    return pa.schema(
        [
            ("user_id", user_type),
            ("item_ids", pa.list_(item_type)),
            ("scores", pa.list_(pa.float32())),
            ("sources", pa.list_(pa.string())),
            *([("reasons", pa.list_(pa.string()))] if reasons else []),
        ]
    )


def check(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """The table itself when its leading columns are exactly ``schema``; DataError naming the first that is not."""
    for position, field in enumerate(schema):
        if position >= len(table.schema) or table.schema.field(position).name != field.name:
            found = ", ".join(table.schema.names)
            raise DataError(f"{what}: column {position + 1} must be {field.name!r}; found columns: {found}")
        actual = table.schema.field(position).type
        if actual != field.type:
            raise DataError(f"{what}: column {field.name!r} must be {field.type}, found {actual}")
    return table
