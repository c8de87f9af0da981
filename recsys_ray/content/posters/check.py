"""Posters on this machine's disks against the catalogue: which are missing, and which belong to nobody."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from recsys_ray.base.proportion import MANY
from recsys_ray.base.storage import Location
from recsys_ray.content.config import ImageSettings
from recsys_ray.content.posters.reader import SUFFIXES, local_poster
from recsys_ray.data.checks import Symptom


def poster_symptoms(items: pa.Table, settings: ImageSettings) -> list[Symptom]:
    """What a doctor says of the posters of a catalogue; addresses elsewhere are not asked."""
    references = items.column("poster").to_pylist()
    item_ids = [str(item) for item in items.column("item_id").to_pylist()]
    places = [local_poster(*pair, settings) for pair in zip(references, item_ids, strict=True)]
    named = [(place, item) for place, item in zip(places, item_ids, strict=True) if place is not None]
    found: list[Symptom] = []
    missing = [(place, item) for place, item in named if not place.is_file()]
    if missing:
        place, item = missing[0]
        words = f"{len(missing):,} of {len(named):,} poster files are not there, for example {place} of item {item}"
        cure = "set content.image.root or content.image.directory, or take them out of the catalogue"
        found.append(Symptom("warning" if len(missing) > MANY * len(named) else "note", "posters", words, cure))
    used = {place.resolve() for place, _ in named}
    orphans = [path for path in _images(settings) if path.resolve() not in used]
    if orphans:
        words = f"{len(orphans):,} image files belong to no item, for example {orphans[0]}"
        cure = "files are found by the name <item_id>.jpg or by the catalogue's column; correct one of them"
        found.append(Symptom("note", "orphan posters", words, cure))
    return found


def _images(settings: ImageSettings) -> list[Path]:
    """The image files of the directories that the settings name, on this machine."""
    folders = [Location.of(place) for place in (settings.directory, settings.root) if place is not None]
    local = [Path(folder.url) for folder in folders if folder.is_local]
    endings = {f".{suffix}" for suffix in SUFFIXES}
    return sorted(
        path for folder in local if folder.is_dir() for path in folder.iterdir() if path.suffix.lower() in endings
    )
