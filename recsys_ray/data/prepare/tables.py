"""Chosen columns of Parquet, delimited text and JSON lines, in pieces that can be read anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa

from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.files import (
    Chunk,
    byte_ranges,
    guarded_parquet,
    header,
    is_parquet,
    open_parquet,
    place,
    read_blocks,
    read_start,
)
from recsys_ray.data.prepare.guard import reading
from recsys_ray.data.prepare.listing import expand, partition_values
from recsys_ray.data.prepare.text import TextFormat, is_json, parse_json_lines, parse_tolerant, require
from recsys_ray.data.prepare.values import INTEGER, Place

CHUNK_ROWS = 1_500_000
MOST_DIGITS = 19
"""Digits from which a number may be no int64."""


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
        DataError: a wanted column is missing, or there twice.
    """
    if is_json(file):
        return byte_ranges(file, part=part)
    if is_parquet(file):
        names, rows = guarded_parquet(file, _row_groups)
        _in_file(wanted, names, file, setting)
        return _packed(file, rows, part)
    names, first_byte = header(file, form.of(file))
    _in_file(wanted, names, file, setting)
    return byte_ranges(file, first_byte, part)


def read_table(chunk: Chunk, form: TextFormat, wanted: list[str], setting: str, *, lenient: bool = False) -> TableRows:
    """One piece. Columns that the file lacks may be in its path, as ``key=value``.

    Raises:
        DataError: a wanted column is missing, or there twice; a row has another number of fields, unless ``lenient``.
    """
    file = Location(chunk.path)
    if is_parquet(file):
        names, _ = guarded_parquet(file, _row_groups)
        table, where = _read_row_groups(chunk, _in_file(wanted, names, file, setting))
        return TableRows(with_partition(table, wanted, file), where, untyped=False)
    if is_json(file):
        inside = [name for name in wanted if name not in partition_values(file.url)]
        blocks = [parse_json_lines(block, chunk.path, inside, setting=setting) for block in read_blocks(chunk)]
        table = pa.concat_tables(blocks, promote_options="permissive") if blocks else parse_json_lines(b"", "", inside)
        return TableRows(with_partition(table, wanted, file), place(chunk), untyped=False)
    form = form.of(file)
    names, _ = header(file, form)
    inside = _in_file(wanted, names, file, setting)
    tables, bad = [pa.table({name: pa.array([], pa.string()) for name in inside})], []
    for block in read_blocks(chunk):
        table, skipped = parse_tolerant(block, names, form, chunk.path, inside, lenient=lenient)
        tables.append(table)
        bad += skipped
    return TableRows(with_partition(pa.concat_tables(tables), wanted, file, text=True), place(chunk), True, bad)


def _in_file(wanted: list[str], names: list[str], file: Location, setting: str) -> list[str]:
    """The wanted columns that are in the file itself; the others are in its path."""
    above = partition_values(file.url)
    require(wanted, [*names, *(name for name in above if name not in names)], str(file), setting)
    return [name for name in wanted if name in names]


def with_partition(table: pa.Table, wanted: Sequence[str], file: Location, *, text: bool = False) -> pa.Table:
    """The table with those wanted columns that its path gives: as ``text``, or as an integer where it is one."""
    for name, value in partition_values(file.url).items():
        if name in wanted and name not in table.column_names:
            number = not text and value is not None and re.fullmatch(INTEGER, value) and len(value) < MOST_DIGITS
            column = pa.scalar(int(value or 0)) if number else pa.scalar(value, pa.string())
            table = table.append_column(name, pa.repeat(column, table.num_rows))
    return table


def column_names(path: str, setting: str, delimiter: str | None = None) -> list[str]:
    """Names of the columns of the first file under a path; ``setting`` names it in messages."""
    file = expand(path, setting=setting)[0]
    with reading(str(file)):
        if is_parquet(file):
            names = cast("list[str]", guarded_parquet(file, _row_groups)[0])
        elif is_json(file):
            names = sorted(json.loads(read_start(file).partition(b"\n")[0]))
        else:
            names = header(file, TextFormat(delimiter).of(file))[0]
    return [*names, *(name for name in partition_values(file.url) if name not in names)]


def num_rows(file: Location) -> int:
    """Of a Parquet file."""
    return int(guarded_parquet(file, lambda opened: open_parquet(opened).metadata.num_rows))


def _row_groups(opened: Any) -> tuple[list[str], list[int]]:
    parquet = open_parquet(opened)
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
        parquet = open_parquet(opened)
        before = sum(parquet.metadata.row_group(group).num_rows for group in range(chunk.start))
        groups = list(range(chunk.start, chunk.stop))
        table = parquet.read_row_groups(groups, columns=names, use_threads=False)
        return table, Place(chunk.path, before)

    table, where = guarded_parquet(Location(chunk.path), read)
    return table, where
