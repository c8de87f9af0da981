"""The start of every input, before anything is started: its names, its columns, its first rows.

What is wrong there is wrong a moment after the command was typed, and not after all that comes before was read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.files import Chunk, is_parquet
from recsys_ray.data.prepare.packed import is_packed
from recsys_ray.data.prepare.tables import column_names
from recsys_ray.data.sources import open_source
from recsys_ray.data.sources.base import Source
from recsys_ray.data.sources.table_files import TableSettings
from recsys_ray.data.sources.users import HasUsers

LOOK_BYTES = 2**16
"""Of a text file, what is read of it."""
SMALL_BYTES = 2**23
"""A catalogue, or a Parquet file, that is read whole: larger ones take longer than a look should."""


def look_at_inputs(settings: DataSettings) -> None:
    """Read the first rows of interactions, catalogue and users, where they are plain tables.

    Other sources are fetched or unpacked when they are opened, and made-up ones have no files.

    Raises:
        DataError, StorageError: what reading all of it would raise for these rows.
    """
    if not isinstance(settings, TableSettings):
        return
    source = open_source(settings.model_copy(update={"feedback": None}))
    _look(source.chunks(), source.read)
    if settings.items is not None:
        _look_at_items(settings.items, settings, source)
    if settings.users is not None and isinstance(source, HasUsers):
        _look(source.user_chunks(), source.read_users)


def _look(chunks: list[Chunk], read: Callable[[Chunk], Any]) -> None:
    """Read the start of the first chunk, where that can be had for little."""
    if not chunks or is_packed(Location(chunks[0].path).name):
        return
    first = chunks[0]
    if is_parquet(Location(first.path)):
        if Location(first.path).size() <= SMALL_BYTES:
            read(replace(first, stop=first.start + 1))
        return
    start = replace(first, stop=min(first.stop, first.start + LOOK_BYTES))
    try:
        read(start)
    except DataError:
        if start == first:
            raise
        read(first)  # a quoted line end may have been cut


def _look_at_items(path: str, settings: TableSettings, source: Source) -> None:
    file = Location.of(path)
    if any(sign in path for sign in "*?[") or file.names():
        return  # columns may be in the names of directories
    found = column_names(path, "items", settings.delimiter)
    for name in settings.item_columns.names:
        if name not in found:
            raise DataError(f"{path}: no column {name!r}; found {', '.join(found)}; set data.item_columns")
    if file.size() <= SMALL_BYTES:
        source.items()
