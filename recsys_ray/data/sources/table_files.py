"""Interactions and catalogue as Parquet or delimited text: a file, a directory, or a glob, local or a URL."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare import values
from recsys_ray.data.prepare.files import (
    Chunk,
    byte_ranges,
    estimated_lines,
    expand,
    guarded_parquet,
    header,
    is_parquet,
    place,
    read_blocks,
    read_start,
    stamp,
)
from recsys_ray.data.prepare.text import TextFormat, is_json, parse_json_lines, parse_tolerant
from recsys_ray.data.sources.base import Rows
from recsys_ray.data.sources.catalogue import read_catalogue
from recsys_ray.data.sources.columns import ColumnSettings, to_interactions

CHUNK_ROWS = 1_500_000


class TableSettings(ColumnSettings):
    """Parquet (.parquet), delimited text (.csv, .tsv) with a header line, or JSON lines (.jsonl, .json); text may be
    packed (.gz, .bz2, .xz, .zst, .zip), and is then read by one process."""

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
    quotes: bool | None = None
    """Whether a field of a text file may stand in double quotes; by default unless fields are separated by tabs."""
    escape: str | None = Field(default=None, min_length=1, max_length=1)
    """What stands before a double quote inside a quoted field, where that is not a second quote."""
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    """How characters are written in text files."""
    column_names: list[str] | None = None
    """Names of the columns of interactions in text files that have no header line."""
    items: str | None = None
    """Catalogue: file, directory or glob."""

    @property
    def gives_parts(self) -> bool:
        return self.train is not None and self.test is not None

    @property
    def text_format(self) -> TextFormat:
        """Of the interactions."""
        names = None if self.column_names is None else tuple(self.column_names)
        return TextFormat(self.delimiter, self.quotes, self.escape, self.encoding, names)

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

    def read(self, chunk: Chunk) -> Rows:
        settings, names = self.settings, self.settings.columns.names
        file = Location(chunk.path)
        if is_parquet(file):
            table, where = _read_row_groups(chunk, names)
            return to_interactions(table, settings, where, text=False, part=chunk.part)
        if is_json(file):
            table = pa.concat_tables(
                (parse_json_lines(block, chunk.path, names) for block in read_blocks(chunk)),
                promote_options="permissive",
            )
            return to_interactions(table, settings, place(chunk), text=False, part=chunk.part)
        table, bad = self._read_text(file, chunk)
        rows = to_interactions(table, settings, place(chunk), text=True, part=chunk.part)
        return rows.without(len(bad), f"{chunk.path}: {bad[0]}") if bad else rows

    def _read_text(self, file: Location, chunk: Chunk) -> tuple[pa.Table, list[str]]:
        """The columns that are read, as text, and rows of another number of fields."""
        form, wanted = self.settings.text_format.of(file), self.settings.columns.names
        names, _ = header(file, form)
        _require(wanted, names, chunk.path)
        lenient = self.settings.bad_rows == "drop"
        tables, bad = [], []
        for block in read_blocks(chunk):
            table, skipped = parse_tolerant(block, names, form, chunk.path, wanted, lenient=lenient)
            tables.append(table)
            bad += skipped
        return pa.concat_tables(tables), bad

    def items(self) -> pa.Table | None:
        settings = self.settings
        if settings.items is None:
            return None
        return read_catalogue(
            expand(settings.items, setting="items"),
            settings.item_columns,
            settings.genre_separator,
            settings.id_type,
            replace(settings.text_format, names=None),
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
            if is_json(file):
                return byte_ranges(file, part=part)
            names, first_byte = header(file, self.settings.text_format.of(file))
            _require(self.settings.columns.names, names, str(file))
            return byte_ranges(file, first_byte, part)
        names, rows = guarded_parquet(file, _row_groups)
        _require(self.settings.columns.names, names, str(file))
        return _packed(file, rows, part)


def column_names(path: str, setting: str, delimiter: str | None = None) -> list[str]:
    """Names of the columns of the first file under a path; ``setting`` names it in messages."""
    file = expand(path, setting=setting)[0]
    if is_parquet(file):
        return cast("list[str]", guarded_parquet(file, _row_groups)[0])
    if is_json(file):
        return sorted(json.loads(read_start(file).partition(b"\n")[0]))
    return header(file, TextFormat(delimiter).of(file))[0]


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
