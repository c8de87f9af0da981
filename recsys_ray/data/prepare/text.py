"""Rows of delimited text and of JSON lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.json as pa_json

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.guard import FOREIGN, said
from recsys_ray.data.prepare.packed import unpacked_name

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TAB_SUFFIXES = (".tsv", ".tab")
JSON_SAMPLE_LINES = 1000
MOST_NAMED = 20
"""Columns that a message lists."""
CARRIAGE_RETURN = re.compile(rb"\r(?!\n|$)")


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
    over_lines: bool = False
    """Whether a quoted field that runs over lines is surely meant."""

    def of(self, file: Location) -> TextFormat:
        """With nothing left to the name of the file."""
        delimiter = self.delimiter or ("\t" if unpacked_name(file.name).endswith(TAB_SUFFIXES) else ",")
        quotes = delimiter != "\t" if self.quotes is None else self.quotes
        return replace(self, delimiter=delimiter, quotes=quotes, over_lines=self.quotes is True)


def is_json(file: Location) -> bool:
    return unpacked_name(file.name).endswith(JSON_SUFFIXES)


def split_header(line: bytes, form: TextFormat, where: str) -> list[str]:
    """The names in a header line."""
    encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
    try:
        text = line.decode(encoding).rstrip("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: the header is not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    quoting: Any = csv.QUOTE_NONE if form.quotes is False else csv.QUOTE_MINIMAL
    try:
        return next(csv.reader([text], delimiter=form.delimiter or ",", quoting=quoting, strict=True), [])
    except csv.Error as error:
        raise DataError(f"{where}: the header {text[:60]!r} can't be read ({error}); set data.quotes=false") from error


def require(wanted: Sequence[str], found: Sequence[str], where: str, setting: str) -> None:
    """DataError unless every wanted column is there, once; ``setting`` is what names them."""
    for name in wanted:
        if name not in found:
            more = f" and {len(found) - MOST_NAMED:,} more" if len(found) > MOST_NAMED else ""
            names = ", ".join(found[:MOST_NAMED]) or "none"
            raise DataError(f"{where}: no column {name!r}; found {names}{more}; set {setting}")
        if (times := list(found).count(name)) > 1:
            raise DataError(f"{where}: {times} columns are called {name!r}; rename all but one")


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
    texts = pc_csv.ConvertOptions(
        include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
    )
    return _parse(data, names, form, where, texts, lenient)


def parse_whole(
    data: bytes, names: Sequence[str], form: TextFormat, where: str, convert: pc_csv.ConvertOptions
) -> pa.Table:
    """All rows of a whole file, in which a quoted field may hold line ends.

    Raises:
        DataError: as ``parse_delimited``; also where lines inside a quoted field are whole rows by themselves, unless
            ``form.over_lines``.
    """
    return _parse(data, names, form, where, convert, over_lines=True)[0]


def _parse(
    data: bytes,
    names: Sequence[str],
    form: TextFormat,
    where: str,
    convert: pc_csv.ConvertOptions,
    lenient: bool = False,
    over_lines: bool = False,
) -> tuple[pa.Table, list[str]]:
    delimiter, bad = form.delimiter or ",", list[str]()
    if form.encoding != "utf-8":
        data = data.decode(form.encoding).encode()

    def skip(row: Any) -> str:
        bad.append(f"{row.actual_columns} fields instead of {row.expected_columns}: {row.text[:60]!r}")
        return "skip"

    # Behind the last line stands one of ours: where that is swallowed, a quote was never closed.
    ours = delimiter.encode() * (len(names) - 1) or b"0"
    closed = data + (b"" if not data or data.endswith(b"\n") else b"\n") + ours
    try:
        table = pc_csv.read_csv(
            pa.BufferReader(closed),
            read_options=pc_csv.ReadOptions(
                column_names=list(names), use_threads=False, block_size=min(len(closed) + 1, 2**31 - 1)
            ),
            parse_options=pc_csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if form.quotes else False,
                escape_char=form.escape or False,
                newlines_in_values=over_lines,
                invalid_row_handler=skip if lenient and is_utf8(data) else None,  # Arrow shows it text alone
            ),
            convert_options=convert,
        ).combine_chunks()
    except FOREIGN as error:
        cure = "; set data.encoding, or save the file as UTF-8" if "UTF8" in str(error) else ""
        raise DataError(f"{where}: {said(error)}{cure}") from error
    rows, line_ends = table.num_rows - 1 + len(bad), closed.count(b"\n")
    if rows != line_ends or (form.quotes and CARRIAGE_RETURN.search(data)):
        lines = [line for line in data.split(b"\n") if line.strip(b"\r")]
        _look_closer(lines, rows, len(names), form, where, over_lines)
    return table.slice(0, table.num_rows - 1), bad


def is_utf8(data: bytes) -> bool:
    try:
        pa.array([data], pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _look_closer(lines: list[bytes], rows: int, fields: int, form: TextFormat, where: str, over_lines: bool) -> None:
    """DataError unless every row is a line, or may be several and is no more than one row by any reading."""
    spans, is_open = _rows_by_quotes(lines, form) if form.quotes else ([], False)
    delimiter = (form.delimiter or ",").encode()
    for first, stop in spans:
        text = f"{lines[first][:60].decode('utf-8', 'replace')!r}"
        if is_open and stop == len(lines):
            raise DataError(f"{where}: a quote is never closed in {text}; set data.quotes=false")
        if not over_lines:
            raise DataError(f"{where}: a quoted field runs over the end of its line: {text}; set data.quotes=false")
        *inner, last = (line.count(delimiter) for line in lines[first:stop])
        if not form.over_lines and last >= fields - 1 and set(inner) == {fields - 1}:
            raise DataError(
                f"{where}: a quoted field runs over lines that may be rows of their own: {text}; set data.quotes to "
                "true where that is meant, to false where the quote is a character"
            )
    if rows != len(lines) - sum(stop - first - 1 for first, stop in spans):
        what = "a line holds a carriage return" if any(CARRIAGE_RETURN.search(line) for line in lines) else "odd quotes"
        raise DataError(f"{where}: {len(lines):,} lines hold {rows:,} rows ({what}); set data.quotes, or mend the file")


def _rows_by_quotes(lines: list[bytes], form: TextFormat) -> tuple[list[tuple[int, int]], bool]:
    """The rows that run over several lines, as first line and the one behind the last; whether the last stays open."""
    escape = re.escape((form.escape or "").encode())
    inner = rb'(?:[^"' + escape + rb']++|""' + (rb"|" + escape + rb"." if escape else b"") + rb")*+"
    body, delimiter = re.compile(inner, re.DOTALL), (form.delimiter or ",").encode()
    spans, inside, first = [], False, 0
    for number, line in enumerate(lines):
        if not inside:
            first = number
            if b'"' not in line:
                continue
        was_inside, inside = inside, _ends_inside(line, inside, body, delimiter)
        if was_inside and not inside:
            spans.append((first, number + 1))
    return (spans, False) if not inside else ([*spans, (first, len(lines))], True)


def _ends_inside(line: bytes, inside: bool, body: re.Pattern[bytes], delimiter: bytes) -> bool:
    """Whether a line ends inside quotes, if it begins inside or outside of them."""
    at = 0
    while True:
        if inside or line.startswith(b'"', at):
            found = body.match(line, at if inside else at + 1)
            end = found.end() if found else len(line)
            if end >= len(line):
                return True
            at, inside = end + 1, False
        at = line.find(delimiter, at) + 1
        if at == 0:
            return False


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
        table = pa_json.read_json(
            pa.BufferReader(data),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore"),
        ).combine_chunks()
    except FOREIGN as error:
        raise DataError(f"{where}: {said(error)}") from error
    lines = sum(1 for line in data.split(b"\n") if line.strip())
    if table.num_rows != lines:
        raise DataError(f"{where}: {lines:,} lines hold {table.num_rows:,} objects; write one a line")
    return table


def _sample(data: bytes, where: str, columns: Sequence[str], setting: str) -> dict[str, pa.DataType]:
    """Types of the columns in the first lines."""
    found: dict[str, list[Any]] = {name: [] for name in columns}
    keys: set[str] = set()
    for line in data.split(b"\n", JSON_SAMPLE_LINES)[:JSON_SAMPLE_LINES]:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
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
    except FOREIGN as error:
        raise DataError(f"{where}: a field holds values of several types ({said(error)})") from error
