"""Interactions and catalogue as Parquet or delimited text: a file, a directory, or a glob, local or a URL."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import Settings
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare import values
from recsys_ray.data.prepare.files import (
    Chunk,
    byte_ranges,
    estimated_lines,
    expand,
    guarded_parquet,
    header,
    is_parquet,
    parse_delimited,
    place,
    read_lines,
    stamp,
)
from recsys_ray.data.sources.base import interactions
from recsys_ray.data.sources.catalogue import ItemColumns, read_catalogue

CHUNK_ROWS = 1_500_000


class Columns(Settings):
    """Which column of the files is what."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    rating: str | None = None
    """Without it every interaction counts 1."""
    timestamp: str | None = None
    """Without it the order of the files is the order in time."""

    @property
    def names(self) -> list[str]:
        return [name for name in (self.user_id, self.item_id, self.rating, self.timestamp) if name is not None]


class ColumnSettings(DataSettings):
    """What the columns of interactions and catalogue are."""

    columns: Columns = Columns()
    timestamp_unit: Literal["auto", "s", "ms"] = "auto"
    """Unit of numeric timestamps; auto takes numbers below 10^11 as seconds."""
    item_columns: ItemColumns = ItemColumns()
    genre_separator: str = Field(default="|", min_length=1)
    """Splits genres that are written as one text."""


class TableSettings(ColumnSettings):
    """Parquet (.parquet) or delimited text (.csv, .tsv) with a header line."""

    source: Literal["table"]
    path: str | None = None
    """Interactions: file, directory or glob; local or any address fsspec knows."""
    train: str | None = None
    """Instead of path, for split.kind=given: the training interactions."""
    valid: str | None = None
    """Validation interactions, beside train."""
    test: str | None = None
    """Test interactions, beside train."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Field separator of text files; by default tab for .tsv and .tab, else a comma."""
    items: str | None = None
    """Catalogue: file, directory or glob."""

    @property
    def gives_parts(self) -> bool:
        return self.train is not None and self.test is not None

    @model_validator(mode="after")
    def _one_way_in(self) -> TableSettings:
        if (self.path is None) == (self.train is None):
            raise ValueError("set either path, or train and test (and valid)")
        if (self.valid or self.test) and self.train is None:
            raise ValueError("valid and test go with train, not with path")
        return self


@dataclass(frozen=True)
class TableSource:
    settings: TableSettings

    @cached_property
    def files(self) -> list[tuple[Location, int]]:
        """Every file with the part it belongs to, in reading order."""
        inputs = {"path": schema.TRAIN, "train": schema.TRAIN, "valid": schema.VALID, "test": schema.TEST}
        found = []
        for name, part in inputs.items():
            if (path := getattr(self.settings, name)) is not None:
                found += [(file, part) for file in expand(path, setting=name)]
        return found

    def chunks(self) -> list[Chunk]:
        return [chunk for file, part in self.files for chunk in self._file_chunks(file, part)]

    def read(self, chunk: Chunk) -> pa.Table:
        settings, columns = self.settings, self.settings.columns
        file = Location(chunk.path)
        if parquet := is_parquet(file):
            table, where = _read_row_groups(chunk, columns.names)
        else:
            delimiter = _delimiter(settings.delimiter, file)
            names, _ = header(file, delimiter)
            _require(columns.names, names, chunk.path)
            table = parse_delimited(read_lines(chunk), names, delimiter, chunk.path, columns=columns.names)
            where = place(chunk)
        return to_interactions(table, settings, where, text=not parquet, part=chunk.part)

    def items(self) -> pa.Table | None:
        settings = self.settings
        if settings.items is None:
            return None
        return read_catalogue(
            expand(settings.items, setting="items"),
            settings.item_columns,
            settings.genre_separator,
            settings.id_type,
            settings.delimiter,
        )

    def fingerprint(self) -> dict[str, Any]:
        files = [file for file, _ in self.files]
        if self.settings.items is not None:
            files += expand(self.settings.items, setting="items")
        return {"files": [stamp(file) for file in files]}

    def estimated_rows(self) -> int:
        files = [file for file, _ in self.files]
        text = [file for file in files if not is_parquet(file)]
        rows: int = sum(guarded_parquet(file, _num_rows) for file in files if is_parquet(file))
        return rows + (estimated_lines(text) if text else 0)

    def _file_chunks(self, file: Location, part: int) -> list[Chunk]:
        if not is_parquet(file):
            names, first_byte = header(file, _delimiter(self.settings.delimiter, file))
            _require(self.settings.columns.names, names, str(file))
            return byte_ranges(file, first_byte, part)
        names, rows = guarded_parquet(file, _row_groups)
        _require(self.settings.columns.names, names, str(file))
        return _packed(file, rows, part)


def column_names(path: str, setting: str, delimiter: str | None = None) -> list[str]:
    """Names of the columns of the first file under a path; ``setting`` names it in messages."""
    file = expand(path, setting=setting)[0]
    names: list[str] = (
        guarded_parquet(file, _row_groups)[0] if is_parquet(file) else header(file, _delimiter(delimiter, file))[0]
    )
    return names


def to_interactions(
    table: pa.Table, settings: ColumnSettings, where: values.Place, *, text: bool, part: int = schema.TRAIN
) -> pa.Table:
    """What ``Source.read`` gives, from a table that has the columns of the settings; ``text``: read from a file that
    declares no types.

    Raises:
        DataError: a column holds what it may not.
    """
    columns = settings.columns

    def ids(name: str) -> pa.Array:
        return values.ids(table.column(name), settings.id_type, name, where, text=text)

    rating, time = columns.rating, columns.timestamp
    return interactions(
        ids(columns.user_id),
        ids(columns.item_id),
        None if rating is None else values.ratings(table.column(rating), rating, where),
        None if time is None else values.timestamps(table.column(time), time, where, settings.timestamp_unit),
        part,
    )


def _delimiter(given: str | None, file: Location) -> str:
    return given or ("\t" if file.name.lower().endswith((".tsv", ".tab")) else ",")


def _require(wanted: list[str], found: list[str], file: str) -> None:
    for name in wanted:
        if name not in found:
            raise DataError(f"{file}: no column {name!r}; found {', '.join(found)}; set data.columns")


def _num_rows(opened: Any) -> int:
    return int(pq.ParquetFile(opened).metadata.num_rows)


def _row_groups(opened: Any) -> tuple[list[str], list[int]]:
    parquet = pq.ParquetFile(opened)
    rows = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
    return parquet.schema_arrow.names, rows


def _packed(file: Location, rows: list[int], part: int) -> list[Chunk]:
    """Neighbouring row groups together, as long as they stay below ``CHUNK_ROWS``."""
    chunks, start, total = [], 0, 0
    for group, count in enumerate(rows):
        if total and total + count > CHUNK_ROWS:
            chunks.append(Chunk(file.url, start, group, part))
            start, total = group, 0
        total += count
    return [*chunks, Chunk(file.url, start, len(rows), part)] if total else chunks


def _read_row_groups(chunk: Chunk, names: list[str]) -> tuple[pa.Table, values.Place]:
    def read(opened: Any) -> tuple[pa.Table, values.Place]:
        parquet = pq.ParquetFile(opened)
        before = sum(parquet.metadata.row_group(group).num_rows for group in range(chunk.start))
        groups = list(range(chunk.start, chunk.stop))
        table = parquet.read_row_groups(groups, columns=names, use_threads=False)
        return table, values.Place(chunk.path, before)

    table, where = guarded_parquet(Location(chunk.path), read)
    return table, where
