"""Files on any filesystem fsspec knows, and the two rules that keep them whole.

1. A file appears under its name complete or not at all (``write_bytes``).
2. A directory is complete when its manifest, written last, is there.

>>> run = Location.of("runs/demo") / "recommendations" / "LATEST"   # or "s3://bucket/demo"
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_ray.base.errors import RecsysError, StorageError
from recsys_ray.base.optional import how_to_install
from recsys_ray.base.secrets import mask
from recsys_ray.base.storage_errors import first_line, storage_error

TEMPORARY_SUFFIX = ".tmp"
EXTRAS = {"s3": "s3", "s3a": "s3"}
"""Addresses whose filesystem an extra installs."""


@dataclass(frozen=True, slots=True)
class Location:
    """An absolute path or URL. Cheap, immutable, and safe to send to another process."""

    url: str

    @classmethod
    def of(cls, path: str | os.PathLike[str] | Location) -> Location:
        """Local paths become absolute here, because workers run in other directories."""
        if isinstance(path, Location):
            return path
        text = os.fspath(path)
        if text.startswith("file://"):
            text = text[len("file://") :]
        if "://" not in text:
            text = str(Path(text).expanduser().absolute())
        return cls(text.rstrip("/") or "/")

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.url.rstrip('/')}/{name.strip('/')}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        return Location(self.url.rsplit("/", 1)[0])

    @property
    def is_local(self) -> bool:
        return "://" not in self.url

    def filesystem(self) -> tuple[Any, str]:
        """The fsspec filesystem and the path inside it."""
        if self.is_local:
            return fsspec.filesystem("file"), self.url  # as it stands: fsspec would take a:: in it apart
        try:
            return cast("tuple[Any, str]", fsspec.core.url_to_fs(self.url))
        except (ImportError, ValueError) as error:
            extra = EXTRAS.get(self.url.partition("://")[0]) if isinstance(error, ImportError) else None
            cure = "" if extra is None else f": {how_to_install(extra)}"
            raise StorageError(mask(f"{self.url}: no filesystem for this address ({error}){cure}")) from error
        except Exception as error:  # of every kind: each library has its own
            raise storage_error(self.url, error) from error

    def exists(self) -> bool:
        fs, path = self.filesystem()
        return bool(_guard(self, lambda: fs.exists(path)))

    def size(self) -> int:
        fs, path = self.filesystem()
        return int(_guard(self, lambda: fs.size(path)) or 0)

    def names(self) -> list[str]:
        """Sorted names inside this directory; empty when it does not exist."""
        fs, path = self.filesystem()

        def listing() -> list[str]:
            fs.invalidate_cache()
            if not fs.isdir(path):
                return []
            found = (str(name).rstrip("/").rsplit("/", 1)[-1] for name in fs.ls(path, detail=False))
            return sorted(name for name in found if name)

        return cast("list[str]", _guard(self, listing))

    def files(self) -> list[str]:
        """Sorted paths, relative to this directory, of every file below it."""
        fs, path = self.filesystem()

        def walk() -> list[str]:
            fs.invalidate_cache()
            if not fs.isdir(path):
                return []
            root = path.rstrip("/") + "/"
            return sorted(str(name).removeprefix(root) for name in fs.find(path))

        return cast("list[str]", _guard(self, walk))

    def open(self) -> BinaryIO:
        fs, path = self.filesystem()
        return cast(BinaryIO, _guard(self, lambda: fs.open(path, "rb")))

    def read_bytes(self) -> bytes:
        fs, path = self.filesystem()
        return cast(bytes, _guard(self, lambda: fs.cat_file(path)))

    def read_range(self, start: int, stop: int) -> bytes:
        """The bytes start:stop and, where the filesystem can, no others."""
        fs, path = self.filesystem()
        data = cast(bytes, _guard(self, lambda: fs.cat_file(path, start=start, end=stop)))
        if len(data) != stop - start:
            raise StorageError(f"{self.url}: holds {len(data)} of the bytes {start} to {stop}; the file was cut short")
        return data

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Write the whole file under its name, or leave no such name behind.

        Local files are written aside, flushed to the disk and renamed. On object stores one PUT is the commit.
        """
        if not self.is_local:
            fs, path = self.filesystem()
            _guard(self, lambda: fs.pipe_file(path, bytes(data)))
            return
        with self.written_from_file() as aside:
            aside.write_bytes(data)

    @contextlib.contextmanager
    def written_from_file(self) -> Iterator[Path]:
        """What is written to the local path inside becomes this file, whole or not at all, with usual permissions."""
        if not self.is_local:
            with tempfile.TemporaryDirectory() as folder:
                aside = Path(folder) / self.name
                yield aside
                fs, path = self.filesystem()
                _guard(self, lambda: fs.put_file(str(aside), path))
            return
        target = Path(self.url)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.touch()
            mode = stat.S_IMODE(aside.stat().st_mode)
            yield aside
            aside.chmod(mode)  # libraries that write a file may close it to others
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(target)
        except OSError as error:
            raise StorageError(f"{self.url}: can't write ({error.strerror or error})") from error
        finally:
            with contextlib.suppress(OSError):  # a parent that is a file has no entries to remove
                aside.unlink(missing_ok=True)

    def download(self, other: Location) -> None:
        """Make this local file a copy of another, whole or not at all."""
        fs, path = other.filesystem()
        with self.written_from_file() as aside:
            _guard(other, lambda: fs.get_file(path, str(aside)))

    def read_json(self) -> dict[str, Any]:
        """The object in a JSON file.

        Raises:
            StorageError: the file can't be read, is no JSON, or holds something else than an object.
        """
        data = self.read_bytes()
        try:
            found: Any = json.loads(data)
        except ValueError as error:
            raise StorageError(f"{self.url}: not valid JSON ({error})") from error
        if not isinstance(found, dict):
            raise StorageError(f"{self.url}: holds no JSON object, found a {type(found).__name__}")
        return found

    def write_json(self, value: dict[str, Any]) -> None:
        self.write_bytes((json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def read_parquet(self, columns: list[str] | None = None) -> pa.Table:
        """The whole table, by one thread, from bytes in memory: files here are as small as a shard.

        ``pq.read_table`` on an open Python file crashed now and then (pyarrow 26): its scanner's threads may let go of
        the file after it was closed.
        """
        return self.parse_parquet(self.read_bytes(), columns)

    def parse_parquet(self, data: bytes, columns: list[str] | None = None) -> pa.Table:
        """``read_parquet`` of bytes that were read from here."""
        try:
            file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            return file.read(columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{self.url}: not a readable Parquet file ({first_line(error)})") from error

    def write_parquet(self, table: pa.Table, *, compression: str = "zstd", **options: Any) -> memoryview:
        """Encode in memory, then ``write_bytes``: the caller bounds the table, and a failure leaves no torn file.

        Its pages carry checksums, which ``read_parquet`` and other readers can verify. Returns the bytes that were
        written.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression=compression, write_page_checksum=True, **options)
        data = memoryview(sink.getvalue())
        self.write_bytes(data)
        return data

    def remove(self, names: Iterable[str] | None = None) -> None:
        """Delete this file or directory tree, or only the named entries of it. Missing ones are fine."""
        fs, path = self.filesystem()
        targets = [path] if names is None else [f"{path.rstrip('/')}/{name}" for name in names]
        for target in targets:
            if _guard(self, lambda target=target: fs.exists(target)):
                _guard(self, lambda target=target: fs.rm(target, recursive=True))

    def remove_drafts(self) -> None:
        """Delete what writers that were killed have left in this directory. None may be at work in it."""
        self.remove([name for name in self.names() if name.endswith(TEMPORARY_SUFFIX)])


def _guard(location: Location, action: Any) -> Any:
    try:
        return action()
    except RecsysError:
        raise
    except Exception as error:  # of every kind: each library has its own
        raise storage_error(location.url, error) from error
