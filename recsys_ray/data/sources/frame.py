"""Interactions and catalogue that are in memory already, as Arrow tables: the source of a ``recsys_ray.Dataset``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from recsys_ray.base.errors import DataError
from recsys_ray.data.prepare import values
from recsys_ray.data.prepare.files import Chunk
from recsys_ray.data.sources.base import Rows
from recsys_ray.data.sources.catalogue import to_catalogue
from recsys_ray.data.sources.columns import ColumnSettings, to_interactions
from recsys_ray.data.sources.users import to_users

CHUNK_ROWS = 1_500_000


class FrameSettings(ColumnSettings):
    """A table that is handed over, not named by a path."""

    source: Literal["frame"] = "frame"


@dataclass(frozen=True)
class FrameSource:
    """E rows of interactions, I of the catalogue when there is one, U of users when they are given."""

    settings: FrameSettings
    events: pa.Table
    catalogue: pa.Table | None = None
    users: pa.Table | None = None

    def __post_init__(self) -> None:
        wanted = [("interactions", self.events, self.settings.columns.names, "columns")]
        if self.catalogue is not None:
            wanted.append(("items", self.catalogue, self.settings.item_columns.names, "item_columns"))
        if self.users is not None:
            wanted.append(("users", self.users, self.settings.user_columns.names, "user_columns"))
        for what, table, names, setting in wanted:
            for name in names:
                if name not in table.column_names:
                    found = ", ".join(table.column_names) or "none"
                    raise DataError(f"{what}: no column {name!r}; found {found}; name yours with {setting}=")
                if table.column_names.count(name) > 1:
                    raise DataError(f"{what}: several columns are called {name!r}; rename all but one")

    def chunks(self) -> list[Chunk]:
        rows = self.events.num_rows
        starts = range(0, rows, CHUNK_ROWS)
        return [Chunk("interactions", start, min(start + CHUNK_ROWS, rows)) for start in starts]

    def read(self, chunk: Chunk) -> Rows:
        rows = self.events.slice(chunk.start, chunk.stop - chunk.start)
        return to_interactions(rows, self.settings, values.Place(chunk.path, chunk.start), text=False)

    def items(self) -> pa.Table | None:
        if self.catalogue is None:
            return None
        if not self.catalogue.num_rows:
            raise DataError("items: the catalogue has no rows; leave items= out, or give one with rows")
        settings = self.settings
        return to_catalogue(
            self.catalogue, settings.item_columns, settings.genre_separator, settings.id_type, "items", text=False
        ).combine_chunks()

    def user_chunks(self) -> list[Chunk]:
        rows = 0 if self.users is None else self.users.num_rows
        return [Chunk("users", start, min(start + CHUNK_ROWS, rows)) for start in range(0, rows, CHUNK_ROWS)]

    def read_users(self, chunk: Chunk) -> pa.Table:
        assert self.users is not None  # or there would be no chunk
        rows = self.users.slice(chunk.start, chunk.stop - chunk.start)
        where = values.Place(chunk.path, chunk.start)
        return to_users(rows, self.settings.user_columns, self.settings.id_type, where, text=False)

    def fingerprint(self) -> dict[str, Any]:
        return {"rows": self.events.num_rows}

    def estimated_rows(self) -> int:
        return int(self.events.num_rows)
