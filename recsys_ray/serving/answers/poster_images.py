"""Posters that are not on the web: data URIs and files that the catalogue names, as images or not at all."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from recsys_ray.base.errors import StorageError
from recsys_ray.base.storage import Location
from recsys_ray.serving.answers.item_catalogue import WEB

MAX_BYTES = 8 << 20
KINDS = (
    (b"\x89PNG\r\n\x1a\n", 0, b"image/png"),
    (b"\xff\xd8\xff", 0, b"image/jpeg"),
    (b"GIF8", 0, b"image/gif"),
    (b"WEBP", 8, b"image/webp"),
)


def poster_image(place: str | None) -> tuple[bytes, bytes] | None:
    """(image, its type), None where there is none: no address, nothing there, too large, or not an image.

    The place comes out of the catalogue, never from a caller.
    """
    if place is None or place.startswith(WEB):
        return None
    data = _inline(place) if place.startswith("data:") else _file(place)
    for magic, at, kind in KINDS:
        if data is not None and data[at : at + len(magic)] == magic:
            return data, kind
    return None


def _inline(uri: str) -> bytes | None:
    head, _, text = uri.partition(",")
    raw = unquote_to_bytes(text)
    try:
        return base64.b64decode(raw, validate=True) if head.endswith(";base64") else raw
    except binascii.Error:
        return None


def _file(place: str) -> bytes | None:
    try:
        location = Location.of(place)
        return location.read_bytes() if location.size() <= MAX_BYTES else None
    except StorageError:
        return None
