"""Rows of delimited text and of JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.json as pa_json

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.packed import unpacked_name

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TAB_SUFFIXES = (".tsv", ".tab")
JSON_SAMPLE_LINES = 1000


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How the rows of a text file are written."""

    delimiter: str | None = None
    """None: a tab where the name says so, else a comma."""
    quotes: bool | None = None
    """Whether a field may stand in double quotes; None: unless fields are separated by tabs."""
    escape: str | None = None
    """What takes its meaning off a quote inside a quoted field, where that is not a second quote."""
    encoding: str = "utf-8"
    names: tuple[str, ...] | None = None
    """Of the columns, where the file has no header."""

    def of(self, file: Location) -> TextFormat:
        """With nothing left to the name of the file."""
        delimiter = self.delimiter or ("\t" if unpacked_name(file.name).endswith(TAB_SUFFIXES) else ",")
        quotes = delimiter != "\t" if self.quotes is None else self.quotes
        return TextFormat(delimiter, quotes, self.escape, self.encoding, self.names)


def is_json(file: Location) -> bool:
    return unpacked_name(file.name).endswith(JSON_SUFFIXES)


def split_header(line: bytes, form: TextFormat, where: str) -> list[str]:
    """The names in a header line."""
    try:
        text = line.decode("utf-8-sig" if form.encoding == "utf-8" else form.encoding).rstrip("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: the header is not UTF-8 text ({error.reason})") from error
    return next(csv.reader([text], delimiter=form.delimiter or ","))


def parse_delimited(
    data: bytes, names: Sequence[str], form: TextFormat, where: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """Rows of a delimited text, all columns as strings.

    Raises:
        DataError: rows of another number of fields, a quoted field that runs over the end of its line, or not text.
    """
    return parse_tolerant(data, names, form, where, columns, lenient=False)[0]


def parse_tolerant(
    data: bytes,
    names: Sequence[str],
    form: TextFormat,
    where: str,
    columns: Sequence[str] | None = None,
    *,
    lenient: bool = True,
) -> tuple[pa.Table, list[str]]:
    """``parse_delimited``; if ``lenient``, rows of another number of fields are left out, and returned as they were."""
    wanted = list(columns or names)
    if not data.strip():
        return pa.table({name: pa.array([], pa.string()) for name in wanted}), []
    if form.encoding != "utf-8":
        data = data.decode(form.encoding).encode()
    bad: list[str] = []

    def skip(row: Any) -> str:
        bad.append(f"{row.actual_columns} fields instead of {row.expected_columns}: {row.text[:60]!r}")
        return "skip" if lenient else "error"

    try:
        table = pc_csv.read_csv(
            pa.BufferReader(data),
            read_options=pc_csv.ReadOptions(column_names=list(names), use_threads=False, block_size=len(data) + 1),
            parse_options=pc_csv.ParseOptions(
                delimiter=form.delimiter or ",",
                quote_char='"' if form.quotes else False,
                escape_char=form.escape or False,
                invalid_row_handler=skip,
            ),
            convert_options=pc_csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
            ),
        ).combine_chunks()
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: {str(error).splitlines()[0]}") from error
    if form.quotes:
        _refuse_swallowed(data, table.num_rows + len(bad), form, where)
    return table, bad


def _refuse_swallowed(data: bytes, rows: int, form: TextFormat, where: str) -> None:
    """A row is a line: fewer rows than lines are lines inside a quoted field."""
    if data.count(b"\n") + (not data.endswith(b"\n")) == rows:
        return
    lines = [line for line in data.split(b"\n") if line.strip(b"\r")]
    if len(lines) == rows:
        return
    mark = (form.escape or "").encode() + b'"' if form.escape else None
    for line in lines:
        quotes = line.count(b'"') - (line.count(mark) if mark else 0)
        if quotes % 2:
            text = line[:60].decode("utf-8", "replace")
            raise DataError(f"{where}: a quoted field runs over the end of its line: {text!r}; set data.quotes=false")
    raise DataError(f"{where}: {len(lines):,} lines hold {rows:,} rows; set data.quotes=false")


def parse_json_lines(data: bytes, where: str, columns: Sequence[str], *, setting: str = "data.columns") -> pa.Table:
    """Rows of one JSON object a line; these of their fields, null where a line lacks one.

    Raises:
        DataError: not such lines, none of the first thousand has a column, or its type changes.
    """
    if data.lstrip()[:1] == b"[":
        raise DataError(f"{where}: holds one JSON array; write one object a line")
    if not data.strip():
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    fields = []
    for name, value in _sample(data, where, columns, setting).items():
        fields.append((name, pa.float64() if pa.types.is_integer(value) and name not in columns[:2] else value))
    try:
        return pa_json.read_json(
            pa.BufferReader(data),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore"),
        ).combine_chunks()
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: {str(error).splitlines()[0]}") from error


def _sample(data: bytes, where: str, columns: Sequence[str], setting: str) -> dict[str, pa.DataType]:
    """Types of the columns in the first lines."""
    found: dict[str, list[Any]] = {name: [] for name in columns}
    keys: set[str] = set()
    for line in data.split(b"\n", JSON_SAMPLE_LINES)[:JSON_SAMPLE_LINES]:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: {line[:60].decode('utf-8', 'replace')!r} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: {line[:60].decode('utf-8', 'replace')!r} is not a JSON object")
        keys |= row.keys()
        for name in columns:
            if row.get(name) is not None:
                found[name].append(row[name])
    for name, values in found.items():
        if not values:
            raise DataError(f"{where}: no field {name!r}; found {', '.join(sorted(keys))}; set {setting}")
    try:
        return {name: pa.array(values).type for name, values in found.items()}
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{where}: a field holds values of several types ({str(error).splitlines()[0]})") from error
