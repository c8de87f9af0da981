"""What something was made from: digests that name directories, checksums and versions that go into manifests."""

from __future__ import annotations

import hashlib
import json
import zlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from recsys_ray.base.storage import Location

PACKAGES = ("recsys_ray", "ray", "torch", "numpy", "pyarrow", "scipy", "numba", "sentence-transformers", "torchvision")


def fingerprint(*facts: Any) -> str:
    """A stable digest of JSON-ready values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


Stamp = dict[str, Any]
"""``bytes`` and ``sha256`` of a file. Formats of old have ``crc32`` instead of the hash, or the size alone."""


def stamp(data: bytes | memoryview) -> Stamp:
    """The stamp of a file with this content."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def file_stamp(file: Location, checksum: str = "sha256") -> Stamp:
    """The stamp of a file as it lies there, with the checksum named so; reads all of it, a few MiB at a time."""
    size, crc, sha = 0, 0, hashlib.sha256()
    with file.open() as opened:
        while block := opened.read(1 << 22):
            size += len(block)
            if checksum == "crc32":
                crc = zlib.crc32(block, crc)
            else:
                sha.update(block)
    return {"bytes": size, checksum: crc if checksum == "crc32" else sha.hexdigest()}


def has_stamp(file: Location, stamp: Stamp) -> bool:
    """Whether a file has the size and, where the stamp holds one, the checksum."""
    checksum = next((name for name in stamp if name != "bytes"), None)
    return file.size() == stamp["bytes"] and (checksum is None or file_stamp(file, checksum) == stamp)


def versions() -> dict[str, str]:
    """Of this package and those its results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # the project run from a plain checkout
            found[name] = "not installed"
    return found
