"""The bytes of posters, from wherever a catalogue may point: files, directories by item, data URIs, the web, stores."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from recsys_ray.base.errors import StorageError
from recsys_ray.base.relative import apart, joined
from recsys_ray.base.storage import Location
from recsys_ray.content.config import ImageSettings
from recsys_ray.content.encoders import problems
from recsys_ray.content.encoders.problems import PosterError
from recsys_ray.content.posters.download import MIB, PORTS, Downloads, too_large

SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
CHAIN = "::"
"""Between two filesystems of one fsspec address: the inner one could be anything."""
HOST_SCHEMES = frozenset({"ftp", "sftp", "ssh", "smb", "webhdfs", "hdfs", "git", "jupyter", "jlab", "dav", "webdav"})
"""Protocols that name a host, whose address is not checked here."""


@dataclass(frozen=True, slots=True)
class Poster:
    """The bytes of an item's poster, or why there are none; neither when the item has no poster."""

    data: bytes | None = None
    problem: str | None = None
    """``<category>: <what was found>``."""


def read_posters(references: Sequence[str | None], item_ids: Sequence[str], settings: ImageSettings) -> list[Poster]:
    """The poster of every item, in order; whatever is wrong with one is its ``problem`` and stops no other."""
    with Downloads(settings) as downloads, ThreadPoolExecutor(settings.threads) as pool:

        def read(reference: str | None, item_id: str) -> Poster:
            try:
                where = locate(reference, item_id, settings)
                return Poster(None if where is None else _bytes_of(where, settings, downloads))
            except PosterError as error:
                return Poster(problem=str(error))

        return list(pool.map(read, references, item_ids, chunksize=1))


def read_poster(where: Path | str, settings: ImageSettings) -> bytes:
    """The bytes of one poster that ``locate`` found. Raises PosterError."""
    with Downloads(settings) as downloads:
        return _bytes_of(where, settings, downloads)


def poster_stamps(references: Sequence[str | None], item_ids: Sequence[str], settings: ImageSettings) -> str:
    """A digest that changes when a poster may have changed, without reading one: size and time of local files, the
    names in a remote directory, the text of all other references, and the limits on what is read."""
    limits = [settings.max_mib, settings.max_megapixels, settings.private_hosts]
    digest = hashlib.sha256(json.dumps(limits).encode())
    if settings.directory is not None and not Location.of(settings.directory).is_local:
        digest.update("\0".join(Location.of(settings.directory).names()).encode())
        settings = settings.model_copy(update={"directory": None})
    for reference, item_id in zip(references, item_ids, strict=True):
        try:
            stamp = _stamp(locate(reference, item_id, settings))
        except PosterError as error:
            stamp = str(error)
        digest.update(f"{len(stamp)}:{stamp}".encode())
    return digest.hexdigest()


def _stamp(where: Path | str | None) -> str:
    if not isinstance(where, Path):
        return where or ""
    try:
        found = where.stat()
    except (OSError, ValueError):
        return str(where)
    return f"{where} {found.st_size} {found.st_mtime_ns}"


def local_poster(reference: str | None, item_id: str, settings: ImageSettings) -> Path | None:
    """The file that an item's poster should be; None where it has none, or none on this machine."""
    try:
        where = locate(reference, item_id, settings)
    except PosterError:
        return None
    return where if isinstance(where, Path) else None


def locate(reference: str | None, item_id: str, settings: ImageSettings) -> Path | str | None:
    """Where an item's poster is: a local file, a URL, or nowhere."""
    if settings.directory is not None:
        found = _in_directory(Location.of(settings.directory), item_id)
        if found is not None:
            return found
    reference = (reference or "").strip()
    if not reference:
        return None
    if reference[:5].lower() == "data:":
        return reference
    directory, relative = apart(reference)
    if directory is not None:
        reference = relative if settings.root is not None else joined(reference)
    if "://" not in reference:
        return _from_root(reference, settings.root)
    scheme, _, rest = reference.partition("://")
    if scheme.lower() == "file":
        return Path("/" + unquote(rest.removeprefix("localhost").lstrip("/")))
    return reference


def _from_root(reference: str, root: str | None) -> Path | str:
    if root is not None and not Location.of(root).is_local:
        return f"{root}/{reference.lstrip('/')}"
    path = Path(reference).expanduser() if reference.startswith("~/") else Path(reference)
    if root is None and not path.is_absolute():
        # The current directory of a worker is nobody's choice.
        raise PosterError(problems.NOT_FOUND, f"relative path {reference!r}; set content.image.root")
    return Path(root or "/") / path


def _in_directory(directory: Location, item_id: str) -> Path | str | None:
    """The file named after the item; the name is one step below the directory, whatever the id."""
    name = item_id.replace("/", "%2F").replace("\0", "%00")
    if directory.is_local:
        paths = (Path(directory.url) / f"{name}.{suffix}" for suffix in SUFFIXES)
        return next((path for path in paths if os.path.isfile(path)), None)
    name = name.replace(CHAIN, "%3A%3A")
    locations = (directory / f"{name}.{suffix}" for suffix in SUFFIXES)
    return next((location.url for location in locations if _exists(location)), None)


def _exists(location: Location) -> bool:
    try:
        return location.exists()
    except StorageError as error:
        raise PosterError(problems.NOT_READABLE, str(error)) from error


def _bytes_of(where: Path | str, settings: ImageSettings, downloads: Downloads) -> bytes:
    if isinstance(where, Path):
        data = _read_file(where, settings)
    elif where[:5].lower() == "data:":
        data = _decoded(where, settings)
    elif where.partition("://")[0].lower() in PORTS:
        data = downloads.get(where)
    else:
        data = _read_store(where, settings)
    if not data:
        raise PosterError(problems.NOT_AN_IMAGE, "0 bytes")
    return data


def _read_file(path: Path, settings: ImageSettings) -> bytes:
    limit = int(settings.max_mib * MIB)
    try:
        # A pipe without a writer would block the opening for good.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise PosterError(problems.NOT_READABLE, f"{path} is no file")
            if found.st_size > limit:
                raise too_large(found.st_size, settings)
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise PosterError(problems.NOT_FOUND, str(path)) from error
    except OSError as error:
        raise PosterError(problems.NOT_READABLE, f"{path}: {error.strerror or error}") from error
    if len(data) > limit:
        raise too_large(len(data), settings)
    return data


def _decoded(uri: str, settings: ImageSettings) -> bytes:
    """The bytes inside a data URI (RFC 2397)."""
    head, comma, body = uri.partition(",")
    if not comma:
        raise PosterError(problems.NOT_AN_IMAGE, "data URI without a comma")
    try:
        data = unquote_to_bytes(body)
        if head.lower().endswith(";base64"):
            data = base64.b64decode(data)
    except (binascii.Error, ValueError) as error:
        raise PosterError(problems.NOT_AN_IMAGE, f"data URI: {error}") from error
    if len(data) > settings.max_mib * MIB:
        raise too_large(len(data), settings)
    return data


def _read_store(url: str, settings: ImageSettings) -> bytes:
    """Any other address that fsspec knows."""
    scheme = url.partition("://")[0].lower()
    if CHAIN in url:
        raise PosterError(problems.UNSUPPORTED, "several filesystems in one address")
    if scheme in HOST_SCHEMES and not settings.private_hosts:
        raise PosterError(problems.UNSUPPORTED, f"{scheme}:// needs content.image.private_hosts")
    limit = int(settings.max_mib * MIB)
    try:
        with Location.of(url).open() as file:
            data = file.read(limit + 1)
    except Exception as error:  # clients of stores raise their own
        missing = isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError)
        raise PosterError(problems.NOT_FOUND if missing else problems.NOT_READABLE, problems.excerpt(error)) from error
    if len(data) > limit:
        raise too_large(len(data), settings)
    return data
