"""Lines of ``user item item ...``, the layout that LightGCN files and sequence files share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings, IdType
from recsys_ray.data.prepare import values
from recsys_ray.data.prepare.files import (
    Chunk,
    byte_ranges,
    parse_token_lines,
    place,
    read_blocks,
    read_start,
    stamp,
)
from recsys_ray.data.sources.base import USER_ONLY, Rows, interactions

CHUNK_BYTES = 8 * 2**20
"""Smaller than for tables: a byte of such a line holds several times more interactions."""


def read_token_lines(chunk: Chunk, id_type: IdType) -> pa.Table:
    """One interaction per item of a line, in order; a user alone on a line becomes a ``USER_ONLY`` row."""
    tokens, lines = parse_token_lines(b"".join(read_blocks(chunk)), chunk.path)
    is_user = np.concatenate([np.ones(1, bool), lines[1:] != lines[:-1]]) if len(lines) else np.zeros(0, bool)
    where = place(chunk)
    users = values.ids(tokens.filter(pa.array(is_user)), id_type, "user", where, text=True)
    items = values.ids(tokens.filter(pa.array(~is_user)), id_type, "item", where, text=True)
    user_of_token = np.cumsum(is_user) - 1
    alone = is_user & np.concatenate([is_user[1:], np.ones(1, bool)]) if len(is_user) else is_user
    row_users = users.take(pa.array(user_of_token[~is_user]))
    lone_users = users.take(pa.array(user_of_token[alone]))
    parts = np.concatenate([np.full(len(items), chunk.part, np.uint8), np.full(len(lone_users), USER_ONLY, np.uint8)])
    return interactions(
        pa.concat_arrays([row_users, lone_users]),
        pa.concat_arrays([items, pa.nulls(len(lone_users), items.type)]),
        parts=pa.array(parts),
    )


@dataclass(frozen=True)
class TokenLinesSource:
    """Files of such lines, without a catalogue; a subclass says which."""

    settings: DataSettings

    def files(self) -> dict[Location, int]:
        """Every file, and the part that its interactions belong to."""
        raise NotImplementedError

    def chunks(self) -> list[Chunk]:
        ranges = [byte_ranges(file, part=part, size=CHUNK_BYTES) for file, part in self.files().items()]
        return [chunk for of_file in ranges for chunk in of_file]

    def read(self, chunk: Chunk) -> Rows:
        return Rows(read_token_lines(chunk, self.settings.id_type))

    def items(self) -> pa.Table | None:
        return None

    def fingerprint(self) -> dict[str, Any]:
        return {"files": [stamp(file) for file in self.files()]}

    def estimated_rows(self) -> int:
        """Interactions in all files, as if all were as dense as the start of the first."""
        files = list(self.files())
        sample = read_start(files[0])
        density = max(0, len(sample.split()) - sample.count(b"\n")) / max(1, len(sample))
        return max(1, round(sum(file.size() for file in files) * density))
