"""Files that can't be read, each with the settings that ask for it and a word of the message that says so."""

from __future__ import annotations

import datetime
import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

HEAD = "user_id,item_id,rating,timestamp\n"
GOOD = "1,2,3.0,1580702706\n2,3,4.0,1580702707\n"
COLUMNS = {"user_id": "user_id", "item_id": "item_id", "rating": "rating", "timestamp": "timestamp"}
PAIR = {"user_id": "user_id", "item_id": "item_id"}
MOVIES = "movieId,title,genres\n1,A (1990),Drama\n2,B (1991),War\n"
RATINGS = "userId,movieId,rating,timestamp\n1,1,4,1580702706\n2,2,5,1580702707\n"


class Case(NamedTuple):
    """A bad input: what writes it into a folder and returns the settings, and what the message must name."""

    name: str
    write: Callable[[Path], dict[str, Any]]
    word: str


def events(name: str, data: str | bytes, word: str = "", file: str = "events.csv", **values: Any) -> Case:
    def write(folder: Path) -> dict[str, Any]:
        (folder / file).write_bytes(data.encode() if isinstance(data, str) else data)
        return {"source": "table", "path": str(folder / file), "columns": COLUMNS} | values

    return Case(name, write, word or file)


def json_lines(name: str, data: str, file: str = "events.jsonl") -> Case:
    return events(name, data, file, file, columns=PAIR)


def rows(name: str, line: str, word: str = "events.csv", **values: Any) -> Case:
    return events(name, HEAD + GOOD + line, word, **values)


def parquet(name: str, columns: dict[str, Any], word: str = "events.parquet", **values: Any) -> Case:
    def write(folder: Path) -> dict[str, Any]:
        base = {"user_id": [1, 2], "item_id": [2, 3]}
        pq.write_table(pa.table(base | columns), folder / "events.parquet")
        used = {column: column for column in COLUMNS if column in base | columns}
        return {"source": "table", "path": str(folder / "events.parquet"), "columns": used} | values

    return Case(name, write, word)


def beside(name: str, setting: str, file: str, data: str | bytes | pa.Table, word: str = "", **values: Any) -> Case:
    """A good log with a bad catalogue or a bad table of users."""

    def write(folder: Path) -> dict[str, Any]:
        (folder / "events.csv").write_text(HEAD + GOOD)
        if isinstance(data, pa.Table):
            pq.write_table(data, folder / file)
        else:
            (folder / file).write_bytes(data.encode() if isinstance(data, str) else data)
        settings = {"source": "table", "path": str(folder / "events.csv"), "columns": COLUMNS}
        return settings | {setting: str(folder / file)} | values

    return Case(name, write, word or file)


def items(name: str, data: str | bytes | pa.Table, word: str = "", file: str = "items.csv", **columns: Any) -> Case:
    file = "items.parquet" if isinstance(data, pa.Table) else file
    return beside(name, "items", file, data, word, item_columns=columns)


def users(name: str, data: str | bytes, word: str = "users.csv", **columns: Any) -> Case:
    return beside(name, "users", "users.csv", data, word, user_columns={"numbers": ["age"]} | columns)


def folder_of(name: str, files: dict[str, str | bytes], word: str, path: str = "in", **values: Any) -> Case:
    def write(folder: Path) -> dict[str, Any]:
        for file, data in files.items():
            (folder / "in" / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / "in" / file).write_bytes(data.encode() if isinstance(data, str) else data)
        return {"source": "table", "path": str(folder / path), "columns": COLUMNS} | values

    return Case(name, write, word)


def movielens(name: str, word: str, ratings: str | bytes = RATINGS, movies: str | bytes = MOVIES, **more: str) -> Case:
    files = {"ratings.csv": ratings, "movies.csv": movies} | {f"{file}.csv": data for file, data in more.items()}
    case = folder_of(name, files, word)
    return Case(name, lambda folder: {"source": "movielens", "path": case.write(folder)["path"]}, word)


def other(name: str, source: str, files: dict[str, str | bytes], word: str, path: str = "in", **values: Any) -> Case:
    case = folder_of(name, files, word, path)
    return Case(name, lambda folder: {"source": source, "path": case.write(folder)["path"]} | values, word)


def written(name: str, write: Callable[[Path], Any], file: str) -> Case:
    """A file that a library writes."""

    def settings(folder: Path) -> dict[str, Any]:
        write(folder / file)
        return {"source": "table", "path": str(folder / file), "columns": PAIR}

    return Case(name, settings, file)


def _zip(path: Path, members: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)


def _int96(path: Path) -> None:
    far = datetime.datetime(9999, 12, 31)
    table = pa.table(
        {"user_id": pa.array([None], pa.int64()), "item_id": [1], "t": pa.array([far], pa.timestamp("us"))}
    )
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)


TABLE = pa.table({"user_id": [1], "item_id": [2]})
TWICE = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["user_id", "item_id", "item_id"])
TITLED = {"item_id": [2, 3], "title": ["A", "B"]}
GZ = gzip.compress((HEAD + GOOD * 200).encode())
