"""One place where what libraries say of a user's file becomes one line of ours."""

from __future__ import annotations

import csv
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from recsys_ray.base.errors import DataError

FOREIGN = (
    pa.ArrowException,
    OSError,
    EOFError,
    LookupError,
    ValueError,  # of JSON, of Unicode, of pandas
    ArithmeticError,
    RecursionError,
    csv.Error,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
"""What Arrow, pandas and the readers of the standard library raise for the contents of a file."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Around everything that depends on the contents of ``what``, a file or a setting.

    Raises:
        DataError: a library could not make sense of it; errors of ours pass as they are.
    """
    try:
        yield
    except FOREIGN as error:
        raise DataError(f"{what}: can't be read ({said(error)})") from error


def said(error: BaseException) -> str:
    """The first line of what an error says, or its kind."""
    text = str(error).strip()
    return (
        text.splitlines()[0] if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()
    )
