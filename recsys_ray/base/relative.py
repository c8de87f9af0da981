"""Paths inside a file that start at that file, as one text that programs can open and that says where it starts.

>>> beside(Location.of("/data/items.csv"), "posters/7.jpg")
'/data/./posters/7.jpg'
"""

from __future__ import annotations

from recsys_ray.base.storage import Location

HERE = "/./"
"""Between the directory of the file and the path that stands in it."""


def is_relative(path: str) -> bool:
    """Whether a path needs a place to start from: no address, no data URI, not from the root or a home."""
    return bool(path) and not (path.startswith(("/", "~")) or "://" in path or path[:5].lower() == "data:")


def beside(file: Location, path: str) -> str:
    """``path`` as it is meant inside ``file``; one that is not relative as it is."""
    path = path.strip()
    while path.startswith("./"):
        path = path[2:]
    return f"{file.parent.url}{HERE}{path}" if is_relative(path) else path


def apart(path: str) -> tuple[str | None, str]:
    """What ``beside`` put together: the directory, and the path from there. None where it did not."""
    directory, mark, rest = path.partition(HERE)
    return (directory, rest) if mark and not is_relative(directory) else (None, path)


def joined(path: str) -> str:
    """The path or URL to open; stores of objects take a dot for a name."""
    directory, rest = apart(path)
    return path if directory is None else f"{directory}/{rest}"
