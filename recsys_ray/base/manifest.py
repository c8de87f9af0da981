"""A directory that vouches for itself: its files, and a manifest, written last, with the stamp of each and of itself.

Presence is not wholeness. A stage takes what lies in a directory only when the manifest's own checksum holds
(``read_manifest``) and every file that it lists has its size and checksum (``damage``).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recsys_ray.base.errors import StorageError
from recsys_ray.base.provenance import Stamp, file_stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import MapBlocks, map_blocks_here

CHECKSUM = "checksum"
"""The key that holds the SHA-256 of everything else in the manifest."""
BYTES_HERE = 64 << 20
"""Files up to this many bytes in all are read by one process: it is done before others have started."""


def write_manifest(file: Location, facts: Mapping[str, Any]) -> None:
    """Write the facts and the checksum of them; what lies beside the manifest is on the disk before it."""
    plain = json.loads(json.dumps(dict(facts)))
    sync_directory(file.parent)
    file.write_json(plain | {CHECKSUM: _digest(plain)})
    sync_directory(file.parent, below=False)


def read_manifest(file: Location, *, since: int | None = 0) -> dict[str, Any]:
    """The facts of a manifest, without its checksum.

    Args:
        since: formats before this one, as the key ``format`` says it, may be without a checksum; None: all may.

    Raises:
        StorageError: it is not there, is no JSON object, or is not as it was written.
    """
    found = file.read_json()
    checksum, version = found.pop(CHECKSUM, None), found.get("format", since)
    is_old = since is None or (isinstance(version, int) and version < since)
    if checksum != _digest(found) and not (checksum is None and is_old):
        raise StorageError(f"{file}: is not as it was written, its checksum differs")
    return found


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def damage(directory: Location, files: Mapping[str, Stamp], map_blocks: MapBlocks = map_blocks_here) -> dict[str, str]:
    """What is wrong with files of a directory, by name: not there, of another size, of another checksum.

    Reads every byte of them; by ``map_blocks`` where these are many.
    """
    few = sum(int(stamp["bytes"]) for stamp in files.values()) <= BYTES_HERE
    spread = map_blocks_here if few else map_blocks
    found = spread(_problem, sorted(files.items()), str(directory), "check the files")
    return {name: problem for (name, _), problem in zip(sorted(files.items()), found, strict=True) if problem}


def _problem(entry: tuple[str, Stamp], directory_url: str) -> str | None:
    name, stamp = entry
    file = Location(directory_url) / name
    try:
        if not file.exists():
            return "is missing"
        if (size := file.size()) != stamp["bytes"]:
            return f"has {size:,} bytes, {stamp['bytes']:,} were written"
        checksum = next((kind for kind in stamp if kind != "bytes"), None)
        differs = checksum is not None and file_stamp(file, checksum)[checksum] != stamp[checksum]
    except StorageError as error:
        return f"can't be read ({error})"
    return "is not as it was written, its checksum differs" if differs else None


def listed_files(manifest: Mapping[str, Any], key: str = "files") -> dict[str, Stamp]:
    """The stamps of the files that a manifest lists.

    Raises:
        StorageError: it lists none, or not in this form, or names that lead out of the directory.
    """
    files = manifest.get(key)
    if not isinstance(files, dict) or not all(_is_entry(name, stamp) for name, stamp in files.items()):
        raise StorageError(f"the manifest has no list of {key} that can be read")
    return dict(files)


def _is_entry(name: str, stamp: Any) -> bool:
    size = stamp.get("bytes") if isinstance(stamp, dict) else None
    return isinstance(size, int) and not isinstance(size, bool) and is_inside(name)


def is_inside(name: str) -> bool:
    """Whether a relative path stays below the directory that it is joined to."""
    steps = name.split("/")
    return bool(name) and "\\" not in name and "://" not in name and not any(step in ("", ".", "..") for step in steps)


def sync_directory(directory: Location, *, below: bool = True) -> None:
    """The entries of a local directory, and of those below, reach the disk. Object stores need no such thing."""
    if not directory.is_local:
        return
    root = Path(directory.url)
    folders: Iterable[Path] = [root, *(path for path in root.rglob("*") if path.is_dir())] if below else [root]
    for folder in folders:
        try:
            opened = os.open(folder, os.O_RDONLY)
        except OSError:  # no such directory yet, or a system without them: the file's own flush must do
            continue
        try:
            os.fsync(opened)
        except OSError:  # filesystems that can't sync a directory
            pass
        finally:
            os.close(opened)
