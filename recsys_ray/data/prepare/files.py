"""Text files by byte range, and what is asked of files before they are read.

A text file is cut into ranges of bytes; a line belongs to the range its first byte is in, so ranges can be read
anywhere, by anyone, and together hold every line once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import DataError, StorageError
from recsys_ray.base.ragged import offsets
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.packed import is_packed, open_text, unpacked_name
from recsys_ray.data.prepare.text import JSON_SUFFIXES, TextFormat, split_header
from recsys_ray.data.prepare.values import Place

CHUNK_BYTES = 32 * 2**20
SAMPLE_BYTES = 2**16
PARQUET_SUFFIXES = (".parquet", ".pq")
TEXT_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data")
ALL_SUFFIXES = (*PARQUET_SUFFIXES, *TEXT_SUFFIXES, *JSON_SUFFIXES)
MARK = b"\xef\xbb\xbf"
"""Bytes that some programs begin a UTF-8 text with."""
PACKED_TIMES = 4
"""How much longer packed text is than its file, about."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a source: bytes of a text file, row groups of a Parquet file, or users of a made-up world."""

    path: str
    start: int
    stop: int
    part: int = 0
    """schema.TRAIN, VALID or TEST, where the files say so."""


def expand(path: str, suffixes: Sequence[str] = ALL_SUFFIXES, setting: str = "path") -> list[Location]:
    """The files behind a file name, a directory, or a glob, sorted by name; hidden and ``_`` files are left out.

    Raises:
        DataError: there are none, or one is empty.
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
        if file.size() == 0:
            raise DataError(f"{file}: the file is empty")
    return found


def _is_data(name: str, suffixes: Sequence[str]) -> bool:
    hidden = any(piece.startswith((".", "_")) for piece in name.split("/"))
    return not hidden and unpacked_name(name).endswith(tuple(suffixes))


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
    """The file from ``start`` on, in ranges of ``size`` bytes; one that is packed in a single range."""
    stop = file.size()
    if is_packed(file.name):
        return [Chunk(file.url, start, max(stop, start + 1), part)]
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
    return data.removeprefix(MARK) if chunk.start == 0 else data


def read_blocks(chunk: Chunk) -> Iterator[bytes]:
    """``read_lines``, in blocks of whole lines: many where a file is packed, as it is unpacked from its start."""
    file = Location(chunk.path)
    if not is_packed(file.name):
        yield read_lines(chunk)
        return
    with open_text(file) as stream:
        stream.read(chunk.start)
        rest = b"" if chunk.start else stream.read(len(MARK)).removeprefix(MARK)
        while block := stream.read(CHUNK_BYTES):
            block = rest + block
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            if end:
                yield block[:end]
        if rest:
            yield rest


def read_start(file: Location, size: int = SAMPLE_BYTES) -> bytes:
    with open_text(file) as opened:
        return opened.read(size)


def estimated_lines(files: Sequence[Location]) -> int:
    """Lines in all files, as if all were as long as those at the start of the first."""
    sample = read_start(files[0])
    lines = max(1, sample.count(b"\n"))
    size = sum(file.size() * (PACKED_TIMES if is_packed(file.name) else 1) for file in files)
    return max(1, round(size * lines / max(1, len(sample))))


def header(file: Location, form: TextFormat) -> tuple[list[str], int]:
    """Column names of a delimited file, and the byte its first row starts at."""
    if form.names is not None:
        return list(form.names), 0
    sample = read_start(file)
    line, newline, _ = sample.partition(b"\n")
    if not newline:
        raise DataError(f"{file}: no rows below the header")
    return split_header(line, form, str(file)), len(line) + 1


def place(chunk: Chunk) -> Place:
    """Rows are counted in the first range of a file only; it starts within the sample that holds the header."""
    counted = chunk.start < SAMPLE_BYTES or is_packed(chunk.path)
    return Place(chunk.path, 0 if counted else None, chunk.start)


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
