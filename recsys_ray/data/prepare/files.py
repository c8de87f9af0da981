"""Text files by byte range, and what is asked of files before they are read.

A text file is cut into ranges of bytes; a line belongs to the range its first byte is in, so ranges can be read
anywhere, by anyone, and together hold every line once.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv

from recsys_ray.base.errors import DataError, StorageError
from recsys_ray.base.ragged import offsets
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.values import Place

CHUNK_BYTES = 32 * 2**20
SAMPLE_BYTES = 2**16
PARQUET_SUFFIXES = (".parquet", ".pq")
TEXT_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data")
PACKED_SUFFIXES = (".gz", ".bz2", ".zip", ".zst", ".xz")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a source: bytes of a text file, row groups of a Parquet file, or users of a made-up world."""

    path: str
    start: int
    stop: int
    part: int = 0
    """schema.TRAIN, VALID or TEST, where the files say so."""


def expand(
    path: str, suffixes: Sequence[str] = (*PARQUET_SUFFIXES, *TEXT_SUFFIXES), setting: str = "path"
) -> list[Location]:
    """The files behind a file name, a directory, or a glob, sorted by name; hidden and ``_`` files are left out.

    Raises:
        DataError: there are none, or one is empty or packed.
    """
    top = Location.of(path)
    if any(sign in path for sign in "*?["):
        found = _glob(top)
    else:
        inside = top.files()
        found = [top / name for name in inside if _is_data(name, suffixes)] if inside else [top]
    found = [file for file in found if not file.name.startswith((".", "_"))]
    if not found or not all(file.exists() for file in found):
        raise DataError(f"{top}: no such file, directory with data files, or glob; set data.{setting}")
    for file in found:
        if file.name.endswith(PACKED_SUFFIXES):
            raise DataError(f"{file}: packed text can't be read in parts; unpack it first")
        if file.size() == 0:
            raise DataError(f"{file}: the file is empty")
    return found


def _is_data(name: str, suffixes: Sequence[str]) -> bool:
    hidden = any(piece.startswith((".", "_")) for piece in name.split("/"))
    return not hidden and name.lower().endswith((*suffixes, *PACKED_SUFFIXES))


def _glob(pattern: Location) -> list[Location]:
    fs, path = pattern.filesystem()
    try:
        names = sorted(str(name) for name in fs.glob(path))
    except OSError as error:
        raise StorageError(f"{pattern}: {error}") from error
    return [Location(name if pattern.is_local else str(fs.unstrip_protocol(name))) for name in names]


def is_parquet(file: Location) -> bool:
    return file.name.lower().endswith(PARQUET_SUFFIXES)


def stamp(file: Location) -> dict[str, Any]:
    """Size and time of change (or the object store's tag): enough to notice that a file is another one."""
    fs, path = file.filesystem()
    try:
        info = fs.info(path)
    except OSError as error:
        raise DataError(f"{file}: {error}") from error
    changed = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("updated")
    return {"path": file.url, "size": info.get("size"), "changed": str(changed)}


def byte_ranges(file: Location, start: int = 0, part: int = 0, size: int = CHUNK_BYTES) -> list[Chunk]:
    """The file from ``start`` on, in ranges of ``size`` bytes."""
    stop = file.size()
    return [Chunk(file.url, begin, min(begin + size, stop), part) for begin in range(start, stop, size)]


def read_lines(chunk: Chunk) -> bytes:
    """The lines whose first byte is inside the chunk, with their line ends; a byte-order mark is dropped."""
    with Location(chunk.path).open() as file:
        begin = max(chunk.start - 1, 0)
        file.seek(begin)
        data = file.read(chunk.stop - begin)
        if chunk.start > 0:
            data = data[data.find(b"\n") + 1 :] if b"\n" in data else b""
        if data and not data.endswith(b"\n"):
            data += file.readline()
    return data.removeprefix(b"\xef\xbb\xbf") if chunk.start == 0 else data


def read_start(file: Location, size: int = SAMPLE_BYTES) -> bytes:
    with file.open() as opened:
        return opened.read(size)


def estimated_lines(files: Sequence[Location]) -> int:
    """Lines in all files, as if all were as long as those at the start of the first."""
    sample = read_start(files[0])
    lines = max(1, sample.count(b"\n"))
    return max(1, round(sum(file.size() for file in files) * lines / max(1, len(sample))))


def header(file: Location, delimiter: str) -> tuple[list[str], int]:
    """Column names of a delimited file, and the byte its first row starts at."""
    sample = read_start(file)
    line, newline, _ = sample.partition(b"\n")
    if not newline:
        raise DataError(f"{file}: no rows below the header")
    try:
        text = line.decode("utf-8-sig").rstrip("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: the header is not UTF-8 text ({error.reason})") from error
    return next(csv.reader([text], delimiter=delimiter)), len(line) + 1


def place(chunk: Chunk) -> Place:
    """Rows are counted in the first range of a file only; it starts within the sample that holds the header."""
    return Place(chunk.path, 0 if chunk.start < SAMPLE_BYTES else None, chunk.start)


def parse_delimited(
    data: bytes,
    names: Sequence[str],
    delimiter: str,
    where: str,
    *,
    quotes: bool = True,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Rows of a delimited text, all columns as strings.

    Raises:
        DataError: rows of another number of fields, or not UTF-8.
    """
    wanted = list(columns or names)
    if not data.strip():
        return pa.table({name: pa.array([], pa.string()) for name in wanted})
    try:
        return pc_csv.read_csv(
            pa.BufferReader(data),
            read_options=pc_csv.ReadOptions(column_names=list(names), use_threads=False, block_size=len(data) + 1),
            parse_options=pc_csv.ParseOptions(delimiter=delimiter, quote_char='"' if quotes else False),
            convert_options=pc_csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
            ),
        ).combine_chunks()
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: {str(error).splitlines()[0]}") from error


def parse_token_lines(data: bytes, where: str) -> tuple[pa.Array, np.ndarray]:
    """All words of a text and the number of the line each is on, without a loop over either.

    Words are separated by blanks; the bytes between them are cut out and what is left is one Arrow string array.
    """
    bytes_ = np.frombuffer(data, np.uint8)
    blank = (bytes_ == 32) | (bytes_ == 10) | (bytes_ == 13) | (bytes_ == 9)
    before = np.concatenate([np.ones(1, bool), blank[:-1]])
    starts = np.flatnonzero(~blank & before)
    after = np.concatenate([blank[1:], np.ones(1, bool)]) if len(blank) else blank
    ends = np.flatnonzero(~blank & after) + 1
    offsets_32 = offsets(ends - starts).astype(np.int32)  # a chunk is far below 2 GiB
    words = pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets_32), pa.py_buffer(bytes_[~blank]))
    try:
        words.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: not UTF-8 text") from error
    newlines = np.flatnonzero(bytes_ == 10)
    return words, np.searchsorted(newlines, starts)


def guarded_parquet(file: Location, action: Callable[[Any], Any]) -> Any:
    """``action(opened file)``; what Arrow has to say about a broken file as one line."""
    with file.open() as opened:
        try:
            return action(opened)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
