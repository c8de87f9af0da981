"""Several processes that serve one output directory: what one of them takes counts in all."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from recsys_ray.base.storage import Location
from recsys_ray.serving.http import response_models as schemas
from recsys_ray.serving.users import replicas
from recsys_ray.serving.users.events import Event
from recsys_ray.serving.users.journal import Journal
from recsys_ray.serving.users.replicas import LocalPeers
from tests.serving_worlds import client, counted, prepared_world, publish_run, run_ids, two_runs

ADMIN = "an admin's key"
KEYS = [{"name": "ops", "role": "admin", "sha256": hashlib.sha256(ADMIN.encode()).hexdigest()}]
AS_ADMIN = {"X-API-Key": ADMIN}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two published runs of one data set: item-CF, then popularity as the latest."""
    return two_runs(tmp_path_factory.mktemp("world"))


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "never became true"
        time.sleep(0.02)


def ids(answer: dict[str, Any]) -> list[Any]:
    return [item["item_id"] for item in answer["items"]]


def test_what_one_replica_takes_counts_in_the_next_answer_of_the_other(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as one, client(world, state=str(tmp_path)) as two:
        before = two.get("/v1/recommendations/5").json()
        assert two.get("/v1/recommendations/5").json()["cached"]  # it would have this answer at hand
        liked = before["items"][0]["item_id"]
        assert one.post("/v1/feedback", json={"events": [{"user_id": 5, "item_id": liked}]}).status_code == 200
        after = two.get("/v1/recommendations/5").json()
        assert (after["user"], after["cached"]) == ("updated", False) and liked not in ids(after)
        ratings = [{"item_id": item} for item in ids(before)]
        new = one.post("/v1/onboarding/ratings", json={"ratings": ratings}).json()["user_id"]
        assert two.get(f"/v1/recommendations/{new}").json()["history"] == len(ratings)


def test_a_switch_reaches_every_replica_and_each_can_roll_it_back(world: Path, tmp_path: Path) -> None:
    item_cf, popularity = run_ids(world)

    def switch(service: TestClient, body: dict[str, Any]) -> None:
        assert service.post("/v1/models/activate", json=body, headers=AS_ADMIN).status_code == 200

    def answers(service: TestClient) -> str:
        return str(service.get("/v1/recommendations/5", headers=AS_ADMIN).json()["run_id"])

    settings: dict[str, Any] = {"state": str(tmp_path), "keys": KEYS, "poll_seconds": 0.05}
    with client(world, **settings) as one, client(world, **settings) as two:
        switch(one, {"run_id": item_cf})
        until(lambda: answers(two) == item_cf)
        with client(world, **settings) as third:  # it has answered from nothing else
            switch(third, {"roll_back": True})
            assert answers(third) == popularity
        until(lambda: answers(one) == answers(two) == popularity)
        switch(two, {"roll_back": True})
        until(lambda: answers(one) == item_cf)
        switch(one, {})  # LATEST is followed again
        assert answers(one) == popularity
    (world / "serving" / "ACTIVE-default.json").unlink()


def test_without_following_a_replica_that_starts_later_answers_as_the_first(tmp_path: Path) -> None:
    prepared = prepared_world(tmp_path)
    first = publish_run(tmp_path, prepared, "item_cf", tag="a").name
    with client(tmp_path, follow_latest=False) as one:
        publish_run(tmp_path, prepared, "popularity", tag="b")
        with client(tmp_path, follow_latest=False) as two:
            found = {service.get("/v1/recommendations/5").json()["run_id"] for service in (one, two)}
    assert found == {first}


def test_each_replica_shows_itself_and_the_others(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_ray.serving.service.SECONDS", 0.05)
    with client(world, state=str(tmp_path)) as one:
        with client(world, state=str(tmp_path)) as two:
            for service in (one, two, two):
                service.get("/v1/recommendations/5")
            route = {"route": "/v1/recommendations/{user_id}"}
            until(lambda: counted(one, "recsys_requests_total", **route) == 3)
            infos = [schemas.Info.model_validate_json(service.get("/info").content) for service in (one, two)]
            assert [other.replica for other in infos[0].others] == [infos[1].replica] != [infos[0].replica]
            assert infos[0].others[0].variants == infos[1].variants
            label = {"replica": infos[1].replica}
            assert counted(one, "recsys_requests_total", **route, **label) == 2
        assert one.get("/info").json()["others"] == []


def test_a_replica_that_died_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, dead = LocalPeers(tmp_path), LocalPeers(tmp_path)

    async def living() -> list[str]:
        for one in (alive, dead):
            await one.publish({})
        before = list(await alive.all())
        monkeypatch.setattr(replicas, "GONE_SECONDS", 0.05)
        time.sleep(0.1)
        await alive.publish({})
        return [*before, "|", *(await alive.all())]

    assert asyncio.run(living()) == [*sorted([alive.name, dead.name]), "|", alive.name]
    assert len(list(tmp_path.iterdir())) == 1


def test_two_replicas_write_every_event_once(tmp_path: Path) -> None:
    journals = [Journal(tmp_path / "state.sqlite") for _ in range(2)]
    folder, kinds = Location.of(tmp_path / "feedback"), (pa.int64(), pa.int64())

    async def work(journal: Journal, user: int) -> None:
        for item in range(25):
            await journal.add(str(user), [Event(str(item), 1.0, item)], 1.0, durable=True)
            await asyncio.to_thread(journal.export, folder, *kinds)

    async def both() -> None:
        await asyncio.gather(*(work(journal, user) for user, journal in enumerate(journals)))

    asyncio.run(both())
    for journal in journals:
        journal.export(folder, *kinds)
        journal.close()
    rows = pa.concat_tables([(folder / name).read_parquet() for name in folder.names()]).to_pylist()
    assert sorted((row["user_id"], row["item_id"]) for row in rows) == [(u, i) for u in range(2) for i in range(25)]


def test_a_file_that_another_replica_finished_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one has written it, and has let go of those of its rows that are past their time."""
    journals = [Journal(tmp_path / "state.sqlite") for _ in range(2)]
    folder, kinds = Location.of(tmp_path / "feedback"), (pa.int64(), pa.int64())
    asyncio.run(journals[0].add("1", [Event("1", 1.0, 1)], 1e-6, durable=True))
    asyncio.run(journals[0].add("1", [Event("2", 1.0, 2)], 1.0, durable=True))
    names = journals[0]._name_files()
    time.sleep(0.02)
    assert len(journals[1].export(folder, *kinds)) == 1
    monkeypatch.setattr(journals[0], "_name_files", lambda: names)
    assert journals[0].export(folder, *kinds) == []
    assert (folder / names[0]).read_parquet().num_rows == 2
    for journal in journals:
        journal.close()
