"""Tables whose directories hold more files than their rows: which files are the table now, by the table's own library.

Delta and Iceberg are read by deltalake and pyiceberg (extra ``lakes``). Rows that are deleted beside their file can't
be left out here, so such a table is refused, and so is one of Hudi.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from recsys_ray.base.errors import DataError, RecsysError
from recsys_ray.base.optional import require
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.guard import said

MARKS = {"_delta_log": "Delta", ".hoodie": "Hudi"}
"""The directory that says so."""
ICEBERG = re.compile(r"(^|/)metadata/[^/]*\.metadata\.json$")
UNREAD = {"deletionVectors", "columnMapping"}
"""Features of Delta by which a file's rows, or their names, are not what the table says."""


def table_files(start: Location, inside: Sequence[str], setting: str) -> list[Location] | None:
    """The files of the table that a directory is; None where it is none. ``inside``: paths of the files below it.

    Raises:
        DataError: it holds or lies in such a table, can't be read by files alone, or its library is not installed.
    """
    kind = _at(start)
    if kind in READERS:
        try:
            return READERS[kind](start)
        except RecsysError as error:
            raise DataError(f"{start}: {error}; or {_cure(setting)}") from error
        except Exception as error:  # libraries of tables raise their own
            raise DataError(f"{start}: not a readable {kind} table ({said(error)}); {_cure(setting)}") from error
    below = (found for name in inside if (found := _named(name)))
    around = kind or next(below, None) or next((found for above in _above(start) if (found := _at(above))), None)
    if around is not None:
        whole = f"set data.{setting} to the whole table, or " if around in READERS else ""
        raise DataError(f"{start}: belongs to a table of {around}, which keeps old files, too; {whole}{_cure(setting)}")
    return None


def _cure(setting: str) -> str:
    return f"write its rows out as Parquet and set data.{setting} to that"


def _delta(start: Location) -> list[Location]:
    table = require("deltalake", extra="lakes", what="a Delta table").DeltaTable(start.url)
    features = set(table.protocol().reader_features or ()) & UNREAD
    mapped = table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none"
    if features or mapped:
        raise DataError(f"uses {', '.join(sorted(features)) or 'columnMapping'} of Delta")
    files = [Location.of(found) for found in table.file_uris()]
    for name in table.metadata().partition_columns:
        if not all(f"/{name}=" in file.url for file in files):
            raise DataError(f"keeps its column {name!r} in its log alone")
    return files


def _iceberg(start: Location) -> list[Location]:
    newest = max((name for name in (start / "metadata").names() if name.endswith(".metadata.json")), key=_version)
    tables = require("pyiceberg.table", extra="lakes", what="an Iceberg table")
    tasks = list(tables.StaticTable.from_metadata((start / "metadata" / newest).url).scan().plan_files())
    if any(task.delete_files for task in tasks):
        raise DataError("holds rows of Iceberg that are deleted beside their files")
    return [Location.of(task.file.file_path) for task in tasks]


READERS: dict[str, Callable[[Location], list[Location]]] = {"Delta": _delta, "Iceberg": _iceberg}


def _version(name: str) -> tuple[int, str]:
    """00002-<id>.metadata.json and v2.metadata.json are the second."""
    number = re.match(r"v?(\d+)", name)
    return (int(number[1]) if number else -1, name)


def _named(name: str) -> str | None:
    """The kind of table that has a file of this name in its directory."""
    found = next((MARKS[piece] for piece in name.split("/") if piece in MARKS), None)
    return found or ("Iceberg" if ICEBERG.search(name) else None)


def _at(directory: Location) -> str | None:
    found = next((kind for mark, kind in MARKS.items() if (directory / mark).exists()), None)
    iceberg = any(name.endswith(".metadata.json") for name in (directory / "metadata").names())
    return found or ("Iceberg" if iceberg else None)


def _above(start: Location) -> Iterator[Location]:
    """The directories that a file or directory lies in, up to the root or the bucket."""
    scheme, mark, path = start.url.rpartition("://")
    pieces = path.split("/")
    for length in range(len(pieces) - 1, 1, -1):
        yield Location(f"{scheme}{mark}{'/'.join(pieces[:length])}")
