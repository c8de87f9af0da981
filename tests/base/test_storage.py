"""Files appear whole or not at all, on a disk, in memory and on an object store."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from recsys_ray.base.errors import StorageError
from recsys_ray.base.storage import Location


@pytest.fixture(params=["disk", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    return Location.of(tmp_path) if request.param == "disk" else Location.of(f"memory://{uuid.uuid4().hex}")


def test_what_is_written_is_read(root: Location) -> None:
    table = pa.table({"a": [1, 2], "b": [[1.5], []]})
    (root / "x" / "t.parquet").write_parquet(table)
    (root / "x" / "m.json").write_json({"b": 1, "a": "z"})
    assert (root / "x" / "t.parquet").read_parquet().equals(table)
    assert (root / "x" / "t.parquet").read_parquet(["a"]).schema.names == ["a"]
    assert (root / "x" / "m.json").read_json() == {"a": "z", "b": 1}
    assert (root / "x").names() == ["m.json", "t.parquet"]
    assert root.files() == ["x/m.json", "x/t.parquet"]
    assert (root / "x" / "m.json").size() == len((root / "x" / "m.json").read_bytes())


def test_a_range_is_read_and_a_file_that_ends_before_it_is_noticed(root: Location) -> None:
    (root / "f").write_bytes(b"0123456789")
    assert (root / "f").read_range(3, 7) == b"3456" and (root / "f").read_range(0, 10) == b"0123456789"
    with pytest.raises(StorageError, match="f: holds 2 of the bytes 8 to 12"):
        (root / "f").read_range(8, 12)
    with pytest.raises(StorageError, match="nothing: no such file"):
        (root / "nothing").read_range(0, 1)


def test_missing_and_removed_things(root: Location) -> None:
    assert not (root / "nothing").exists() and (root / "nothing").names() == []
    (root / "nothing").remove()
    (root / "d" / "one").write_bytes(b"1")
    (root / "d" / "two").write_bytes(b"2")
    (root / "d").remove(["one", "three"])
    assert (root / "d").names() == ["two"]
    (root / "d").remove()
    assert not (root / "d" / "two").exists()
    with pytest.raises(StorageError, match="nothing: no such file"):
        (root / "nothing").read_bytes()


def test_writing_replaces_as_a_whole(root: Location) -> None:
    (root / "f").write_bytes(b"old and long")
    (root / "f").write_bytes(b"new")
    assert (root / "f").read_bytes() == b"new"
    assert root.names() == ["f"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Location.of(tmp_path) / "f"
    target.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        target.write_bytes(b"new")
    assert target.read_bytes() == b"old" and Location.of(tmp_path).names() == ["f"]


def test_broken_content_is_one_line(root: Location) -> None:
    (root / "m.json").write_bytes(b"{")
    (root / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(StorageError, match=r"m\.json: not valid JSON"):
        (root / "m.json").read_json()
    with pytest.raises(StorageError, match=r"t\.parquet: not a readable Parquet file") as caught:
        (root / "t.parquet").read_parquet()
    assert "\n" not in str(caught.value)


def test_local_paths_become_absolute_and_urls_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location.of("a/b/").url == str(tmp_path / "a" / "b")
    assert Location.of(f"file://{tmp_path}/a").url == str(tmp_path / "a")
    assert (Location.of("s3://bucket/x/") / "y").url == "s3://bucket/x/y"
    assert (Location.of("s3://bucket/x") / "y").name == "y" and Location.of("s3://bucket/x/y").parent.name == "x"
    with pytest.raises(StorageError, match="no filesystem"):
        Location.of("nosuch://bucket/x").exists()
