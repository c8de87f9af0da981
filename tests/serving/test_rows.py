"""A response is made of catalogue rows: outside ids neither tell requests of one batch apart nor lead to items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from recsys_ray.base.storage import Location
from recsys_ray.base.types import Requests
from recsys_ray.recommend import rank
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.similar import similar_items, similar_rows
from recsys_ray.serving.answers.live_run import LiveRun, open_run
from recsys_ray.serving.users.events import Event
from tests.data_worlds import prepare_events
from tests.serving_worlds import client, publish_run, published_rows

ALIKE = ["7", "07", "7.0", "+7", "0", "1", "01", "1e0", "2", "3"]
"""Ids of text that would be one number, or the place of a request in a batch."""
BATCHED: dict[str, Any] = {"cache": {"mib": 0}, "batching": {"max_wait_ms": 200.0}}


@pytest.fixture
def run(world: Path) -> LiveRun:
    [name] = [path.name for path in (world / "recommendations").iterdir() if path.is_dir()]
    return open_run(Location.of(world), name, 1 << 20)


def same(one: rank.Ranked, other: rank.Ranked) -> None:
    np.testing.assert_array_equal(one.rows_BK, other.rows_BK)
    np.testing.assert_array_equal(one.sources_BK, other.sources_BK)
    np.testing.assert_allclose(one.scores_BK, other.scores_BK, rtol=1e-6)


def several(run: LiveRun) -> list[Requests]:
    """Known users, an unknown one twice, and two histories without a user."""
    known = [found for user in range(1, 9) if (found := run.users.find(str(user))) is not None]
    new = [run.request(None, [Event(str(item), 5.0, 0)])[0] for item in (3, 21)]
    return [known[0], run.empty_request, new[0], *known[1:], new[1], run.empty_request]


def test_a_batch_of_several_requests_equals_each_alone(run: LiveRun) -> None:
    requests = several(run)
    together = run.rank(requests, run.options)
    assert len(together) == len(requests) == 12
    for request, ranked in zip(requests, together, strict=True):
        same(ranked, run.rank([request], run.options)[0])
    assert len({ranked.rows_BK.tobytes() for ranked in together}) == 11  # only the unknown user's are equal


def test_a_request_has_the_id_of_its_user_or_none(run: LiveRun) -> None:
    assert Requests.concatenate(several(run)).user_ids.to_pylist() == [1, None, None, *range(2, 9), None, None]


def test_ids_do_not_tell_the_requests_of_a_batch_apart(run: LiveRun) -> None:
    requests = several(run)
    renamed = [replace(request, user_ids=pa.array([1])) for request in requests]
    for one, other in zip(run.rank(requests, run.options), run.rank(renamed, run.options), strict=True):
        same(one, other)


@pytest.fixture
def without_ids(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A service in which the table of outside ids can't be had."""

    def unwanted(*arguments: Any) -> Any:
        raise AssertionError("a response went through outside ids")

    with client(world, state=str(tmp_path)) as service:
        monkeypatch.setattr(Bundle, "item_ids", property(unwanted))
        monkeypatch.setattr(rank, "to_table", unwanted)
        yield service
        monkeypatch.undo()


def test_lists_and_similar_items_are_made_without_ids(without_ids: TestClient) -> None:
    for path in ("recommendations/5", "recommendations/none", "recommendations/5?n=3&offset=2", "items/1/similar"):
        answer = without_ids.get(f"/v1/{path}")
        assert answer.status_code == 200 and answer.json()["items"], answer.text


@pytest.mark.slow
def test_ids_that_look_alike_keep_to_themselves_in_one_batch(tmp_path: Path) -> None:
    liked = [(user, (at + step) % len(ALIKE)) for at, user in enumerate(ALIKE) for step in (0, 1, 3, 4)]
    events = [(user, ALIKE[item], 1.0 + at % 5, 100 + at) for at, (user, item) in enumerate(liked)]
    published = published_rows(publish_run(tmp_path, prepare_events(tmp_path, events, id_type="string"), n=4))
    assert set(published) == set(ALIKE)
    users = [*ALIKE, "4", "007", *ALIKE[::-1]]
    with client(tmp_path, **BATCHED) as service:
        many = service.post("/v1/recommendations", json={"user_ids": users, "n": 4, "explain": True}).json()["results"]
        alone = {
            user: service.get(f"/v1/recommendations/{quote(user, safe='')}?n=4&explain=true").json() for user in users
        }
    for user, answer in zip(users, many, strict=True):
        assert (answer["user_id"], answer["user"]) == (user, "known" if user in ALIKE else "unknown")
        assert answer["items"] == alone[user]["items"]
        if user in published:
            assert [item["item_id"] for item in answer["items"]] == [row["item_id"] for row in published[user]]
            mine = {ALIKE[item] for name, item in liked if name == user}
            assert {cause["item_id"] for item in answer["items"] for cause in item["reason"]["because_of"]} <= mine
    assert len({tuple(item["item_id"] for item in answer["items"]) for answer in many}) > 5


def test_a_page_of_a_list_has_the_reasons_of_the_whole(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as service:

        def items(**params: Any) -> list[Any]:
            found: list[Any] = service.get("/v1/recommendations/5", params=params | {"explain": True}).json()["items"]
            return found

        whole = items(n=70)
        edge = sum(item["source"] == "model" for item in whole)  # where the fallback's rows begin
        assert 0 < edge < 70
        assert whole[edge - 5 : edge + 5] == items(n=10, offset=edge - 5)


def test_the_table_of_similar_items_is_made_of_rows(run: LiveRun, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, rows_R = run.bundle, np.array([5, 0, 79, 5], np.int32)
    top, ids = similar_rows(bundle, rows_R, 6), run.catalogue.ids
    expected = [
        (ids[row], rank, ids[like])
        for row, likes in zip(rows_R, top.rows_BK.tolist(), strict=True)
        for rank, like in enumerate(likes, start=1)
        if like >= 0
    ]
    monkeypatch.setattr("recsys_ray.recommend.similar.BLOCK_BYTES", 1)  # block after block of one item
    table = similar_items(bundle, rows_R, 6).to_pylist()
    assert [(row["item_id"], row["rank"], row["similar_item_id"]) for row in table] == expected
    np.testing.assert_array_equal([row["score"] for row in table], top.scores_BK[top.rows_BK >= 0])
