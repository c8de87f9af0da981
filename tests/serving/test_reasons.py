"""Reasons in answers: what they cite is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys_ray.serving.http import response_models as schemas
from tests.serving_worlds import client, prepared_world, publish_run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    publish_run(folder, prepared_world(folder), "als", settings={"embedding_dim": 8, "epochs": 3})
    return folder


LIKED = {"history": [{"item_id": item, "rating": 5.0} for item in (3, 8, 21, 34)], "explain": True, "n": 80}


def test_a_cited_item_that_is_taken_out_lowers_the_score(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as service:
        answer = service.post("/v1/recommendations", json=LIKED)
        schemas.Recommendations.model_validate_json(answer.content)
        explained = [item for item in answer.json()["items"] if item["reason"]["kind"] == "contribution"]
        assert len(explained) > 5
        for item in explained[:5]:
            cited = item["reason"]["because_of"][0]
            assert cited["item_id"] in (3, 8, 21, 34) and 0 < cited["share"] <= 1 and item["reason"]["text"]
            without = [event for event in LIKED["history"] if event["item_id"] != cited["item_id"]]  # type: ignore[attr-defined]
            lists = service.post("/v1/recommendations", json=LIKED | {"history": without}).json()["items"]
            after = next(other["score"] for other in lists if other["item_id"] == item["item_id"])
            assert after < item["score"]


def test_the_fallback_is_explained_by_popularity(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as service:
        items = service.get("/v1/recommendations/nobody", params={"explain": True}).json()["items"]
        assert {item["reason"]["kind"] for item in items} == {"popularity"}
        assert service.get("/v1/recommendations/nobody").json()["items"][0].get("reason") is None


def test_rows_that_fill_a_list_up_are_explained_by_popularity_though_genres_are_shared(tmp_path: Path) -> None:
    publish_run(tmp_path, prepared_world(tmp_path), "item_cf", settings={"neighbors": 3})
    with client(tmp_path) as service:
        items = service.post("/v1/recommendations", json=LIKED).json()["items"]
    filled = [item["reason"]["kind"] for item in items if item["source"] == "fallback:popularity"]
    assert len(filled) > 20 and set(filled) == {"popularity"}
