"""The whole path through the command, on a small world and a real local Ray."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recsys_ray.base.storage import Location
from recsys_ray.data.prepared import Prepared
from recsys_ray.runs import history
from tests.worlds import World

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_session: Any) -> tuple[World, dict[str, Any]]:
    world = World(tmp_path_factory.mktemp("finished"))
    return world, world.run()


def test_every_user_has_exactly_n_rows_and_nothing_seen(finished: tuple[World, dict[str, Any]]) -> None:
    world, result = finished
    table = world.published()
    counts = table.group_by("user_id").aggregate([("rank", "count"), ("rank", "max")]).to_pylist()
    assert len(counts) == 300 and all(row["rank_count"] == row["rank_max"] == 20 for row in counts)
    prepared = Prepared.open(Location(result["prepare"]["path"]))
    ids = prepared.items["item_id"].to_pylist()
    shown = set(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    for shard in range(prepared.num_shards):
        for row in prepared.shard(shard).to_pylist():
            assert not shown & {(row["user_id"], ids[item]) for item in row["items"]}


def test_metrics_are_above_popularity_and_come_with_intervals(finished: tuple[World, dict[str, Any]]) -> None:
    result = finished[1]["evaluate"]
    assert result["metrics"]["ndcg@20"] > 1.2 * result["baselines"]["popularity"]["ndcg@20"]
    report = json.loads((Path(result["path"]) / "metrics.json").read_text())["model"]
    low, high = report["intervals"]["recall@20"]
    assert low < report["metrics"]["recall@20"] < high


def test_the_manifest_says_what_was_published(finished: tuple[World, dict[str, Any]]) -> None:
    world, result = finished
    manifest = json.loads((world.latest() / "_manifest.json").read_text())
    assert manifest["run_id"] == world.latest().name == Path(result["recommend"]["path"]).name
    assert manifest["checks"]["users"] == 300 and manifest["checks"]["rows"] == 6000
    assert manifest["evaluation"] == result["evaluate"]["metrics"]
    assert manifest["config"]["data"]["users"] == 300
    assert sorted(manifest["parts"]) == sorted(part.name for part in world.latest().glob("*.parquet"))


def test_a_second_run_skips_every_stage_and_says_so(finished: tuple[World, dict[str, Any]]) -> None:
    world, first = finished
    before = {path: path.stat().st_mtime_ns for path in world.folder.rglob("*") if path.is_file()}
    outcome = world.command("run")
    assert outcome.status == 0
    assert outcome.result.pop("summary")
    assert all(stage["skipped"] for stage in outcome.result.values())
    assert outcome.errors.count("unchanged, skipped ->") == len(outcome.result)
    assert set(outcome.result) == set(first) - {
        "popularity",
        "transitions",
        "summary",
    }  # its numbers are in the report that was kept
    assert {path: path.stat().st_mtime_ns for path in world.folder.rglob("*") if path.is_file()} == before


def test_the_former_names_of_sections_redo_nothing(finished: tuple[World, dict[str, Any]]) -> None:
    world, first = finished
    before = copy.copy(world)
    before.config = world.folder / "former.yaml"
    before.config.write_text(world.config.read_text().replace("evaluation:", "evaluate:"))
    assert before.config.read_text() != world.config.read_text()
    again = before.run("train.refit=all", "publish.keep=5")
    assert all(stage["skipped"] for name, stage in again.items() if name != "summary")
    stages = set(again) - {"summary"}
    assert {name: again[name]["path"] for name in stages} == {name: first[name]["path"] for name in stages}


def test_a_changed_key_redoes_what_depends_on_it_and_no_more(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = world.run(stage="recommend")
    again = world.run("recommend.n=25", stage="recommend")
    assert not again["skipped"] and again["path"] != first["path"] and again["bundle"] == first["bundle"]
    model = world.run("model.neighbors=10", stage="train")
    assert not model["skipped"] and model["path"] != first["bundle"]
    assert world.run("model.neighbors=10", stage="train")["skipped"]
    before = world.run(stage="prepare")
    after = world.run("seed=1", stage="prepare")
    assert before["skipped"] and not after["skipped"] and before["path"] != after["path"]


def test_benchmark_setting_publishes_exactly_what_was_evaluated(tmp_path: Path) -> None:
    world = World(tmp_path, training={"refit": "train+valid"})
    result = world.run()
    assert "refit" not in result
    report = json.loads((Path(result["evaluate"]["path"]) / "metrics.json").read_text())
    assert report["run"] == result["recommend"]["path"]
    prepared = Prepared.open(Location(result["prepare"]["path"]))
    ids = prepared.items["item_id"].to_pylist()
    hits = users = 0
    table = world.published()
    for shard in range(prepared.num_shards):
        for row in prepared.shard(shard).to_pylist():
            wanted = {ids[item] for item, part in zip(row["items"], row["parts"], strict=True) if part == 2}
            if wanted:
                rows = table.filter(pc.equal(table["user_id"], row["user_id"]))
                users += 1
                hits += len(wanted & set(rows["item_id"].to_pylist()))
    assert result["evaluate"]["metrics"]["recall@20"] == pytest.approx(hits / users)  # one target a user


def test_stages_alone_give_the_rows_of_the_whole_and_deleted_parts_are_written_again(
    tmp_path: Path, finished: tuple[World, dict[str, Any]]
) -> None:
    world = World(tmp_path)
    for stage in ("prepare", "train"):
        assert world.run(stage=stage)["stage"] == stage
    first = world.run(stage="recommend")
    assert world.published().equals(finished[0].published())
    expected, run = world.published(), Path(first["path"])
    (run / "_manifest.json").unlink()
    (run / "part-00001.parquet").unlink()
    kept = (run / "part-00002.parquet").stat().st_mtime_ns
    again = world.run(stage="recommend")
    assert again["path"] == str(run) and again["shards_resumed"] == 2
    assert (run / "part-00002.parquet").stat().st_mtime_ns == kept
    assert world.published().equals(expected)


def test_nested_layout_string_ids_and_item_lists(tmp_path: Path) -> None:
    deny = tmp_path / "deny.txt"
    world = World(
        tmp_path, data={"source": "synthetic", "users": 60, "items": 50, "interactions_per_user": 8, "shards": 2}
    )
    every = world.run("recommend.n=5", stage="recommend")
    banned = world.published()["item_id"].to_pylist()[:3]
    deny.write_text("\n".join(str(item) for item in banned) + "\n")
    world.run("recommend.n=5", "recommend.layout=nested", f"recommend.deny={deny}", stage="recommend")
    table = world.published()
    assert table.schema.names == ["user_id", "item_ids", "scores", "sources"] and table.num_rows == 60
    assert not set(pc.list_flatten(table["item_ids"]).to_pylist()) & set(banned)
    assert world.latest() != Path(every["path"])


def test_publish_gate_stops_a_run_and_latest_stays(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(stage="recommend")
    before = world.latest()
    outcome = world.command("recommend", "recommend.n=3", "runs.gate.min_coverage=1.0")
    assert outcome.status == 1
    assert "coverage" in outcome.errors and "runs.gate.min_coverage" in outcome.errors
    assert world.latest() == before


def test_what_the_service_was_told_to_stay_on_outlives_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "YOUNG_SECONDS", 0)
    monkeypatch.setattr(history, "KEPT_AT_LEAST", 1)
    world = World(tmp_path, runs={"keep": 1})
    world.run(stage="recommend")
    first = world.latest()
    chosen = tmp_path / "out" / "serving" / "ACTIVE-default.json"
    chosen.parent.mkdir()
    chosen.write_text(json.dumps({"run_id": first.name, "answers": first.name, "previous": None}))
    world.run("recommend.n=7", stage="recommend")
    assert world.latest() != first and (first / "_manifest.json").exists()
    chosen.unlink()
    world.run("recommend.n=8", stage="recommend")
    assert not first.exists()


def test_three_stages_from_one_configuration(tmp_path: Path) -> None:
    ranker = {"model": {"name": "als", "embedding_dim": 8}, "pool": 30}
    world = World(tmp_path, recommend={"n": 20, "ranker": ranker, "rerank": {"diversity": 0.2}})
    result = world.run()
    record = json.loads((world.latest() / "_manifest.json").read_text())
    assert (record["model"]["name"], record["ranker"]["name"], record["ranker"]["pool"]) == ("item_cf", "als", 30)
    for stage in ("train", "refit"):
        assert result[stage]["parts"] == result[f"{stage}_ranker"]["parts"]
        assert f"models/{Path(result[f'{stage}_ranker']['path']).name}" in record["made_with"]
    assert record["ranker"]["bundle"] == Path(result["refit_ranker"]["path"]).name
    assert all(stage["skipped"] for name, stage in world.run().items() if name != "summary")
    assert set(world.run(stage="verify")["checks"]) == {"parts", "bundle", "ranker", "lists"}
    first = world.published()
    again = world.run("recommend.ranker.model.embedding_dim=4", "runs.accuracy.override=true", stage="recommend")
    assert json.loads((world.latest() / "_manifest.json").read_text())["checks"]["accuracy_override"] == 1
    assert not again["skipped"] and again["bundle"] == result["recommend"]["bundle"]
    assert not world.published().equals(first)


def test_rollback_and_what_it_withdraws(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(stage="recommend")
    first = world.latest()
    world.run("recommend.n=7", stage="recommend")
    second = world.latest()
    assert world.run(stage="rollback") == {
        "stage": "rollback", "path": str(first), "from": second.name, "to": first.name,
    }  # fmt: skip
    assert world.latest() == first
    again = world.command("recommend", "recommend.n=7")
    assert again.status == 1 and "withdrawn" in again.errors and world.latest() == first


def test_rating_model_reports_its_error(tmp_path: Path) -> None:
    split = {"kind": "random", "test_ratio": 0.2}
    data = {"source": "synthetic", "users": 300, "items": 120, "interactions_per_user": 12, "shards": 3, "split": split}
    result = World(tmp_path, data=data, model={"name": "svd"}).run("evaluation.baselines=[]", stage="evaluate")
    assert 0 < result["metrics"]["mae"] < result["metrics"]["rmse"] < 2


def test_parts_are_readable_by_any_parquet_reader(finished: tuple[World, dict[str, Any]]) -> None:
    schema = pq.read_schema(finished[0].latest() / "part-00000.parquet")
    assert [(field.name, str(field.type)) for field in schema] == [
        ("user_id", "int64"), ("rank", "int32"), ("item_id", "int64"), ("score", "float"), ("source", "string"),
    ]  # fmt: skip
    assert isinstance(finished[0].published(), pa.Table)
