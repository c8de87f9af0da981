"""A catalogue of items from Parquet or delimited text."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
from pydantic import Field, model_validator

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.relative import beside
from recsys_ray.base.storage import Location
from recsys_ray.base.types import Settings
from recsys_ray.data.config import IdType, utc_milliseconds
from recsys_ray.data.prepare import values
from recsys_ray.data.prepare.files import guarded_parquet, header, is_parquet, open_parquet
from recsys_ray.data.prepare.guard import reading
from recsys_ray.data.prepare.listing import partition_values
from recsys_ray.data.prepare.packed import open_text
from recsys_ray.data.prepare.tables import with_partition
from recsys_ray.data.prepare.text import TextFormat, is_json, parse_json_lines, parse_whole, require
from recsys_ray.data.sources.base import catalogue, split

ISO_DATE = r"^[0-9]{4}-[0-9]{2}(-[0-9]{2}([T ].*)?)?$"
LAST_YEAR = 9999


class ItemColumns(Settings):
    """Which column of the catalogue is what. Further numeric columns are kept under their own names."""

    item_id: str = "item_id"
    """A different value in every row."""
    title: str | None = None
    """What people call it."""
    text: list[str] = Field(default_factory=list)
    """Columns joined, in this order, into the text that is embedded."""
    genres: str | None = None
    """A list column, or one text split at genre_separator."""
    year: str | None = None
    """Whole years, or dates, of which the year is taken."""
    poster: str | None = None
    """Path or URL of an image; a relative path starts at the catalogue."""
    keep: list[str] = Field(default_factory=list)
    """Text columns that are kept under their own names, for recommend.context.where."""
    available_from: str | None = None
    """Date or time (ISO, UTC) from which an item may be recommended; an empty cell is always."""
    available_until: str | None = None
    """Last date, that day included, or the time at which it no longer may; an empty cell is never."""

    @property
    def names(self) -> list[str]:
        single = (self.item_id, self.title, self.genres, self.year, self.poster)
        moments = (self.available_from, self.available_until)
        named = [*(name for name in (*single, *moments) if name is not None), *self.text, *self.keep]
        return list(dict.fromkeys(named))

    @model_validator(mode="after")
    def _are_different(self) -> ItemColumns:
        for setting, names in (("text", self.text), ("keep", self.keep)):
            if len(set(names)) < len(names):
                raise ValueError(f"{setting} names a column twice: {', '.join(names)}")
        return self


def read_catalogue(
    files: Sequence[Location], columns: ItemColumns, genre_separator: str, id_type: IdType, form: TextFormat
) -> pa.Table:
    """All files as one item table; extras must be in every file.

    Raises:
        DataError: a column is missing or of the wrong type, files differ, or there is no row.
    """
    tables = [_read_file(file, columns, genre_separator, id_type, form) for file in files]
    for file, table in zip(files, tables, strict=True):
        if table.schema != tables[0].schema:
            raise DataError(f"{file}: columns differ from those of {files[0]}: {_difference(table, tables[0])}")
    table = pa.concat_tables(tables).combine_chunks()
    if table.num_rows == 0:
        raise DataError(f"{files[0]}: the catalogue has no rows; set data.items")
    return table


def _difference(table: pa.Table, first: pa.Table) -> str:
    here, there = set(map(str, table.schema)), set(map(str, first.schema))
    return f"{sorted(here - there)} instead of {sorted(there - here)}"


def _read_file(
    file: Location, columns: ItemColumns, genre_separator: str, id_type: IdType, form: TextFormat
) -> pa.Table:
    with reading(str(file)):
        if parquet := is_parquet(file):
            raw = guarded_parquet(file, lambda opened: open_parquet(opened).read(use_threads=False))
        elif is_json(file):
            raw = _read_json(file, columns)
        else:
            raw = _read_text(file, columns, form.of(file))
        typed = parquet or is_json(file)
        raw = with_partition(raw, columns.names, file, text=not typed)
        items = to_catalogue(raw, columns, genre_separator, id_type, str(file), text=not typed)
    return items.set_column(items.schema.get_field_index("poster"), "poster", _beside(items.column("poster"), file))


def _beside(posters: pa.ChunkedArray, file: Location) -> pa.Array:
    """Relative poster paths start at the catalogue."""
    found = [None if poster is None else beside(file, poster) for poster in posters.to_pylist()]
    return pa.array(found, pa.string())


def to_catalogue(
    raw: pa.Table, columns: ItemColumns, genre_separator: str, id_type: IdType, where: str, *, text: bool
) -> pa.Table:
    """The item table in a table that has these columns; ``where`` names it in messages, ``text`` says that it was read
    from a file that declares no types.

    Raises:
        DataError: a column is missing, there twice, or of the wrong type.
    """
    numbers = [field.name for field in raw.schema if _is_number(field.type)]
    require(columns.names, raw.column_names, where, "data.item_columns")
    require(numbers, raw.column_names, where, "data.item_columns")
    item_ids = values.ids(raw.column(columns.item_id), id_type, columns.item_id, values.Place(where), text=text)
    found_columns = {
        "title": _text(raw, columns.title, where),
        "text": _joined([_text(raw, name, where) for name in columns.text]),
        "genres": None if columns.genres is None else _genres(raw.column(columns.genres), genre_separator, where),
        "year": None if columns.year is None else _year(raw.column(columns.year), columns.year, where),
        "poster": _text(raw, columns.poster, where),
    }
    return catalogue(item_ids, found_columns, [*_extras(raw, columns, where), *_availability(raw, columns, where)])


def _read_json(file: Location, columns: ItemColumns) -> pa.Table:
    """Fields that are named, all rows."""
    inside = [name for name in dict.fromkeys(columns.names) if name not in partition_values(file.url)]
    with open_text(file) as opened:
        return parse_json_lines(opened.read(), str(file), inside, setting="data.item_columns")


def _read_text(file: Location, columns: ItemColumns, form: TextFormat) -> pa.Table:
    names, first_byte = header(file, form)
    typed = {name: pa.string() for name in columns.names if name in names}
    with open_text(file) as opened:
        data = opened.read()[first_byte:]
    if not data.strip():
        raise DataError(f"{file}: the catalogue has no rows; set data.items")
    options = pc_csv.ConvertOptions(column_types=typed, strings_can_be_null=True, null_values=[""])
    return parse_whole(data, names, form, str(file), options)


def _text(raw: pa.Table, name: str | None, file: str) -> pa.Array | None:
    if name is None:
        return None
    try:
        array = values.plain(raw.column(name)).cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{file}: column {name!r} can't be read as text: {raw.column(name).type}") from error
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)


def _joined(arrays: Sequence[Any]) -> pa.Array | None:
    if not arrays:
        return None
    # The empty first piece keeps a row of nulls a row: without it, Arrow leaves such rows out.
    text = pc.utf8_ltrim_whitespace(pc.binary_join_element_wise("", *arrays, " ", null_handling="skip"))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _genres(column: pa.ChunkedArray, separator: str, file: str) -> pa.Array:
    array = values.plain(column)
    if pa.types.is_null(array.type):
        array = array.cast(pa.string())
    if pa.types.is_string(array.type):
        return split(array, separator)
    try:
        lists = array.cast(pa.list_(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{file}: genres must be text or a list of texts, found {array.type}") from error
    return pc.coalesce(lists, pa.scalar([], pa.list_(pa.string())))


def _year(column: pa.ChunkedArray, name: str, file: str) -> pa.Array:
    """Whole years, or the years of dates."""
    array = values.plain(column)
    if pa.types.is_date(array.type) or pa.types.is_timestamp(array.type):
        return pc.year(array).cast(pa.int32())
    found = array
    if pa.types.is_string(array.type):
        text = values.trimmed(array)
        found = values.numbers_of(
            pc.if_else(pc.match_substring_regex(text, ISO_DATE), pc.utf8_slice_codeunits(text, 0, 4), text)
        )
    elif not (_is_number(array.type) or pa.types.is_null(array.type)):
        raise DataError(f"{file}: column {name!r} must hold whole years, found {array.type}")
    numbers = found.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
    empty = pc.is_null(array).to_numpy(zero_copy_only=False)
    if pa.types.is_string(array.type):
        empty |= pc.fill_null(pc.equal(text, ""), True).to_numpy(zero_copy_only=False)
    elif pa.types.is_floating(array.type):
        empty |= np.isnan(numbers)
    bad = ~empty & ~((np.abs(numbers) <= LAST_YEAR) & (numbers == np.rint(numbers)))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{file}: column {name!r}, row {row + 1:,}: {array[row].as_py()!r} is not a year")
    return pa.array(np.where(empty, 0, numbers).astype(np.int32), mask=empty)


def _extras(raw: pa.Table, columns: ItemColumns, where: str) -> list[tuple[str, pa.Array]]:
    """The texts to keep, and numbers that are nothing else; one whose name is taken gets ``_given`` behind it."""
    taken = {*schema.items(pa.int64()).names, "count", *schema.AVAILABILITY}
    extras = []
    for field in raw.schema:
        numeric = _is_number(field.type)
        name = f"{field.name}_given" if field.name in taken else field.name
        if field.name in columns.keep:
            extras.append((name, _text(raw, field.name, where)))
        elif numeric and field.name not in columns.names:
            extras.append((name, raw.column(field.name).combine_chunks()))
    return extras


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _availability(raw: pa.Table, columns: ItemColumns, where: str) -> list[tuple[str, pa.Array]]:
    """``schema.AVAILABILITY``, as far as the catalogue has them."""
    given = zip(schema.AVAILABILITY, (columns.available_from, columns.available_until), strict=True)
    return [(name, _moments(raw.column(column), column, where, name)) for name, column in given if column is not None]


def _moments(column: pa.ChunkedArray, name: str, where: str, meaning: str) -> pa.Array:
    """UTC milliseconds; a day that is the last one is its end."""
    array, wanted = values.plain(column), pa.timestamp("ms", "UTC")
    last = datetime.timedelta(days=1 if meaning == "available_until" else 0)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), wanted)
    if pa.types.is_date(array.type):
        return pc.add(array.cast(pa.timestamp("ms")), pa.scalar(last, pa.duration("ms"))).cast(wanted)
    if pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp("ms", array.type.tz), safe=False).cast(wanted)
    if not pa.types.is_string(array.type):
        raise DataError(f"{where}: column {name!r} must hold dates such as 2026-11-30, found {array.type}")
    found: list[int | None] = []
    for row, text in enumerate(array.to_pylist()):
        try:
            day = 0 if text is None or len(text.strip()) > len("2026-11-30") else int(last.total_seconds()) * 1000
            found.append(utc_milliseconds(text.strip()) + day if text else None)
        except ValueError as error:
            problem = f"{text!r} is not a date such as 2026-11-30"
            raise DataError(f"{where}: column {name!r}, row {row + 1:,}: {problem}") from error
    return pa.array(found, pa.int64()).cast(wanted)
