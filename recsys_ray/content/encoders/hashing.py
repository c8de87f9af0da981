"""Names for what was encoded and by what: equal hashes mean equal vectors, so a known one is never made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HASH_DIGITS = 32
NOTHING = "-"
"""In place of the hash of what an item lacks."""


def text_hashes(texts: Sequence[str], fingerprint: Mapping[str, Any]) -> list[str]:
    """A hash of each text under this encoder."""
    return image_hashes([text.encode() for text in texts], fingerprint)


def image_hashes(images: Sequence[bytes], fingerprint: Mapping[str, Any]) -> list[str]:
    """A hash of each image file under this encoder."""
    # A digest of fixed length in front: where the fingerprint ends and the content begins is never in doubt.
    encoder = hashlib.sha256(hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).digest())
    hashes = []
    for image in images:
        digest = encoder.copy()
        digest.update(image)
        hashes.append(digest.hexdigest()[:HASH_DIGITS])
    return hashes


def content_hash(text_hash: str | None, image_hash: str | None) -> str:
    """``<text>/<image>``: the column content_hash, from which both are found again."""
    return f"{text_hash or NOTHING}/{image_hash or NOTHING}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
