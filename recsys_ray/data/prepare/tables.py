"""Chosen columns of Parquet, delimited text and JSON lines, in pieces that can be read anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.files import (
    Chunk,
    byte_ranges,
    expand,
    guarded_parquet,
    header,
    is_parquet,
    place,
    read_blocks,
    read_start,
)
from recsys_ray.data.prepare.text import TextFormat, is_json, parse_json_lines, parse_tolerant
from recsys_ray.data.prepare.values import Place

CHUNK_ROWS = 1_500_000


@dataclass(frozen=True, slots=True)
class TableRows:
    """The wanted columns of one chunk."""

    table: pa.Table
    where: Place
    untyped: bool
    """All columns are text, because the file declares no types."""
    bad: list[str] = field(default_factory=list)
    """Rows of another number of fields, which are not in the table."""


def table_chunks(file: Location, form: TextFormat, wanted: list[str], setting: str, part: int = 0) -> list[Chunk]:
    """The pieces of a file; ``setting`` is what names its columns.

    Raises:
        DataError: a wanted column is missing.
    """
    if is_json(file):
        return byte_ranges(file, part=part)
    if is_parquet(file):
        names, rows = guarded_parquet(file, _row_groups)
        _require(wanted, names, str(file), setting)
        return _packed(file, rows, part)
    names, first_byte = header(file, form.of(file))
    _require(wanted, names, str(file), setting)
    return byte_ranges(file, first_byte, part)


def read_table(chunk: Chunk, form: TextFormat, wanted: list[str], setting: str, *, lenient: bool = False) -> TableRows:
    """One piece.

    Raises:
        DataError: a wanted column is missing; a row has another number of fields, unless ``lenient``.
    """
    file = Location(chunk.path)
    if is_parquet(file):
        return TableRows(*_read_row_groups(chunk, wanted), untyped=False)
    if is_json(file):
        blocks = [parse_json_lines(block, chunk.path, wanted, setting=setting) for block in read_blocks(chunk)]
        return TableRows(pa.concat_tables(blocks, promote_options="permissive"), place(chunk), untyped=False)
    form = form.of(file)
    names, _ = header(file, form)
    _require(wanted, names, chunk.path, setting)
    tables, bad = [], []
    for block in read_blocks(chunk):
        table, skipped = parse_tolerant(block, names, form, chunk.path, wanted, lenient=lenient)
        tables.append(table)
        bad += skipped
    return TableRows(pa.concat_tables(tables), place(chunk), True, bad)


def column_names(path: str, setting: str, delimiter: str | None = None) -> list[str]:
    """Names of the columns of the first file under a path; ``setting`` names it in messages."""
    file = expand(path, setting=setting)[0]
    if is_parquet(file):
        return cast("list[str]", guarded_parquet(file, _row_groups)[0])
    if is_json(file):
        return sorted(json.loads(read_start(file).partition(b"\n")[0]))
    return header(file, TextFormat(delimiter).of(file))[0]


def num_rows(file: Location) -> int:
    """Of a Parquet file."""
    return int(guarded_parquet(file, lambda opened: pq.ParquetFile(opened).metadata.num_rows))


def _require(wanted: list[str], found: list[str], file: str, setting: str) -> None:
    for name in wanted:
        if name not in found:
            raise DataError(f"{file}: no column {name!r}; found {', '.join(found)}; set {setting}")


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


def _read_row_groups(chunk: Chunk, names: list[str]) -> tuple[pa.Table, Place]:
    def read(opened: Any) -> tuple[pa.Table, Place]:
        parquet = pq.ParquetFile(opened)
        before = sum(parquet.metadata.row_group(group).num_rows for group in range(chunk.start))
        groups = list(range(chunk.start, chunk.stop))
        table = parquet.read_row_groups(groups, columns=names, use_threads=False)
        return table, Place(chunk.path, before)

    table, where = guarded_parquet(Location(chunk.path), read)
    return table, where
