"""Packed text (gzip, bzip2, xz, zstandard, zip of one file), unpacked as it is read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import pyarrow as pa

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location

PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")


def is_packed(name: str) -> bool:
    return name.lower().endswith(PACKED_SUFFIXES)


def unpacked_name(name: str) -> str:
    """The name without the suffix of a packer, in lower case."""
    name = name.lower()
    return name.rpartition(".")[0] if is_packed(name) else name


@contextmanager
def open_text(file: Location) -> Iterator[BinaryIO]:
    """The bytes of a text file, unpacked where its name says that it is packed.

    Raises:
        DataError: what is read inside is not what the name says, or was cut short.
    """
    with file.open() as packed:
        if not is_packed(file.name):
            yield packed
            return
        try:
            with _unpacker(file, packed) as stream:
                yield stream
        except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{file}: can't be unpacked ({said}); is the file complete?") from error


def _unpacker(file: Location, packed: BinaryIO) -> BinaryIO:
    match file.name.lower().rpartition(".")[2]:
        case "gz":
            return cast(BinaryIO, gzip.GzipFile(fileobj=packed))
        case "bz2":
            return cast(BinaryIO, bz2.BZ2File(packed))
        case "xz":
            return cast(BinaryIO, lzma.LZMAFile(packed))
        case "zst":
            return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd"))
        case _:
            return _only_member(file, zipfile.ZipFile(packed))


def _only_member(file: Location, archive: zipfile.ZipFile) -> BinaryIO:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) != 1:
        raise DataError(f"{file}: holds {len(names):,} files; unpack it first, or pack one")
    return cast(BinaryIO, archive.open(names[0]))
