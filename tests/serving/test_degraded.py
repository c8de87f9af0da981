"""A model that can't be loaded: what it falls back on answers, says so, and steps aside once the model is back."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from recsys_ray.base.manifest import read_manifest, write_manifest
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext
from recsys_ray.models import MODELS
from recsys_ray.recommend.bundle import ARRAYS, open_fallbacks, write_bundle
from recsys_ray.serving.answers import live_runs
from tests.serving.test_parts import AS_ADMIN, KEYS
from tests.serving_worlds import client, prepared_world, publish_run


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_fallbacks_answer_until_the_model_is_back(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_runs, "RETRY_SECONDS", 0.1)
    output = tmp_path / "world"
    publish_run(output, prepared_world(output))
    (arrays,) = output.glob(f"models/*/{ARRAYS}")
    whole = arrays.read_bytes()
    if damage == "cut":
        arrays.write_bytes(whole[: len(whole) // 2])
    else:
        arrays.unlink()
    with client(output, state=str(tmp_path / "state"), poll_seconds=0.05) as service:
        answer = service.get("/v1/recommendations/1", params={"n": 4}).json()
        assert answer["source"] == "fallback:popularity" and len(answer["items"]) == 4
        assert service.get("/health/ready").json() == {"status": "degraded", "degraded": ["default"]}
        arrays.write_bytes(whole)
        deadline = time.monotonic() + 20
        while service.get("/v1/recommendations/1", params={"n": 4}).json()["source"] != "model":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert service.get("/health/ready").json() == {"status": "ready", "degraded": []}


def test_a_run_with_a_flipped_bit_in_its_model_is_not_switched_to(tmp_path: Path) -> None:
    prepared, dice = prepared_world(tmp_path), random.Random(0)
    second = publish_run(tmp_path, prepared, "popularity", tag="b").name
    first = publish_run(tmp_path, prepared, "item_cf", tag="a").name
    (tmp_path / "recommendations" / "LATEST").write_text(second)
    files = [path for path in (tmp_path / "models" / "item_cf-a").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"arrays.safetensors", "items.parquet", "manifest.json"}
    with client(tmp_path, keys=KEYS) as service:
        for turn in range(24):
            path = files[turn % len(files)]
            whole = path.read_bytes()
            flipped = bytearray(whole)
            flipped[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
            path.write_bytes(bytes(flipped))
            answer = service.post("/v1/models/activate", json={"run_id": first}, headers=AS_ADMIN)
            assert answer.status_code in (409, 503) and "\n" not in answer.json()["error"], answer.text
            assert service.get("/v1/recommendations/5", headers=AS_ADMIN).json()["run_id"] == second
            path.write_bytes(whole)
        assert service.post("/v1/models/activate", json={"run_id": first}, headers=AS_ADMIN).status_code == 200


def test_fitted_fallbacks_are_kept_where_only_the_model_is_broken(tmp_path: Path) -> None:
    prepared = prepared_world(tmp_path)
    data = prepared.train_data(("train",))
    first, second = (MODELS[name]().fit_scorer(data, FitContext()) for name in ("als", "item_cf"))
    location = Location.of(tmp_path / "models" / "als-1")
    write_bundle(location, first, prepared, ("train",), {"model": "als"}, fallbacks={"near": second})
    manifest = read_manifest(location / "manifest.json")
    write_manifest(location / "manifest.json", manifest | {"scorer": "of another version"})
    bundle = open_fallbacks(location)
    requests = bundle.requests(0)
    assert not bundle.scorer.answers(requests).any()
    assert (bundle.fallbacks["near"].score(requests) == second.score(requests)).all()
