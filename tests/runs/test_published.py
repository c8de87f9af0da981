"""The record of a published run: what is written comes back, and what can't be read is one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.base.errors import PublishError
from recsys_ray.base.manifest import read_manifest, write_manifest
from recsys_ray.base.storage import Location
from recsys_ray.recommend.config import (
    ColumnFilter,
    ContextSettings,
    RankerSettings,
    RecommendSettings,
    StageSettings,
    TimeOfDaySettings,
    TrendingSettings,
)
from recsys_ray.retrieval import IndexSettings, RerankSettings
from recsys_ray.runs import publish, record
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.published import RECORD, RECORD_0, RECORD_2, RunFacts, UsedModel, read_run
from tests.serving_worlds import client, prepared_world, publish_run

FACTS = RunFacts(
    model=UsedModel("als-12", "als", "12ab"),
    ranker=UsedModel("ncf-34", "ncf", "34cd"),
    recommend=RecommendSettings(
        n=7,
        filter_seen=False,
        allow="allow.txt",
        deny="deny.txt",
        candidates="cold",
        fallback=[],
        layout="nested",
        index=IndexSettings(kind="ivf", nlist=4, min_recall=0.5, recall_at=3, sample=9, nprobe=2),
        ranker=RankerSettings(pool=70),
        rerank=RerankSettings(diversity=0.2, similarity="vectors", max_per_genre=2, pool=40),
        reasons=True,
        block_mib=5,
        hidden="hidden",
        at="2026-11-30T20:00:00Z",
        context=ContextSettings.model_validate(
            {"any_genres": ["a"], "all_genres": ["b"], "no_genres": ["c"], "year_from": 1990, "year_to": 2000}
            | {"where": {"price": {"min": 1.5, "max": 20}, "brand": ["a", "b"], "stock": {"none": [0]}}}
        ),
        trending=TrendingSettings(window_days=2.5),
        stages=[StageSettings(name="all", ratings=0, answers="content")],
        time_of_day=TimeOfDaySettings(weight=0.3, by="brand", shrink=5, timezone="Europe/Vienna", hour=3, pool=7),
    ),
    gate=GateSettings(min_coverage=0.1, max_fallback=0.9, min_overlap=0.3),
    min_rating=3.5,
    parts={"part-00000.parquet": {"bytes": 12, "sha256": "ab" * 32}},
    checks={"users": 3, "rows": 21, "coverage": 0.5, "fallback_share": 0.0, "overlap": None},
    index={"recall": 0.97},
    evaluation={"ndcg@10": 0.25},
    made_with=["models/als-12", "prepared/aa"],
    packages={"numpy": "2"},
    config={"name": "x"},
)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    run = publish.start_run(root, "a" * 10, {})
    assert publish.publish(root, run, FACTS) == read_run(run)
    found = vars(read_run(run))
    assert found.items() >= vars(FACTS).items()
    assert (found["run_id"], found["previous"]) == (run.name, None)
    assert (run / RECORD).read_json()["format"] == 3


def test_the_schema_has_every_setting_that_decides_the_lists() -> None:
    """A new setting needs a new version of the format: what is not written can't be read back."""
    for schema, settings in (
        (record.OptionsRecord, RecommendSettings),
        (record.IndexRecord, IndexSettings),
        (record.RerankRecord, RerankSettings),
        (record.GateRecord, GateSettings),
        (record.ContextRecord, ContextSettings),
        (record.FilterRecord, ColumnFilter),
        (record.TrendingRecord, TrendingSettings),
        (record.StageRecord, StageSettings),
        (record.TimeOfDayRecord, TimeOfDaySettings),
    ):
        assert set(schema.model_fields) == set(settings.model_fields) - {"ranker"}
    assert set(RankerSettings.model_fields) == {"pool"}


def old_record(run: Location, change: dict[str, Any]) -> None:
    """The record of the version before, as far as it is read."""
    config = {"recommend": {"n": 4, "ranker": {"bundle": "/data/out/models/ncf-1", "pool": 9}}, "data": {}}
    facts = {"run_id": run.name, "previous": None, "published_at": "2026-11-24", "parts": {"part-00000.parquet": 3}}
    model = {"model": "ease", "n": 4, "layout": "long", "bundle": "/data/out/models/ease-1", "config": config}
    (run / RECORD_0).write_json(facts | model | change)


def new_record(run: Location, change: dict[str, Any]) -> None:
    publish.publish(run.parent, run, FACTS)
    write_manifest(run / RECORD, read_manifest(run / RECORD) | change)


def test_the_format_before_gives_the_same(tmp_path: Path) -> None:
    run = Location.of(tmp_path / "run")
    old_record(run, {})
    found = read_run(run)
    assert found.model == UsedModel("/data/out/models/ease-1", "ease")
    assert found.ranker == UsedModel("/data/out/models/ncf-1")
    assert found.recommend == RecommendSettings(n=4, ranker=RankerSettings(pool=9))
    assert (found.gate, found.min_rating) == (GateSettings(), None)
    assert found.parts == {"part-00000.parquet": {"bytes": 3}}


@pytest.mark.parametrize(
    ("write", "change", "message"),
    [
        (new_record, {"colour": "red"}, r"_manifest\.json: colour: unknown field; .*another version"),
        (new_record, {"format": 4}, r"_manifest\.json: format 4, this version reads 0 to 3; use the version that"),
        (new_record, {"format": None}, r"_manifest\.json: format None, this version reads"),
        (new_record, {"options": {"n": 5, "mood": 1}}, r"_manifest\.json: options\.mood: unknown field"),
        (new_record, {"options": {"n": "five"}}, r"_manifest\.json: options\.n: input should be a valid integer; copy"),
        (new_record, {"options": {"n": 0}}, r"_manifest\.json: n: input should be greater than or equal to 1; copy"),
        (new_record, {"parts": [1]}, r"_manifest\.json: parts: .*dictionary"),
        (new_record, {"model": None}, r"_manifest\.json: model: "),
        (old_record, {"config": {"recommend": {"colour": 1}}}, r"manifest\.json: colour: unknown field"),
        (old_record, {"config": None}, r"manifest\.json: config: .*dictionary"),
        (old_record, {"bundle": 3}, r"manifest\.json: bundle: .*string"),
        (old_record, {"config": {"data": {"filters": {"min_rating": "x"}}}}, r"manifest\.json: min_rating: .*number"),
    ],
)
def test_another_shape_is_one_line_that_names_the_file(
    tmp_path: Path, write: Callable[[Location, dict[str, Any]], None], change: dict[str, Any], message: str
) -> None:
    run = Location.of(tmp_path) / "run"
    write(run, change)
    with pytest.raises(PublishError, match=message) as caught:
        read_run(run)
    assert "\n" not in str(caught.value) and str(run) in str(caught.value)


@pytest.mark.parametrize("name", [RECORD, RECORD_2, RECORD_0])
@pytest.mark.parametrize("content", [b"{", b"[1]", b"null", b"3", b"\xff\xfe", b""])
def test_what_is_no_record_is_one_line_that_names_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    run = Location.of(tmp_path) / "run"
    (run / name).write_bytes(content)
    with pytest.raises(PublishError, match=name) as caught:
        read_run(run)
    assert "\n" not in str(caught.value)


def test_the_service_stays_up_on_a_run_that_it_can_not_read(tmp_path: Path) -> None:
    prepared, root = prepared_world(tmp_path), Location.of(tmp_path) / "recommendations"
    first = publish_run(tmp_path, prepared, "item_cf", tag="a").name
    second = publish_run(tmp_path, prepared, "popularity", tag="b")
    write_manifest(second / RECORD, read_manifest(second / RECORD) | {"format": 99})
    with client(tmp_path, poll_seconds=0.05) as service:
        answer = service.get("/v1/recommendations/5")
        assert answer.status_code == 503
        assert "format 99" in service.get("/v1/models").json()["variants"][0]["problem"]
        (root / publish.LATEST).write_bytes(first.encode())
        deadline = time.monotonic() + 20
        while service.get("/v1/recommendations/5").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert service.get("/v1/recommendations/5").json()["run_id"] == first
