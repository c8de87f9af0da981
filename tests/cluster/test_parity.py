"""The same requests through the batch job and through HTTP: the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_ray.base.storage import Location
from tests.data_worlds import prepare_values
from tests.serving_worlds import client, prepared_world, publish_run, published_rows

MODELS: dict[str, dict[str, Any]] = {
    "item_cf": {},
    "als": {"embedding_dim": 8, "epochs": 3},
    "ease": {},
    "content": {},
    "sasrec": {
        "embedding_dim": 8,
        "blocks": 1,
        "heads": 1,
        "negatives": 16,
        "epochs": 1,
        "positions": "both",
        "relative_time": True,
    },
    "popularity": {},
}
BATCH: dict[str, dict[str, Any]] = {
    "as they are": {},
    "with seen items": {"filter_seen": False},
    "varied": {"rerank": {"diversity": 0.4, "max_per_genre": 4, "pool": 30}},
    "with reasons": {"reasons": True},
    "new arrivals": {"candidates": "cold", "n": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_endpoint_answers_what_the_batch_job_published(model: str, tmp_path: Path) -> None:
    prepared = prepared_world(tmp_path, users=400)
    check(tmp_path, publish_run(tmp_path, prepared, model, settings=MODELS[model]), model)


@pytest.mark.slow
@pytest.mark.parametrize("how", BATCH)
def test_the_endpoint_follows_the_settings_of_the_batch_job(how: str, tmp_path: Path) -> None:
    prepared = prepared_world(tmp_path, split={"kind": "cold_items"} if how == "new arrivals" else {"kind": "none"})
    check(tmp_path, publish_run(tmp_path, prepared, **BATCH[how]), "item_cf")


@pytest.mark.slow
def test_the_endpoint_searches_and_ranks_with_the_stages_of_the_batch_job(tmp_path: Path) -> None:
    prepared = prepared_world(tmp_path)
    publish_run(tmp_path, prepared, "item_cf", tag="r")
    second = Location.of(tmp_path / "models" / "item_cf-r")
    stages: dict[str, Any] = {
        "index": {"kind": "hnsw", "min_recall": 0.0},
        "ranker": {"pool": 40},
        "rerank": {"diversity": 0.3, "pool": 20},
    }
    run = publish_run(tmp_path, prepared, "als", settings=MODELS["als"], second=second, **stages)
    check(tmp_path, run, "als")


@pytest.mark.slow
def test_the_endpoint_keeps_to_the_item_lists_of_the_batch_job(tmp_path: Path) -> None:
    (tmp_path / "allow.txt").write_text("\n".join(map(str, range(1, 61))))
    (tmp_path / "deny.txt").write_text("1\n2\n3\n")
    lists = {"allow": str(tmp_path / "allow.txt"), "deny": str(tmp_path / "deny.txt")}
    check(tmp_path, publish_run(tmp_path, prepared_world(tmp_path), **lists), "item_cf")


@pytest.mark.slow
def test_the_endpoint_answers_what_the_batch_job_published_of_movielens(datasets: Path, tmp_path: Path) -> None:
    source = {"source": "movielens", "path": str(datasets / "ml-latest-small")}
    prepared = prepare_values(tmp_path / "prepared", **source)
    for model in ("item_cf", "als", "content"):
        check(tmp_path, publish_run(tmp_path, prepared, model, settings=MODELS[model], n=20), model)


def check(tmp_path: Path, run: Location, model: str) -> None:
    published = published_rows(run)
    n = max(len(rows) for rows in published.values())
    users = np.random.default_rng(0).permutation(list(published))[:200].tolist()
    with client(tmp_path) as service:
        for user in users:
            answer = service.get(f"/v1/recommendations/{user}", params={"n": len(published[user])}).json()
            assert answer["run_id"] == run.name and answer["model"] == model and answer["user"] == "known"
            expected = published[user]
            assert [item["item_id"] for item in answer["items"]] == [row["item_id"] for row in expected]
            assert [item["source"] for item in answer["items"]] == [row["source"] for row in expected]
            np.testing.assert_allclose(
                [item["score"] for item in answer["items"]], [row["score"] for row in expected], rtol=1e-5, atol=1e-5
            )
        many = service.post("/v1/recommendations", json={"user_ids": users, "n": n}).json()["results"]
        for user, answer in zip(users, many, strict=True):
            assert [item["item_id"] for item in answer["items"]] == [row["item_id"] for row in published[user]]
