"""Lists of items in files: what may be recommended, and what may not."""

from __future__ import annotations

import pyarrow as pa

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.files import MARK, is_parquet
from recsys_ray.data.prepare.guard import reading
from recsys_ray.data.prepare.packed import open_text
from recsys_ray.data.prepare.text import TextFormat, is_json, parse_delimited, parse_json_lines, require, split_header
from recsys_ray.data.prepare.values import plain

COLUMN = "item_id"


def read_item_list(path: str, what: str) -> pa.Array:
    """The ids in a file's column item_id (Parquet, delimited text with a header, JSON lines), or in a text file without
    one, a line each; as strings or int64. Text may be packed.

    Raises:
        StorageError: the file is not there. DataError: it has no such column, or no id.
    """
    location = Location.of(path)
    with reading(f"{what}: {path}"):
        found = _ids(location, f"{what}: {path}")
    if not len(found):
        raise DataError(f"{what}: {path} holds no item id")
    return found


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
    first, _, body = data.partition(b"\n")
    if COLUMN.encode() in first and COLUMN in (names := split_header(first, form, where)):
        require([COLUMN], names, where, f"its name to {COLUMN}")
        return plain(parse_delimited(body, names, form, where, [COLUMN]).column(COLUMN))
    lines = (line.strip() for line in data.decode("utf-8").split("\n"))
    return pa.array([line for line in lines if line], pa.string())
