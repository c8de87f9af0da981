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
import pyarrow.parquet as pq

from recsys_ray.base.errors import DataError
from recsys_ray.base.ragged import offsets
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.guard import said
from recsys_ray.data.prepare.listing import PARQUET_SUFFIXES
from recsys_ray.data.prepare.packed import is_packed, open_text
from recsys_ray.data.prepare.text import TextFormat, split_header
from recsys_ray.data.prepare.values import Place

CHUNK_BYTES = 32 * 2**20
SAMPLE_BYTES = 2**16
MARK = b"\xef\xbb\xbf"
"""Bytes that some programs begin a UTF-8 text with."""
BEGINNINGS = {
    b"PAR1": ("Parquet", "name it .parquet"),
    b"\x1f\x8b": ("gzip", "name it .csv.gz, or as what is inside"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "write it as CSV"),
    b"BZh": ("bzip2", "name it .csv.bz2, or as what is inside"),
    b"\xfd7zXZ\0": ("xz", "name it .csv.xz, or as what is inside"),
    b"\x28\xb5\x2f\xfd": ("zstandard", "name it .csv.zst, or as what is inside"),
    b"ARROW1": ("Arrow IPC", "write it as Parquet"),
    b"ORC": ("ORC", "write it as Parquet"),
    b"Obj\x01": ("Avro", "write it as Parquet"),
    b"SQLite format 3": ("SQLite", "write its table as CSV"),
}
"""What files begin with that are no text."""
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
    _refuse_no_text(sample, file)
    line, newline, _ = sample.partition(b"\n")
    if not newline:
        raise DataError(f"{file}: {_why_no_rows(line)}")
    return split_header(line, form, str(file)), len(line) + 1


def _refuse_no_text(sample: bytes, file: Location) -> None:
    """DataError for the beginnings of files that are known not to be text, and for zero bytes."""
    for start, (kind, cure) in BEGINNINGS.items():
        if sample.startswith(start):
            raise DataError(f"{file}: is {kind}, not text; {cure}")
    if b"\0" in sample:
        raise DataError(f"{file}: holds zero bytes, as UTF-16 and binary files do; save it as UTF-8 text")


def _why_no_rows(line: bytes) -> str:
    if b"\r" in line.rstrip(b"\r"):
        return "its lines end in carriage returns alone; write them with line feeds"
    return (
        "no rows below the header" if len(line) < SAMPLE_BYTES else "no line ends in its first 64 KiB; is it a table?"
    )


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
            raise DataError(f"{file}: not a readable Parquet file ({said(error)})") from error


def open_parquet(opened: Any) -> pq.ParquetFile:
    """Times of INT96, as old Spark and Hive write them, in milliseconds: as nanoseconds some would wrap around."""
    return pq.ParquetFile(opened, coerce_int96_timestamp_unit="ms")
