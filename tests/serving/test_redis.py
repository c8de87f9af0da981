"""Several machines with one Redis, really started; skipped where there is no redis-server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.base.errors import ConfigError
from recsys_ray.serving import ServingSettings, build_app
from recsys_ray.serving.users.events import Event
from recsys_ray.serving.users.redis_state import OWN, Redis, SharedStates
from tests.language_model import INPUT_TOKENS, OUTPUT_TOKENS, listening_model
from tests.redis_server import RedisServer
from tests.serving_worlds import client, counted, prepared_world, publish_run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    publish_run(folder, prepared_world(folder))
    return folder


def test_machines_share_answers_and_what_users_sent(world: Path, tmp_path: Path, redis_server: RedisServer) -> None:
    settings = {"redis": redis_server.url}
    with (
        client(world, state=str(tmp_path / "a"), **settings) as one,
        client(world, state=str(tmp_path / "b"), **settings) as two,
    ):
        first = one.get("/v1/recommendations/5").json()
        again = two.get("/v1/recommendations/5").json()
        assert (first["cached"], again["cached"]) == (False, True) and again["items"] == first["items"]
        assert counted(two, "recsys_cache_hits_total", cache="redis") == 1
        liked = first["items"][0]["item_id"]
        one.post("/v1/feedback", json={"events": [{"user_id": 5, "item_id": liked}]})
        after = two.get("/v1/recommendations/5").json()
        assert after["user"] == "updated" and liked not in [item["item_id"] for item in after["items"]]
        ratings = [{"item_id": item["item_id"]} for item in first["items"]]
        new = one.post("/v1/onboarding/ratings", json={"ratings": ratings}).json()["user_id"]
        assert two.get(f"/v1/recommendations/{new}").json()["user"] == "new"
    # Each machine wrote what it took itself, once.
    assert len(list((world / "feedback").iterdir())) == 1


def test_the_service_goes_on_while_redis_is_away(
    world: Path, tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_ray.serving.users.redis_state.PAUSE_SECONDS", 0.05)
    with (
        client(world, state=str(tmp_path / "a"), redis=redis_server.url) as service,
        client(world, state=str(tmp_path / "b"), redis=redis_server.url) as other,
    ):
        before = service.get("/v1/recommendations/6").json()
        redis_server.stop()
        sent = {"events": [{"user_id": 6, "item_id": before["items"][0]["item_id"]}]}
        assert service.post("/v1/feedback", json=sent).status_code == 200
        after = service.get("/v1/recommendations/6").json()
        assert after["user"] == "updated"
        assert counted(service, "recsys_redis_errors_total") > 0
        redis_server.start()
        deadline = time.monotonic() + 30
        while other.get("/v1/recommendations/6").json()["user"] != "updated":
            service.get("/v1/recommendations/1")  # the next request sends Redis what it missed
            assert time.monotonic() < deadline, "Redis never heard of it"
            time.sleep(0.1)


def test_a_frozen_redis_holds_nobody_up(
    world: Path, tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_ray.serving.users.redis_state.PAUSE_SECONDS", 0.3)
    limits = {"answer_seconds": 2.0}
    with (
        client(world, state=str(tmp_path / "a"), redis=redis_server.url, limits=limits) as service,
        client(world, state=str(tmp_path / "b"), redis=redis_server.url) as other,
    ):
        liked = service.get("/v1/recommendations/8").json()["items"][0]["item_id"]
        redis_server.freeze()
        assert service.post("/v1/feedback", json={"events": [{"user_id": 8, "item_id": liked}]}).status_code == 200
        for user in range(1, 9):
            assert service.get(f"/v1/recommendations/{user}").status_code == 200
            time.sleep(0.1)
        assert service.get("/v1/recommendations/8").json()["user"] == "updated"
        assert counted(service, "recsys_redis_errors_total") >= 2
        assert service.get("/health/ready").json() == {"status": "degraded", "degraded": ["redis"]}
        redis_server.thaw()
        deadline = time.monotonic() + 30
        while other.get("/v1/recommendations/8").json()["user"] != "updated":
            service.get("/v1/recommendations/1")
            assert time.monotonic() < deadline, "Redis never heard of it"
            time.sleep(0.1)


class Journaled:
    """States that know of five events."""

    async def version(self, user: str) -> int:
        return 5

    async def events(self, user: str) -> list[Event]:
        return [Event("1", 1.0, 1)] * 5


def test_no_request_waits_for_all_that_redis_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redis")
    sent: list[str] = []

    async def attempt(work: Any) -> bool:
        sent.append("batch")
        await asyncio.sleep(0.02)
        return True

    async def play() -> tuple[list[int], int]:
        redis = Redis("redis://127.0.0.1:1/0", "test")
        monkeypatch.setattr(redis, "attempt", attempt)
        states: Any = SharedStates(redis, Journaled())
        states._missed.extend(("1", [Event("1", 1.0, 1)], 0.0) for _ in range(1000))
        found = await asyncio.gather(*(states.version("1") for _ in range(5)))
        return found, len(states._missed)

    found, left = asyncio.run(play())
    # Those that can't wait for it go by what this machine knows, under a version that Redis never gives.
    assert set(found) == {OWN + 5} and 0 < len(sent) == 1000 - left < 200


def test_temporary_users_are_forgotten_by_redis_too(world: Path, tmp_path: Path, redis_server: RedisServer) -> None:
    with client(world, state=str(tmp_path), redis=redis_server.url, onboarding={"hours": 5e-4}) as service:
        ratings = [{"item_id": item} for item in range(1, 8)]
        user = service.post("/v1/onboarding/ratings", json={"ratings": ratings}).json()["user_id"]
        assert service.get(f"/v1/recommendations/{user}").json()["user"] == "new"
        time.sleep(3.2)
        assert service.get(f"/v1/recommendations/{user}").json()["user"] == "unknown"


def totals(server: RedisServer) -> dict[str, float]:
    """What Redis has counted of the only day it knows."""
    with pytest.importorskip("redis").Redis.from_url(server.url) as reader:
        (key,) = reader.keys("recsys_ray:*:spending:*")
        assert 0 < reader.ttl(key) <= 31 * 86400
        return {what.decode(): float(amount) for what, amount in reader.hgetall(key).items()}


def test_machines_share_the_texts_of_a_language_model_and_its_daily_limit(
    world: Path, tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_ray.serving.answers.narrator.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("recsys_ray.serving.users.redis_state.PAUSE_SECONDS", 0.05)

    price = (2.0 * INPUT_TOKENS + 0.1 * OUTPUT_TOKENS) / 1000

    def worded(service: Any, user: int) -> int:
        items = service.get(f"/v1/recommendations/{user}", params={"explain": True}).json()["items"]
        return sum(item["reason"]["by"] == "m" for item in items)

    with listening_model() as endpoint:
        priced = {"input_price": 2.0, "output_price": 0.1, "daily_limit": 8.0}
        narrator = {"url": endpoint.url, "model": "m", "items": 1} | priced
        settings: dict[str, Any] = {
            "redis": redis_server.url,
            "narrator": narrator,
            "cache": {"mib": 0, "ttl_seconds": 1e-3},
        }
        with (
            client(world, state=str(tmp_path / "a"), **settings) as one,
            client(world, state=str(tmp_path / "b"), **settings) as two,
        ):
            assert (worded(one, 5), worded(two, 5), len(endpoint.calls)) == (1, 1, 1)
            assert counted(two, "recsys_narrations_total", outcome="cached") == 1
            redis_server.stop()
            assert worded(one, 6) == 1  # counted on its own disk, and told Redis later
            redis_server.start()
            time.sleep(0.1)
            worded(one, 7)
            of_day = totals(redis_server)
            assert of_day["texts"] == 2  # Redis forgot the first one in its restart
            assert of_day["cost"] == pytest.approx(2 * price) and of_day["input_tokens"] == 2 * INPUT_TOKENS
            assert counted(one, "recsys_narration_day", what="texts") >= 3  # which the machine itself did not
            for user in range(8, 80):
                worded((one, two)[user % 2], user)
            assert worded(one, 90) == worded(two, 91) == 0
            assert 2.0 < totals(redis_server)["cost"] <= 8.0
            assert totals(redis_server)["cost"] == pytest.approx(price * (len(endpoint.calls) - 1))


def test_an_address_that_is_none_is_refused_at_once(world: Path) -> None:
    pytest.importorskip("redis")
    with pytest.raises(ConfigError, match=r"serving\.redis"):
        build_app(ServingSettings(redis="http://nowhere"), str(world))
