"""Lists of items in files: what may be recommended, and what may not."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.files import MARK, is_parquet
from recsys_ray.data.prepare.guard import reading
from recsys_ray.data.prepare.packed import open_text
from recsys_ray.data.prepare.text import TextFormat, is_json, parse_delimited, parse_json_lines, require, split_header
from recsys_ray.data.prepare.values import plain

COLUMN = "item_id"
DELIMITERS = ("\t", ",", ";")


def read_item_list(path: str, what: str) -> pa.Array:
    """The ids in a file's column item_id (Parquet, delimited text with a header, JSON lines), or in a text file without
    one, a line each; as strings or int64. Text may be packed. None is a list, too.

    Raises:
        StorageError: the file is not there. DataError: it has no such column, or is no such file.
    """
    location = Location.of(path)
    with reading(f"{what}: {path}"):
        return _ids(location, f"{what}: {path}").drop_null()


def _ids(file: Location, where: str) -> pa.Array:
    if is_parquet(file):
        table = file.read_parquet()
        require([COLUMN], table.schema.names, where, f"its name to {COLUMN}")
    else:
        with open_text(file) as opened:
            data = opened.read().removeprefix(MARK)
        if is_json(file):
            table = parse_json_lines(data, where, [COLUMN], setting=f"its name to {COLUMN}")
        else:
            return _of_text(data, TextFormat().of(file), where)
    return plain(table.column(COLUMN))


def _of_text(data: bytes, form: TextFormat, where: str) -> pa.Array:
    first, _, body = data.lstrip().partition(b"\n")
    delimiter = next((sign for sign in DELIMITERS if sign in first.decode()), form.delimiter)
    form = replace(form, delimiter=delimiter)
    names = split_header(first, form, where) if first.strip() else []
    if COLUMN in names:
        require([COLUMN], names, where, f"its name to {COLUMN}")
        if not body.strip():
            return pa.array([], pa.string())
        ids = pc.utf8_trim_whitespace(plain(parse_delimited(body, names, form, where, [COLUMN]).column(COLUMN)))
        return ids.filter(pc.not_equal(ids, ""))
    if len(names) > 1:
        require([COLUMN], names, where, f"its name to {COLUMN}")
    lines = (line.strip().strip('"') for line in data.decode("utf-8").split("\n"))
    return pa.array([line for line in lines if line], pa.string())
