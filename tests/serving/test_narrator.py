"""A language model words reasons when it can, in time and for the money; it is told what the user is like."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base import schema
from recsys_ray.base.errors import StorageError
from recsys_ray.base.types import Histories
from recsys_ray.serving import ServingSettings
from recsys_ray.serving.answers.item_catalogue import ItemCatalogue
from recsys_ray.serving.answers.profile import Profiler
from recsys_ray.serving.answers.spending import LocalSpending
from tests.language_model import INPUT_TOKENS, OUTPUT_TOKENS, Endpoint, listening_model
from tests.serving_worlds import client, counted, prepared_world, publish_run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    publish_run(folder, prepared_world(folder), "als", settings={"embedding_dim": 8, "epochs": 3})
    return folder


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with listening_model() as made:
        yield made


LIKED = {"history": [{"item_id": item, "rating": 5.0} for item in (3, 8, 21, 34)], "explain": True, "n": 5}
PRICES = {"input_price": 2.0, "output_price": 5.0}
COST = (2.0 * INPUT_TOKENS + 5.0 * OUTPUT_TOKENS) / 1000  # of one text


def authors(service: Any, body: dict[str, Any] = LIKED) -> list[str]:
    items = service.post("/v1/recommendations", json=body).json()["items"]
    assert all(item["reason"]["text"] for item in items)
    return [item["reason"]["by"] for item in items]


def other(number: int) -> dict[str, Any]:
    """Another request, with other facts."""
    return LIKED | {"history": [{"item_id": item, "rating": 4.0} for item in range(number, number + 4)]}


def test_the_leading_reasons_are_worded_once_and_what_that_took_is_counted(
    world: Path, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", "secret")
    narrator = {
        "url": endpoint.url,
        "model": "m",
        "items": 3,
        "key_variable": "MODEL_KEY",
        "daily_limit": 50.0,
    } | PRICES
    with client(world, state=str(tmp_path), narrator=narrator, cache={"mib": 0}) as service:
        for _ in range(2):
            assert authors(service) == ["m"] * 3 + ["template"] * 2
        assert counted(service, "recsys_narrations_total", outcome="cached") == 3
        assert counted(service, "recsys_narration_cost_total") == pytest.approx(3 * COST)
        assert counted(service, "recsys_narration_tokens_total", kind="input") == 3 * INPUT_TOKENS
        assert counted(service, "recsys_narration_tokens_total", kind="output") == 3 * OUTPUT_TOKENS
        assert counted(service, "recsys_narration_seconds_count") == 3
        assert 0 < counted(service, "recsys_narration_seconds_sum") < 3
        day = {what: counted(service, "recsys_narration_day", what=what) for what in ("cost", "texts", "input_tokens")}
        assert day == pytest.approx({"cost": 3 * COST, "texts": 3, "input_tokens": 3 * INPUT_TOKENS})
        assert counted(service, "recsys_narration_daily_limit") == 50.0
    sent = {(call["path"], call["key"], call["model"]) for call in endpoint.calls}
    assert len(endpoint.calls) == 3 and sent == {("/v1/chat/completions", "Bearer secret", "m")}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["error", "empty", "endless", "away", "late", "slow", "nonsense"])
def test_the_template_speaks_when_the_language_model_does_not(
    world: Path, tmp_path: Path, endpoint: Endpoint, trouble: str
) -> None:
    narrator = {"url": endpoint.url, "model": "m", "timeout_seconds": 0.3, "items": 2, "daily_limit": 50.0} | PRICES
    cost_known = {"error": 0.0, "away": 0.0, "late": 0.0, "empty": COST, "endless": COST, "nonsense": COST}
    match trouble:
        case "error":
            endpoint.status = 500
        case "empty":
            endpoint.text = " "
        case "endless":
            endpoint.text = "word " * 500
        case "away":
            endpoint.close()
        case "late":
            narrator["url"] = "http://192.0.2.1/v1"  # an address that never answers
        case "slow":
            endpoint.seconds = 1.0
        case "nonsense":
            endpoint.text = None  # type: ignore[assignment]
    with client(world, state=str(tmp_path), narrator=narrator) as service:
        answer = service.post("/v1/recommendations", json=LIKED)
        assert answer.status_code == 200 and answer.json()["took_ms"] < 2000
        assert {item["reason"]["by"] for item in answer.json()["items"]} == {"template"}
        assert all(item["reason"]["text"] for item in answer.json()["items"])
        cost = counted(service, "recsys_narration_cost_total")
    if trouble == "slow":  # nobody knows what it took: as much as it can have been
        assert cost > 2 * COST
    else:
        assert cost == pytest.approx(2 * cost_known[trouble])


# -- money ------------------------------------------------------------------------------------------------------------


def test_no_more_than_the_limit_is_spent_on_a_day_by_all_processes_over_restarts(
    world: Path, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_ray.serving.answers.narrator.PAUSE_SECONDS", 0.0)  # asked again at once
    endpoint.seconds = 0.02  # calls of one request are under way together
    limit = 12.0
    settings = {
        "state": str(tmp_path),
        "cache": {"mib": 0},
        "narrator": {"url": endpoint.url, "model": "m", "items": 4, "daily_limit": limit} | PRICES,
    }
    with client(world, **settings) as one, client(world, **settings) as two:
        written = [authors(service, other(number)) for number in range(1, 20) for service in (one, two)]
        assert counted(one, "recsys_narrations_total", outcome="limit") > 0
    spent = COST * len(endpoint.calls)
    assert 0.5 * limit < spent <= limit
    assert written[-1] == ["template"] * 5
    with client(world, **settings) as again:
        calls = len(endpoint.calls)
        for number in range(30, 40):
            authors(again, other(number))
        assert COST * len(endpoint.calls) <= limit
        monkeypatch.setattr("recsys_ray.serving.answers.narrator.today", lambda: "2999-01-01")
        assert "m" in authors(again, other(50)) and len(endpoint.calls) > calls


def test_a_text_whose_usage_is_not_told_counts_as_the_most_it_can_have_cost(
    world: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    endpoint.usage = None
    narrator = {"url": endpoint.url, "model": "m", "items": 1, "max_tokens": 10} | PRICES
    with client(world, state=str(tmp_path), narrator=narrator) as service:
        assert authors(service)[0] == "m"
        cost = counted(service, "recsys_narration_cost_total")
    text = "".join(message["content"] for message in endpoint.calls[0]["messages"])
    most = 2.0 * len(text.encode()) / 1000
    assert most < cost < most + 2.0 * 0.1 + 5.0 * 0.01 + 1e-9


def test_a_limit_without_prices_would_limit_nothing() -> None:
    with pytest.raises(ValueError, match=r"daily_limit needs serving\.narrator\.input_price"):
        ServingSettings.model_validate({"narrator": {"url": "http://a", "model": "m", "daily_limit": 1.0}})


def test_days_are_counted_apart_and_old_ones_forgotten(tmp_path: Path) -> None:
    spending = LocalSpending(tmp_path / "spending.sqlite")

    async def work() -> list[dict[str, float]]:
        rows = [("2999-01-01", 1.0), ("2999-01-02", 2.0), ("2999-01-01", 0.5), ("2000-01-01", 3.0), ("2000-01-01", 3.0)]
        return [await spending.add(day, {"cost": amount}) for day, amount in rows]

    assert [found["cost"] for found in asyncio.run(work())] == [1.0, 2.0, 1.5, 3.0, 3.0]
    spending.close()


def test_what_can_not_be_counted_is_not_spent(
    world: Path, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> dict[str, float]:
        raise StorageError("disk full")

    monkeypatch.setattr(LocalSpending, "add", full)
    narrator = {"url": endpoint.url, "model": "m", "daily_limit": 50.0} | PRICES
    with client(world, state=str(tmp_path), narrator=narrator) as service:
        assert authors(service) == ["template"] * 5
    assert endpoint.calls == []


# -- the user's profile -----------------------------------------------------------------------------------------------


def test_the_model_is_told_what_the_user_is_like_unless_it_must_not(
    world: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    narrator = {"url": endpoint.url, "model": "m", "items": 1}
    with client(world, state=str(tmp_path / "a"), narrator=narrator) as service:
        titles = {item["item_id"]: item["title"] for item in service.get("/v1/items", params={"n": 80}).json()["items"]}
        history = [{"item_id": item, "rating": float(rating)} for item, rating in ((3, 5), (8, 4), (21, 2))]
        service.post("/v1/recommendations", json=LIKED | {"history": history})
        service.get("/v1/recommendations/nobody", params={"explain": True})
    told, stranger = endpoint.facts
    assert (told["user"]["ratings"], told["user"]["mean_rating"]) == (3, 3.7)
    assert told["user"]["last_titles"] == [titles[item] for item in (21, 8, 3)]
    assert "user" not in stranger and "user_id" not in str(told)
    with client(world, state=str(tmp_path / "b"), narrator=narrator | {"profile": False}) as service:
        service.post("/v1/recommendations", json=LIKED)
    assert "user" not in endpoint.facts[-1] and endpoint.facts[-1]["because_of"]


def catalogue(years: list[int | None], genres: list[list[str]], counts: list[int]) -> ItemCatalogue:
    rows = [
        {"item_id": row, "title": f"T{row}" if row else None, "genres": genre, "year": year}
        for row, (year, genre) in enumerate(zip(years, genres, strict=True))
    ]
    items = pa.Table.from_pylist(rows, schema.items(pa.int64()))
    return ItemCatalogue(items.append_column("count", pa.array(counts, pa.int64())))


def test_a_profile_by_hand() -> None:
    genres = [["Drama"], ["Action", "Drama"], ["Action"], ["Comedy"], ["Comedy"], []]
    profiler = Profiler(catalogue([None] * 6, genres, [1] * 6))
    history = Histories.from_lists([[3, 0, 1, 2, 3]], [[1.0, 4.0, 5.0, 4.5, 2.0]])  # 3 is rated again
    assert profiler.profile(history) == {
        "ratings": 4,
        "mean_rating": 3.9,  # of 2, 4.5, 5 and 4
        "top_genres": ["Action", "Drama"],
        "last_titles": ["T3", "T2", "T1"],
    }
    assert profiler.profile(Histories.from_lists([[]])) == {}
    assert profiler.profile(Histories.from_lists([[4, 5]])) == {
        "items": 2,
        "top_genres": ["Comedy"],
        "last_titles": ["T5", "T4"],
    }


def test_style_is_what_lies_outside_the_middle_third_of_all_interactions() -> None:
    rng = np.random.default_rng(5)
    years, counts = rng.integers(1950, 2020, 200), rng.geometric(0.02, 200)
    profiler = Profiler(catalogue(years.tolist(), [[]] * 200, counts.tolist()))
    every_year, every_count = np.sort(np.repeat(years, counts)), np.sort(np.repeat(counts, counts))
    styles = set()
    for _ in range(300):
        rows = rng.choice(200, 7, p=None if rng.random() < 0.5 else counts / counts.sum(), replace=False)
        expected = []
        for values, every, low, high in (
            (years, every_year, "old", "recent"),
            (counts, every_count, "niche", "popular"),
        ):
            # How much of all interactions is not above, and below, the median of this user.
            median = np.median(values[rows])
            if (every <= median).mean() < 1 / 3:
                expected.append(low)
            elif (every < median).mean() >= 2 / 3:
                expected.append(high)
        assert profiler.profile(Histories.from_lists([rows.tolist()])).get("likes", []) == expected
        styles |= set(expected)
    assert styles == {"old", "recent", "niche", "popular"}
    assert "likes" not in profiler.profile(Histories.from_lists([[0, 1, 2, 3]]))  # too few to say
