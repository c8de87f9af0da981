"""Lines of ``user item item ...``, the layout that LightGCN files and sequence files share."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from recsys_ray.data import values
from recsys_ray.data.common import IdType
from recsys_ray.data.files import Chunk, parse_token_lines, place, read_lines, read_start
from recsys_ray.data.sources.base import USER_ONLY, interactions
from recsys_ray.storage import Location

CHUNK_BYTES = 8 * 2**20
"""Smaller than for tables: a byte of such a line holds several times more interactions."""


def read_word_lines(chunk: Chunk, id_type: IdType) -> pa.Table:
    """One interaction per item of a line, in order; a user alone on a line becomes a ``USER_ONLY`` row."""
    words, lines = parse_token_lines(read_lines(chunk), chunk.path)
    is_user = np.concatenate([np.ones(1, bool), lines[1:] != lines[:-1]]) if len(lines) else np.zeros(0, bool)
    where = place(chunk)
    users = values.ids(words.filter(pa.array(is_user)), id_type, "user", where, text=True)
    items = values.ids(words.filter(pa.array(~is_user)), id_type, "item", where, text=True)
    user_of_word = np.cumsum(is_user) - 1
    alone = is_user & np.concatenate([is_user[1:], np.ones(1, bool)]) if len(is_user) else is_user
    row_users = users.take(pa.array(user_of_word[~is_user]))
    nobody = users.take(pa.array(user_of_word[alone]))
    parts = np.concatenate([np.full(len(items), chunk.part, np.uint8), np.full(len(nobody), USER_ONLY, np.uint8)])
    return interactions(
        pa.concat_arrays([row_users, nobody]),
        pa.concat_arrays([items, pa.nulls(len(nobody), items.type)]),
        parts=pa.array(parts),
    )


def estimated_interactions(files: list[Location]) -> int:
    """Interactions in all files, as if all were as dense as the start of the first."""
    sample = read_start(files[0])
    density = max(0, len(sample.split()) - sample.count(b"\n")) / max(1, len(sample))
    return max(1, round(sum(file.size() for file in files) * density))
