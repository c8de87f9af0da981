"""Posters that are not on the web: data URIs and files that the catalogue names, as images or not at all.

They are read as the batch job reads them, by ``content.posters``, and only from where the posters of this catalogue
are: below ``content.image.directory`` and ``root``, or beside the catalogue. Links are followed first.
"""

from __future__ import annotations

from pathlib import Path

from recsys_ray.base.relative import apart
from recsys_ray.base.storage import Location
from recsys_ray.content.config import ImageSettings
from recsys_ray.content.encoders.problems import PosterError
from recsys_ray.content.posters.reader import CHAIN, locate, read_poster

KINDS = (
    (b"\x89PNG\r\n\x1a\n", 0, b"image/png"),
    (b"\xff\xd8\xff", 0, b"image/jpeg"),
    (b"GIF8", 0, b"image/gif"),
    (b"WEBP", 8, b"image/webp"),
)


def poster_image(reference: str | None, item_id: str, settings: ImageSettings) -> tuple[bytes, bytes] | None:
    """(image, its type), None where there is none: nothing there, outside of where posters are, too large, no image.

    The reference is the catalogue's own, never a caller's.
    """
    try:
        where = locate(reference, item_id, settings)
        if where is None or not _is_ours(where, reference, settings):
            return None
        data = read_poster(where, settings)
    except (PosterError, ValueError):
        return None
    kinds = (kind for magic, at, kind in KINDS if data[at : at + len(magic)] == magic)
    return next(((data, kind) for kind in kinds), None)


def _is_ours(where: Path | str, reference: str | None, settings: ImageSettings) -> bool:
    roots = [root for root in (settings.directory, settings.root, apart(reference or "")[0]) if root is not None]
    if isinstance(where, Path):
        try:
            file = where.resolve()
            return any(file.is_relative_to(Path(root).resolve()) for root in roots if Location.of(root).is_local)
        except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
            return False
    if where[:5].lower() == "data:":
        return True
    inside = CHAIN not in where and ".." not in where.split("/")
    return inside and any(where.startswith(f"{root.rstrip('/')}/") for root in roots)
