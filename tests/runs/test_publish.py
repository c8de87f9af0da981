"""Runs on disk: resume, publish, roll back, prune. No Ray, no model."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pytest

from recsys_ray.base.errors import PublishError
from recsys_ray.base.manifest import read_manifest
from recsys_ray.base.storage import Location
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.runs import history, publish
from recsys_ray.runs.published import RunFacts, UsedModel, part_stamps


@pytest.fixture(autouse=True)
def all_runs_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "YOUNG_SECONDS", 0)


def facts(*parts: Location, made_with: list[str] | None = None) -> RunFacts:
    stamps = {part.name: part_stamps(part.parent, [part.name])[part.name] for part in parts}
    asked = RecommendSettings()
    return RunFacts(model=UsedModel("item_cf-a"), recommend=asked, parts=stamps, made_with=made_with or [])


def published(root: Location, fingerprint: str) -> Location:
    run = publish.start_run(root, fingerprint, {})
    (run / "part-00000.parquet").write_parquet(pa.table({"user_id": [1]}))
    publish.publish(root, run, facts(run / "part-00000.parquet"))
    return run


def test_the_same_fingerprint_finds_its_run_again_and_another_one_does_not(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    first = publish.start_run(root, "a" * 64, {})
    assert publish.start_run(root, "a" * 64, {}) == first
    assert publish.start_run(root, "b" * 64, {}) != first


def test_finished_shards_are_the_final_names_only(tmp_path: Path) -> None:
    run = Location.of(tmp_path) / "run"
    for name in ("part-00003.parquet", ".part-00004.parquet.1a2b.tmp", "part-junk.parquet"):
        (run / name).write_bytes(b"x")
    assert publish.finished_shards(run) == {3}


def test_publish_moves_latest_and_remembers_the_run_before(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    assert publish.latest(root) is None
    first, second = published(root, "a" * 64), published(root, "b" * 64)
    assert publish.latest(root) == second.name
    manifest = read_manifest(second / "_manifest.json")
    assert manifest["previous"] == first.name
    assert set(manifest["parts"]) == {"part-00000.parquet"}


def test_rollback_walks_back_and_a_withdrawn_run_is_not_published_again(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    first, second, third = (published(root, letter * 64) for letter in "abc")
    assert publish.rollback(root) == (third.name, second.name)
    assert publish.rollback(root) == (second.name, first.name)
    assert publish.latest(root) == first.name
    with pytest.raises(PublishError, match="withdrawn"):
        publish.publish(root, third, facts())
    with pytest.raises(PublishError, match="nothing to roll back to"):
        publish.rollback(root)
    assert publish.rollback(root, third.name) == (first.name, third.name)
    publish.publish(root, third, facts())


def test_rollback_refuses_what_is_not_a_published_run(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    with pytest.raises(PublishError, match="nothing is published"):
        publish.rollback(root)
    run = published(root, "a" * 64)
    for target in ("20200101T000000-none", run.name):
        with pytest.raises(PublishError, match="not another published run"):
            publish.rollback(root, target)
    assert publish.latest(root) == run.name


def test_a_pointer_to_a_deleted_run_is_an_error_and_not_a_first_run(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    published(root, "a" * 64).remove()
    with pytest.raises(PublishError, match="LATEST"):
        publish.latest_run(root)


def test_prune_keeps_the_last_of_the_chain_and_the_unfinished(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    first, second, third, fourth = (published(root, letter * 64) for letter in "abcd")
    unfinished = publish.start_run(root, "e" * 64, {})
    assert history.newest_first(root) == [run.name for run in (fourth, third, second, first)]
    publish.rollback(root, second.name)
    assert history.newest_first(root) == [run.name for run in (second, first, fourth, third)]
    assert history.prune(root, keep=3) == [third.name]
    assert history.prune(root, keep=1) == [fourth.name]  # LATEST and the one before it stay
    left = {run.name for run in (first, second, unfinished)}
    assert {name for name in root.names() if name != "LATEST"} == left


@pytest.mark.parametrize("letters", ["bca", "abc", "cab"])
def test_the_order_is_the_chain_not_the_clock(tmp_path: Path, letters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Location.of(tmp_path)
    names = [f"20260101T000000-{letter * 10}" for letter in letters]
    years = itertools.cycle([2099, 2001, 2050])
    monkeypatch.setattr(publish, "_now", lambda: f"{next(years)}-01-01T00:00:00+00:00")
    for name in names:
        publish.publish(root, root / name, facts())
    assert history.prune(root, keep=2) == names[:1]
    assert publish.latest(root) == names[2] and publish.rollback(root) == (names[2], names[1])


def test_a_run_published_again_is_newer_than_one_started_after_it(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    first, second = published(root, "a" * 64), published(root, "b" * 64)
    third = published(root, "c" * 64)
    publish.publish(root, first, facts())
    assert history.newest_first(root) == [first.name, third.name, second.name]
    assert history.prune(root, keep=2) == [second.name]


def test_prune_keeps_what_is_used_and_what_is_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Location.of(tmp_path)
    runs = [published(root, letter * 64).name for letter in "abcd"]
    monkeypatch.setattr(history, "YOUNG_SECONDS", 3600)
    assert history.prune(root, keep=1) == []
    monkeypatch.setattr(history, "YOUNG_SECONDS", 0)
    assert history.prune(root, keep=1, used={runs[0]}) == [runs[1]]
    assert history.prune(root, keep=1) == [runs[0]] and publish.latest(root) == runs[3]


def test_what_a_run_was_made_with_goes_with_the_last_run_that_needs_it(tmp_path: Path) -> None:
    output = Location.of(tmp_path)
    root = output / "recommendations"
    for name in ("models/old", "models/new", "prepared/both"):
        (output / name / "manifest.json").write_bytes(b"{}")
    for letter, model in (("a", "old"), ("b", "new"), ("c", "new")):
        run = publish.start_run(root, letter * 64, {})
        publish.publish(root, run, facts(made_with=[f"models/{model}", "prepared/both"]))
    assert len(history.prune(root, keep=1)) == 1
    assert (output / "models").names() == ["new"] and (output / "prepared").names() == ["both"]
    assert history.prune(root, keep=1) == [] and (output / "models" / "new" / "manifest.json").exists()


def test_nothing_outside_the_output_is_ever_deleted_whatever_a_record_says(tmp_path: Path) -> None:
    output = Location.of(tmp_path / "out")
    root, outside = output / "recommendations", Location.of(tmp_path / "other" / "models" / "precious.txt")
    outside.write_bytes(b"x")
    (output / "precious.txt").write_bytes(b"x")
    for made in ("../other", "prepared/../../other", "../other/models", "/other", f"{tmp_path}/other", "", ".", ".."):
        run = publish.start_run(root, f"{len(root.names()):010}", {})
        publish.publish(root, run, facts(made_with=[made, "precious.txt", "recommendations"]))
    assert len(history.prune(root, keep=2)) == 6
    assert outside.exists() and (output / "precious.txt").exists() and len(root.names()) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\x00"])
def test_a_damaged_record_of_an_old_run_stops_nothing(tmp_path: Path, content: bytes) -> None:
    root = Location.of(tmp_path)
    runs = [published(root, letter * 64) for letter in "abcde"]
    (runs[1] / "_manifest.json").write_bytes(content)
    said: list[str] = []
    assert history.prune(root, keep=2, progress=said.append) == [runs[0].name, runs[2].name]
    assert len(said) == 1 and runs[1].name in said[0] and "left alone" in said[0]
    again = published(root, "f" * 64)
    assert publish.latest(root) == again.name
    with pytest.raises(PublishError):
        publish.rollback(root, runs[1].name)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"20200101T000000-gone", b"../../etc", b"[1]"])
def test_a_damaged_pointer_is_refused_by_readers_and_mended_by_a_run(tmp_path: Path, content: bytes) -> None:
    root = Location.of(tmp_path)
    runs = [published(root, letter * 64) for letter in "ab"]
    (root / "LATEST").write_bytes(content)
    with pytest.raises(PublishError, match="LATEST"):
        publish.latest_run(root)
    said: list[str] = []
    history.mend_latest(root, said.append)
    assert publish.latest_run(root) == runs[1] and len(said) == 1
    history.mend_latest(root, said.append)
    assert len(said) == 1


def test_a_renamed_run_is_pruned_by_the_name_it_has(tmp_path: Path) -> None:
    root = Location.of(tmp_path / "recommendations")
    first = published(root, "a" * 64)
    (tmp_path / "recommendations" / first.name).rename(tmp_path / "recommendations" / "kept-aside")
    second, third = published(root, "b" * 64), published(root, "c" * 64)
    assert history.prune(root, keep=1) == ["kept-aside"]
    assert {name for name in root.names() if name != "LATEST"} == {second.name, third.name}


def test_parts_that_can_not_be_read_are_removed(tmp_path: Path) -> None:
    run, said = Location.of(tmp_path) / "run", []
    for shard in range(4):
        (run / f"part-{shard:05d}.parquet").write_parquet(pa.table({"a": [shard]}))
    good = (run / "part-00001.parquet").read_bytes()
    flipped = bytearray(good)
    flipped[8] ^= 1
    (run / "part-00001.parquet").write_bytes(b"")
    (run / "part-00002.parquet").write_bytes(good[:-9])
    (run / "part-00003.parquet").write_bytes(bytes(flipped))
    assert publish.whole_shards(run, progress=said.append) == {0} == publish.finished_shards(run)
    assert len(said) == 1 and "3 parts" in said[0]


@pytest.mark.parametrize("reader", ["pandas", "polars", "duckdb", "pyarrow"])
def test_other_programs_read_the_directory_of_a_run_as_it_is(tmp_path: Path, reader: str) -> None:
    root = Location.of(tmp_path)
    run = published(root, "a" * 64)
    published(root, "b" * 64)
    publish.rollback(root)
    (root / "LATEST").write_bytes(f"{run.name}\n".encode())
    (run / "_WITHDRAWN").write_bytes(b"x")
    (run / "part-00001.parquet").write_parquet(pa.table({"user_id": [2]}))
    library = pytest.importorskip(reader)
    if reader == "duckdb":
        found = library.sql(f"SELECT user_id FROM '{run}/*.parquet'").fetchnumpy()["user_id"].tolist()
    elif reader == "pyarrow":
        dataset = pytest.importorskip("pyarrow.dataset").dataset(str(run))
        found = dataset.to_table().column("user_id").to_pylist()
    else:  # polars takes every file of a directory
        place = f"{run}/*.parquet" if reader == "polars" else str(run)
        found = library.read_parquet(place)["user_id"].to_list()
    assert sorted(found) == [1, 2]
