"""Bundles and the histories they stand on: in prepared data, copied along, or missing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_ray.base.errors import BundleError, ConfigError, StorageError
from recsys_ray.base.manifest import write_manifest
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext, Requests
from recsys_ray.data.prepared import Prepared
from recsys_ray.models import MODELS
from recsys_ray.recommend.bundle import MANIFEST, Bundle, bundle_in_memory, open_bundle, save_bundle, write_bundle
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.options import read_options
from tests.data_worlds import prepare_values

WORLD: dict[str, Any] = {
    "source": "synthetic",
    "users": 60,
    "items": 30,
    "interactions_per_user": 8,
    "shards": 2,
    "filters": {"min_rating": 3.0},
    "split": {"kind": "leave_last_out"},
}
PARTS = ("train", "valid")


def world(output: Path, parts: tuple[str, ...] = PARTS, alone: bool = False) -> tuple[Prepared, Bundle]:
    """An output directory with prepared data and a bundle."""
    prepared = prepare_values(output / "prepared" / "abc", **WORLD)
    location = Location.of(output / "models" / "item_cf-1")
    scorer = MODELS["item_cf"]().fit_scorer(prepared.train_data(parts), FitContext())
    save_bundle(bundle_in_memory(scorer, prepared, parts, {"model": "item_cf"}), location, alone=alone)
    return prepared, open_bundle(location, verify=True)


def assert_same(one: Requests, other: Requests) -> None:
    assert one.user_ids.equals(other.user_ids)
    for read in (
        lambda requests: requests.users_B,
        lambda requests: requests.histories.offsets_B1,
        lambda requests: requests.histories.items_E,
        lambda requests: requests.histories.ratings_E,
        lambda requests: requests.histories.timestamps_E,
        lambda requests: requests.seen.offsets_B1,
        lambda requests: requests.seen.items_E,
    ):
        np.testing.assert_array_equal(read(one), read(other))
        assert read(one).dtype == read(other).dtype


def test_histories_are_those_of_the_fit_whether_referred_to_or_carried_along(tmp_path: Path) -> None:
    prepared, referring = world(tmp_path / "a")
    _, alone = world(tmp_path / "b", alone=True)
    assert "users" not in referring.location.names() and "users" in alone.location.names()
    shutil.rmtree(tmp_path / "b" / "prepared")
    alone = open_bundle(alone.location, verify=True)
    seen = 0
    for shard in range(2):
        expected = prepared.requests(shard, PARTS)
        assert_same(referring.requests(shard), expected)
        assert_same(alone.requests(shard), expected)
        seen += len(expected.seen.items_E)
    assert seen > 0
    assert referring.items.equals(alone.items)
    np.testing.assert_array_equal(referring.item_counts(), prepared.item_counts(PARTS))


def test_held_out_interactions_are_not_in_the_histories(tmp_path: Path) -> None:
    prepared, bundle = world(tmp_path, parts=("train",))
    for shard in range(2):
        held_out = prepared.requests(shard, ("valid", "test")).histories
        known = bundle.requests(shard).histories
        whole = prepared.requests(shard, ("train", "valid", "test")).histories
        np.testing.assert_array_equal(known.lengths_B + held_out.lengths_B, whole.lengths_B)
        assert held_out.num_interactions > 0


def test_a_copied_output_directory_is_whole(tmp_path: Path) -> None:
    _, bundle = world(tmp_path / "made")
    expected = bundle.requests(1)
    shutil.copytree(tmp_path / "made", tmp_path / "copy")
    shutil.rmtree(tmp_path / "made")
    copied = open_bundle(Location.of(tmp_path / "copy" / "models" / "item_cf-1"), verify=True)
    assert_same(copied.requests(1), expected)


def test_a_copy_reads_its_own_prepared_data_and_not_the_one_it_was_made_from(tmp_path: Path) -> None:
    world(tmp_path / "made")
    shutil.copytree(tmp_path / "made", tmp_path / "copy")
    part = tmp_path / "made" / "prepared" / "abc" / "users" / "part-00000.parquet"
    part.write_bytes(b"?")
    open_bundle(Location.of(tmp_path / "copy" / "models" / "item_cf-1"), verify=True)
    with pytest.raises(BundleError, match=r"part-00000\.parquet: checksum or size differs"):
        open_bundle(Location.of(tmp_path / "made" / "models" / "item_cf-1"))


def test_a_flipped_bit_in_the_histories_is_seen_when_all_is_read(tmp_path: Path) -> None:
    _, bundle = world(tmp_path)
    part = tmp_path / "prepared" / "abc" / "users" / "part-00001.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    open_bundle(bundle.location)
    with pytest.raises(BundleError, match=r"part-00001\.parquet: checksum or size differs .*run prepare"):
        open_bundle(bundle.location, verify=True)
    part.unlink()
    with pytest.raises(BundleError, match=r"part-00001\.parquet: missing from the prepared data; copy .* or run"):
        open_bundle(bundle.location)


def test_prepared_data_that_is_gone_or_of_another_world_is_one_line(tmp_path: Path) -> None:
    _, bundle = world(tmp_path)
    shutil.rmtree(tmp_path / "prepared")
    with pytest.raises(
        BundleError, match=r"user histories are in prepared data abc, looked for at .*; copy the dir"
    ) as e:
        open_bundle(bundle.location)
    assert "\n" not in str(e.value)
    prepare_values(tmp_path / "prepared" / "abc", **WORLD | {"items": 31})
    with pytest.raises(BundleError, match=r"abc is not what the model was fitted on \(vocabulary_sha256 differs\)"):
        open_bundle(bundle.location)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "unreadable; run train"),
        (b"[]", "found a list"),
        (b"{}", "checksum differs"),
        ({}, "incomplete, it has no format"),
        (b'{"format": 2}', "incomplete, it has no scorer"),
        ({"format": "two"}, "bundle format two, this version reads 1 to 3"),
        ({"format": 4}, "bundle format 4, this version reads 1 to 3"),
        (b'{"format": 3}', "checksum differs"),
    ],
)
def test_a_manifest_of_another_shape_is_one_line(tmp_path: Path, content: bytes | dict[str, Any], message: str) -> None:
    bundle = Location.of(tmp_path / "item_cf-1")
    if isinstance(content, bytes):
        (bundle / MANIFEST).write_bytes(content)
    else:
        write_manifest(bundle / MANIFEST, content)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(bundle)
    assert "\n" not in str(caught.value) and str(bundle) in str(caught.value)


def test_what_a_model_falls_back_on_is_saved_with_it(tmp_path: Path) -> None:
    prepared, _ = world(tmp_path)
    data = prepared.train_data(PARTS)
    first, second, third = (MODELS[name]().fit_scorer(data, FitContext()) for name in ("als", "item_cf", "ease"))
    location = Location.of(tmp_path / "models" / "als-1")
    write_bundle(location, first, prepared, PARTS, {"model": "als"}, fallbacks={"near": second, "ease": third})
    bundle = open_bundle(location, verify=True)
    assert bundle.sources[:2] == ("model", "fallback:popularity")
    assert set(bundle.sources[2:4]) == {"fallback:near", "fallback:ease"}
    requests = bundle.requests(0)
    np.testing.assert_array_equal(bundle.scorer.score(requests), first.score(requests))
    np.testing.assert_array_equal(bundle.fallbacks["near"].score(requests), second.score(requests))
    np.testing.assert_array_equal(bundle.fallbacks["ease"].score(requests), third.score(requests))


def test_a_fallback_that_was_not_fitted_is_named(tmp_path: Path) -> None:
    _, bundle = world(tmp_path)
    with pytest.raises(ConfigError, match=r"recommend\.fallback: the fitted model holds no content"):
        read_options(bundle, RecommendSettings(n=2, fallback=["content", "popularity"]))


def test_all_files_reach_the_disk_before_the_manifest_and_are_open_to_the_same_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(file: int) -> None:
        happened.append(f"sync {Path(os.readlink(f'/proc/self/fd/{file}')).name}")
        sync(file)

    def noted_replace(self: Path, target: Path) -> Path:
        happened.append(f"name {Path(target).name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    _, bundle = world(tmp_path, alone=True)
    place = Path(str(bundle.location))
    happened = happened[happened.index("name arrays.safetensors") - 1 :]
    last = happened.index("name manifest.json")
    written = ["arrays.safetensors", "items.parquet", "part-00000.parquet", "part-00001.parquet"]
    for name in written:
        at = happened.index(f"name {name}")
        assert happened[at - 1].startswith(f"sync .{name}") and at < last
    assert happened.index("sync users") < last and happened.index(f"sync {place.name}") < last
    assert happened[last - 1].startswith("sync .manifest.json") and happened[last + 1] == f"sync {place.name}"
    modes = {path.stat().st_mode & 0o777 for path in place.rglob("*") if path.is_file()}
    probe = tmp_path / "probe"
    probe.touch()
    assert modes == {probe.stat().st_mode & 0o777}


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """A bundle on an object store; its arrays are copied into a cache under ``tmp_path``."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, bundle = world(tmp_path / "here", alone=True)
    there = Location(f"memory:/{tmp_path}/models/item_cf-1")
    for name in bundle.location.files():
        (there / name).write_bytes((bundle.location / name).read_bytes())
    return there


def copies(tmp_path: Path) -> list[Path]:
    return list((tmp_path / f"recsys_ray-{os.getuid()}").iterdir())


def test_an_altered_copy_of_a_remote_bundle_is_fetched_again(remote: Location, tmp_path: Path) -> None:
    expected = open_bundle(remote)
    (copy,) = copies(tmp_path)
    whole = copy.read_bytes()
    for altered in (whole[:-3], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        copy.write_bytes(altered)
        found = open_bundle(remote)
        assert_same(found.requests(0), expected.requests(0))
        assert copy.read_bytes() == whole and copies(tmp_path) == [copy]
    copy.unlink()
    arrays = remote / "arrays.safetensors"
    arrays.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match="checksum differs"):
        open_bundle(remote)
    assert copies(tmp_path) == []


def test_the_cache_of_copies_belongs_to_this_user_alone(remote: Location, tmp_path: Path) -> None:
    open_bundle(remote)
    (copy,) = copies(tmp_path)
    assert copy.parent.stat().st_mode & 0o077 == 0
    copy.parent.chmod(0o777)
    with pytest.raises(StorageError, match="open to other users"):
        open_bundle(remote)
    copy.unlink()
    copy.parent.rmdir()
    (tmp_path / "elsewhere").mkdir()
    copy.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="not ours"):
        open_bundle(remote)
