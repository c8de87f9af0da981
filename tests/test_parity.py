"""The same requests through the batch job and through HTTP: the same rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.serving_worlds import client, prepared_world, publish_run, published_rows

MODELS = {
    "item_cf": {},
    "als": {"embedding_dim": 8, "epochs": 3},
    "ease": {},
    "popularity": {},
}


@pytest.mark.parametrize("model", MODELS)
def test_the_endpoint_answers_what_the_batch_job_published(model: str, tmp_path: Path) -> None:
    run = publish_run(tmp_path, prepared_world(tmp_path), model, settings=MODELS[model])
    published = published_rows(run)
    users = np.random.default_rng(0).permutation(list(published))[:200].tolist()
    with client(tmp_path) as service:
        for user in users:
            answer = service.get(f"/v1/recommendations/{user}").json()
            assert answer["run_id"] == run.name and answer["model"] == model and answer["user"] == "known"
            expected = published[user]
            assert [item["item_id"] for item in answer["items"]] == [row["item_id"] for row in expected]
            assert [item["source"] for item in answer["items"]] == [row["source"] for row in expected]
            np.testing.assert_allclose(
                [item["score"] for item in answer["items"]], [row["score"] for row in expected], rtol=1e-5, atol=1e-5
            )
        many = service.post("/v1/recommendations", json={"user_ids": users}).json()["results"]
        for user, answer in zip(users, many, strict=True):
            assert [item["item_id"] for item in answer["items"]] == [row["item_id"] for row in published[user]]
