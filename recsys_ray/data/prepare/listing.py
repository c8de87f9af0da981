"""Which files an input consists of: what is behind a name, a directory or a glob, and what lies beside it unread."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from recsys_ray.base.errors import DataError, StorageError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.lakes import table_files
from recsys_ray.data.prepare.packed import unpacked_name
from recsys_ray.data.prepare.text import JSON_SUFFIXES

PARQUET_SUFFIXES = (".parquet", ".pq")
TEXT_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data")
ALL_SUFFIXES = (*PARQUET_SUFFIXES, *TEXT_SUFFIXES, *JSON_SUFFIXES)
PARTITION = re.compile(r"([^=]+)=(.*)")
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
MOST_NAMED = 3
"""Files left out that a message names."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What is behind a path."""

    files: list[Location]
    """To be read, sorted by name."""
    left_out: list[str]
    """Files in the same directories that are not: of other suffixes, or links to what is read already."""


def expand(path: str, suffixes: Sequence[str] = ALL_SUFFIXES, setting: str = "path") -> list[Location]:
    """The files behind a file name, a directory, or a glob, sorted by name; hidden and ``_`` files are left out.

    Raises:
        DataError: there are none, one is empty, or they belong to a table that only its library can read.
    """
    return find(path, suffixes, setting).files


def find(path: str, suffixes: Sequence[str] = ALL_SUFFIXES, setting: str = "path") -> Listing:
    """``expand`` with what is left out.

    Symbolic links are followed, to directories too; a directory or file that is there by several names is read once.
    """
    top = Location.of(path)
    wanted: list[Location] = []
    others: list[Location] = []
    for start in _starts(top):
        inside = _inside(start)
        if (rows_now := table_files(start, inside, setting)) is not None:
            wanted += rows_now
            continue
        for name in inside or [""]:
            chosen = not inside or _is_data(name, suffixes)
            (wanted if chosen else others).append(start / name if name else start)
    wanted = [file for file in wanted if not file.name.startswith((".", "_"))]
    files = _once(sorted(wanted, key=lambda file: file.url))
    others += [file for file in wanted if file not in files]
    if not files or not all(file.exists() for file in files):
        raise DataError(f"{top}: {_nothing(files, others, suffixes)}; set data.{setting}")
    for file in files:
        if file.size() == 0:
            raise DataError(f"{file}: the file is empty")
    return Listing(files, sorted(file.url for file in others if not file.name.startswith((".", "_"))))


def told(listing: Listing, setting: str) -> str | None:
    """A line about the files that are not read; None where all are."""
    left = [name.rpartition("/")[2] for name in listing.left_out]
    if not left:
        return None
    names = ", ".join(left[:MOST_NAMED]) + ", ..." * (len(left) > MOST_NAMED)
    return f"data.{setting}: {len(listing.files):,} files read, {len(left):,} others left out ({names})"


def partition_values(path: str) -> dict[str, str | None]:
    """What directories named ``key=value`` say of every row of a file."""
    found = (PARTITION.fullmatch(piece) for piece in path.split("/")[:-1])
    pairs = {match[1]: unquote(match[2]) for match in found if match}
    return {key: None if value == NO_VALUE else value for key, value in pairs.items()}


def _nothing(files: list[Location], others: list[Location], suffixes: Sequence[str]) -> str:
    gone = [file for file in files if not file.exists()]
    if gone and gone[0].is_local and os.path.islink(gone[0].url):
        return f"{gone[0].name} is a link to nothing"
    if others:
        return f"none of its {len(others):,} files, such as {others[0].name}, ends in {', '.join(suffixes)}"
    return "no such file, directory with data files, or glob"


def _is_data(name: str, suffixes: Sequence[str]) -> bool:
    hidden = any(piece.startswith((".", "_")) for piece in name.split("/"))
    return not hidden and unpacked_name(name).endswith(tuple(suffixes))


def _starts(top: Location) -> list[Location]:
    """The files and directories that a path means; signs of a glob count where no file has that very name."""
    if not any(sign in top.url for sign in "*?[") or top.exists():
        return [top]
    if top.is_local:
        return [Location(name) for name in sorted(glob.glob(top.url, recursive=True))]
    fs, pattern = top.filesystem()
    try:
        return [Location(str(fs.unstrip_protocol(str(name)))) for name in sorted(fs.glob(pattern))]
    except OSError as error:
        raise StorageError(f"{top}: {error}") from error


def _inside(start: Location) -> list[str]:
    """Paths of all files below a directory, relative to it; empty for a file."""
    if not start.is_local:
        return start.files()
    try:
        return sorted(os.path.relpath(file, start.url) for file in _walk(start.url)) if os.path.isdir(start.url) else []
    except OSError as error:
        raise StorageError(f"{start}: {error}") from error


def _walk(top: str) -> Iterator[str]:
    """Files below a directory. Linked directories are entered after all real ones, and none is entered twice."""
    seen: set[str] = set()
    pending = [top]
    while pending:
        links: list[str] = []
        for start in pending:
            stack = [start]
            while stack:
                directory = stack.pop()
                real = os.path.realpath(directory)
                if real in seen:
                    continue
                seen.add(real)
                for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
                    if not entry.is_dir():
                        yield entry.path
                    elif entry.is_symlink():
                        links.append(entry.path)
                    else:
                        stack.append(entry.path)
        pending = links


def _once(files: list[Location]) -> list[Location]:
    """Without further names of the same file; a name that is no link stays before one that is."""
    if not files or not files[0].is_local:
        return list(dict.fromkeys(files))
    by_real: dict[str, Location] = {}
    for file in sorted(files, key=lambda file: (os.path.realpath(file.url) != file.url, file.url)):
        by_real.setdefault(os.path.realpath(file.url), file)
    return sorted(by_real.values(), key=lambda file: file.url)
