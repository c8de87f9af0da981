"""Named arrays in a safetensors file: written at once, read as views into one memory map."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from recsys_ray.base.errors import BundleError, StorageError
from recsys_ray.base.storage import Location

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


def write_arrays(location: Location, arrays: dict[str, Any]) -> None:
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if location.is_local:
        Path(location.url).parent.mkdir(parents=True, exist_ok=True)
        _save(contiguous, Path(location.url))
        return
    with tempfile.TemporaryDirectory() as folder:
        _save(contiguous, Path(folder) / location.name)
        fs, path = location.filesystem()
        fs.put_file(str(Path(folder) / location.name), path)


def _save(arrays: dict[str, Any], path: Path) -> None:
    try:
        save_file(arrays, path)
    except Exception as error:  # the library has an error type of its own for a full disk
        path.unlink(missing_ok=True)
        raise StorageError(f"{path}: can't write the model's arrays ({error})") from error


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


def local_copy(location: Location, stamp: dict[str, int]) -> Path:
    """The file itself when local; else a copy in the machine's cache, downloaded once per content."""
    if location.is_local:
        return Path(location.url)
    key = hashlib.sha256(f"{location}{stamp}".encode()).hexdigest()[:20]
    target = Path(tempfile.gettempdir()) / "recsys_ray" / f"{key}-{location.name}"
    if not target.exists() or target.stat().st_size != stamp["bytes"]:
        target.parent.mkdir(parents=True, exist_ok=True)
        fs, path = location.filesystem()
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as aside:
            fs.get_file(path, aside.name)
        Path(aside.name).replace(target)
    return target
