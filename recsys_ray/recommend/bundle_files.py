"""The files of a bundle: their names, the manifest that lists them, and whether they are as they were written."""

from __future__ import annotations

from typing import Any

from recsys_ray.base import manifest as manifests
from recsys_ray.base.errors import BundleError, StorageError
from recsys_ray.base.provenance import has_stamp
from recsys_ray.base.storage import Location

FORMAT, FORMAT_2, FORMAT_1 = 3, 2, 1
ARRAYS, ITEMS, MANIFEST = "arrays.safetensors", "items.parquet", "manifest.json"
MUST_HAVE: dict[str, type] = {
    "format": int,
    "scorer": str,
    "scorer_settings": dict,
    "parts": list,
    "num_users": int,
    "users_per_shard": list,
    "user_id_type": str,
    "vocabulary_sha256": str,
    "files": dict,
}


def check_files(location: Location) -> None:
    """Every byte of a bundle's own files; those of its histories carry checksums that are looked at when they are read.

    Raises:
        BundleError: a file is not as it was written.
    """
    for name, stamp in read_manifest(location)["files"].items():
        if location.is_local or name != ARRAYS:
            check_file(location / name, stamp, verify=True)


def read_manifest(location: Location) -> dict[str, Any]:
    """The manifest alone, of this format or the one before.

    Raises:
        BundleError: it is not there, not readable, of another format, or something that a manifest has is missing.
    """
    if not (location / MANIFEST).exists():
        raise BundleError(f"{location}: not a bundle, it has no {MANIFEST} (an interrupted fit leaves none); run train")
    try:
        manifest = manifests.read_manifest(location / MANIFEST, since=FORMAT)
    except StorageError as error:
        raise BundleError(f"{location}: {MANIFEST} is unreadable; run train again ({error})") from error
    version = manifest.get("format")
    if version is not None and version not in (FORMAT, FORMAT_2, FORMAT_1):
        raise BundleError(
            f"{location}: bundle format {version}, this version reads {FORMAT_1} to {FORMAT}; run train again"
        )
    for name, kind in MUST_HAVE.items():
        if not isinstance(manifest.get(name), kind):
            raise BundleError(f"{location}: {MANIFEST} is incomplete, it has no {name}; run train again")
    return manifest


def check_file(location: Location, stamp: dict[str, int], *, verify: bool) -> None:
    if not location.exists():
        raise BundleError(f"{location}: missing from the bundle; copy the whole directory or run train again")
    if location.size() != stamp["bytes"]:
        raise BundleError(
            f"{location}: {location.size()} bytes, the manifest says {stamp['bytes']}: half copied; run train again"
        )
    if verify and not has_stamp(location, stamp):
        raise BundleError(f"{location}: checksum differs from the manifest: corrupt; copy it again or run train again")
