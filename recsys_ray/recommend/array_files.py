"""Named arrays in a safetensors file: written at once, read as views into one memory map."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from recsys_ray.base.errors import BundleError, StorageError
from recsys_ray.base.provenance import Stamp, has_stamp
from recsys_ray.base.storage import Location

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


def write_arrays(location: Location, arrays: dict[str, Any]) -> None:
    """Write them under this name, whole or not at all."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with location.written_from_file() as path:
        try:
            save_file(contiguous, path)
        except Exception as error:  # the library has an error type of its own for a full disk
            raise StorageError(f"{location}: can't write the model's arrays ({error})") from error


def read_arrays(path: Path) -> dict[str, Any]:
    """Read-only views into one memory map of a safetensors file.

    The reader of the safetensors package copies arrays; mapping lets every process of a machine share the pages.
    """
    try:
        data = np.memmap(path, np.uint8, mode="r")
        size = int(data[:8].view("<u8")[0])
        header = json.loads(bytes(data[8 : 8 + size]))
        header.pop("__metadata__", None)
        arrays: dict[str, Any] = {}
        for name, entry in header.items():
            start, stop = (8 + size + offset for offset in entry["data_offsets"])
            arrays[name] = data[start:stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise BundleError(f"{path}: not a readable safetensors file; run train again") from error
    return arrays


def local_copy(location: Location, stamp: Stamp) -> Path:
    """The file itself when local; else a copy in a cache of this user's own, downloaded once per content and compared
    with the stamp every time it is opened.

    Raises:
        BundleError: what was downloaded does not have the stamp.
    """
    if location.is_local:
        return Path(location.url)
    key = hashlib.sha256(f"{location}{stamp}".encode()).hexdigest()[:20]
    target = _own_cache() / f"{key}-{location.name}"
    copy = Location(str(target))
    if not target.exists() or not has_stamp(copy, stamp):
        copy.download(location)
        if not has_stamp(copy, stamp):
            target.unlink(missing_ok=True)
            raise BundleError(f"{location}: checksum differs from the manifest: corrupt; run train again")
    return target


def _own_cache() -> Path:
    """A directory that no other user of the machine can write to or read."""
    folder = Path(tempfile.gettempdir()) / f"recsys_ray-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat(follow_symlinks=False)
    except OSError as error:
        raise StorageError(f"{folder}: can't keep copies of models here ({error.strerror}); set TMPDIR") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StorageError(f"{folder}: is open to other users or not ours; remove it, or set TMPDIR")
    return folder
