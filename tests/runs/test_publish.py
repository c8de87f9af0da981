"""Runs on disk: resume, publish, roll back, prune. No Ray, no model."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from recsys_ray.base.errors import PublishError
from recsys_ray.base.storage import Location
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.runs import publish
from recsys_ray.runs.published import RunFacts, UsedModel, part_stamps


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
    for name in ("part-00003.parquet", ".part-00004.parquet.1a2b.tmp", "run.json"):
        (run / name).write_bytes(b"x")
    assert publish.finished_shards(run) == {3}


def test_publish_moves_latest_and_remembers_the_run_before(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    assert publish.latest(root) is None
    first, second = published(root, "a" * 64), published(root, "b" * 64)
    assert publish.latest(root) == second.name
    manifest = (second / "run.json").read_json()
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


def test_prune_keeps_the_newest_and_latest_and_the_unfinished(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    first, second, third = (published(root, letter * 64) for letter in "abc")
    unfinished = publish.start_run(root, "d" * 64, {})
    publish.rollback(root, first.name)
    deleted = publish.prune(root, keep=1)
    assert first.name not in deleted and len(deleted) == 1
    assert {name for name in root.names() if name != "LATEST"} == {
        run.name for run in (first, second, third, unfinished)
    } - set(deleted)


def test_prune_keeps_the_last_published_of_runs_started_in_the_same_second(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    for letter in "bca":  # by name the second is the newest, and the third the oldest
        publish.publish(root, root / f"20260101T000000-{letter * 10}", facts())
    assert publish.prune(root, keep=1) == ["20260101T000000-bbbbbbbbbb", "20260101T000000-cccccccccc"]
    assert publish.latest(root) == "20260101T000000-aaaaaaaaaa"


def test_a_run_published_again_is_newer_than_one_started_after_it(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    first, second = published(root, "a" * 64), published(root, "b" * 64)
    third = published(root, "c" * 64)
    publish.publish(root, first, facts())
    assert publish.prune(root, keep=2) == [second.name]
    assert {name for name in root.names() if name != "LATEST"} == {first.name, third.name}


def test_prune_keeps_what_is_used(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    first, second, third = (published(root, letter * 64) for letter in "abc")
    assert publish.prune(root, keep=1, used={first.name}) == [second.name]
    assert publish.prune(root, keep=1) == [first.name] and publish.latest(root) == third.name


def test_what_a_run_was_made_with_goes_with_the_last_run_that_needs_it(tmp_path: Path) -> None:
    output = Location.of(tmp_path)
    root = output / "recommendations"
    for name in ("models/old", "models/new", "prepared/both"):
        (output / name / "manifest.json").write_bytes(b"{}")
    for letter, made_with in (("a", ["models/old", "prepared/both"]), ("b", ["models/new", "prepared/both"])):
        run = publish.start_run(root, letter * 64, {})
        publish.publish(root, run, facts(made_with=made_with))
    assert len(publish.prune(root, keep=1)) == 1
    assert (output / "models").names() == ["new"] and (output / "prepared").names() == ["both"]
    assert publish.prune(root, keep=1) == [] and (output / "models" / "new" / "manifest.json").exists()


def test_a_renamed_run_is_pruned_by_the_name_it_has(tmp_path: Path) -> None:
    root = Location.of(tmp_path / "recommendations")
    first = published(root, "a" * 64)
    (tmp_path / "recommendations" / first.name).rename(tmp_path / "recommendations" / "kept-aside")
    second = published(root, "b" * 64)
    assert publish.prune(root, keep=1) == ["kept-aside"]
    assert {name for name in root.names() if name != "LATEST"} == {second.name}
