"""Who answers by the length of a history; what is trending; genres that are liked: in batch and service alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import Histories, ItemLists, Requests
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.config import RecommendSettings, StageSettings, TrendingSettings
from recsys_ray.recommend.learned import read_trending
from recsys_ray.recommend.options import Options, read_options
from recsys_ray.recommend.rank import rank
from recsys_ray.retrieval import RerankSettings
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.gate import check_run
from tests.rule_worlds import AT, GENRES, ITEMS, USERS, Rules, answers, catalogue, shop
from tests.serving_worlds import published_rows

ROWS = {row["item_id"]: row for row in catalogue()}
DAY = 86_400_000
STAGES = [
    {"name": "start", "ratings": 0, "answers": "trending"},
    {"name": "quick", "ratings": 3, "answers": "genres"},
    {"name": "plain", "ratings": 5, "answers": "popularity"},
    {"name": "full", "ratings": 7, "answers": "model"},
]


def everyone(bundle: Bundle) -> Requests:
    return Requests.concatenate([bundle.requests(shard) for shard in range(bundle.num_shards)])


@pytest.mark.parametrize("days", [0.5, 7, 1000])
def test_trending_is_what_a_loop_over_the_last_days_counts(bundle: Bundle, days: float) -> None:
    histories = everyone(bundle).histories
    last = int(histories.timestamps_E.max())
    recent = [
        item
        for item, time in zip(histories.items_E.tolist(), histories.timestamps_E.tolist(), strict=True)
        if time > last - days * DAY
    ]
    counts_I = np.bincount(recent, minlength=bundle.num_items)
    for _ in range(2):  # counted, then read from what was kept
        found = read_trending(bundle, TrendingSettings(window_days=days), "test")
        np.testing.assert_array_equal(found.recent_I, counts_I > 0)
    top = found.index.search(np.zeros((1, 0), np.float32), bundle.num_items, ItemLists.empty(1), None)
    np.testing.assert_array_equal(top.rows_BK[0], np.argsort(-counts_I, kind="stable"))
    np.testing.assert_allclose(top.scores_BK[0], np.sort(counts_I)[::-1] / USERS, rtol=1e-6)


def test_every_stage_is_answered_by_who_it_names_in_batch_and_service(rules: Rules) -> None:
    asked: dict[str, Any] = {"stages": STAGES, "trending": {"window_days": 3}}
    run, lists = rules.batch("stages", **asked)
    _, plain = rules.batch("unstaged")
    histories = everyone(open_bundle(Location.of(rules.folder) / "models" / "item_cf-stages"))
    lengths = dict(zip(histories.user_ids.to_pylist(), histories.histories.lengths_B.tolist(), strict=True))
    rows = published_rows(run)
    assert len(lists) == USERS and all(len(items) == 8 for items in lists.values())
    allowed = {"trending": {"fallback:trending", "fallback:popularity"}, "popularity": {"fallback:popularity"}}
    allowed |= {"genres": {"fallback:genres", "fallback:popularity"}, "model": {"model", "fallback:popularity"}}
    for user, length in lengths.items():
        stage = next(stage for stage in reversed(STAGES) if length >= int(str(stage["ratings"])))
        sources = [row["source"] for row in rows[user]]
        assert sources[0].removeprefix("fallback:") == stage["answers"]
        assert set(sources) <= allowed[str(stage["answers"])]
        if stage["answers"] == "model":
            assert lists[user] == plain[user]
        scores = [row["score"] for row in rows[user]]
        assert scores == sorted(scores, reverse=True)
    settings_of_run = RecommendSettings.model_validate({"n": 8, "at": AT} | asked)
    bundle = open_bundle(Location.of(rules.folder) / "models" / "item_cf-stages")
    assert check_run(bundle, run, settings_of_run, GateSettings()).facts["users"] == USERS
    with rules.service(run) as service:
        assert answers(service, list(lists)) == lists
        assert service.get("/v1/recommendations/nobody").json()["stage"] == "start"
        new = service.get("/v1/recommendations/nobody", params={"at": AT, "n": 3}).json()
        assert {item["source"] for item in new["items"]} == {"fallback:trending"}
        history = [{"item_id": item, "rating": 5.0} for item in (1, 2, 3)]
        quick = service.post("/v1/recommendations", json={"history": history, "at": AT}).json()
        assert (quick["stage"], quick["items"][0]["source"]) == ("quick", "fallback:genres")


@pytest.mark.parametrize("model", ["item_cf", "popularity", "als"])
def test_trending_fills_what_the_model_leaves_open_and_popularity_the_rest(tmp_path: Path, model: str) -> None:
    rules = Rules(tmp_path, shop(tmp_path), model)
    run, lists = rules.batch("trend", fallback=["trending", "popularity"], trending={"window_days": 7}, n=24)
    for rows in published_rows(run).values():
        order = ["model", "fallback:trending", "fallback:popularity"]
        sources = [order.index(row["source"]) for row in rows]
        assert sources == sorted(sources)
        scores = [row["score"] for row in rows]
        assert scores == sorted(scores, reverse=True)
    with rules.service(run) as service:
        assert answers(service, list(lists), n=24) == lists
        stranger = service.get("/v1/recommendations/nobody", params={"at": AT, "n": 24}).json()["items"]
    expected = ["model"] if model == "popularity" else ["fallback:popularity", "fallback:trending"]
    assert sorted({item["source"] for item in stranger}) == expected


def test_a_profile_scores_as_its_formula_says(bundle: Bundle) -> None:
    genres = bundle.items.column("genres").to_pylist()
    names = sorted({genre for named in genres for genre in named})
    items_IG = np.array([[genre in named for genre in names] for named in genres], float)
    items_IG /= np.linalg.norm(items_IG, axis=1, keepdims=True)
    popularity_I = np.log1p(bundle.item_counts()) / np.log1p(bundle.item_counts().max())
    histories = Histories.from_lists([[0, 5, 9], [3], [7, 2], []], [[5, 1, 3], [1], [4, 4], []])
    found = bundle.genre_profiles.of_histories(histories)
    weights = [{0: 2.0, 5: -2.0, 9: 0.0}, {3: 1.0}, {7: 1.0, 2: 1.0}, {}]
    for row, weighted in enumerate(weights):
        profile = np.sum([weight * items_IG[item] for item, weight in weighted.items()], axis=0) * np.ones(len(names))
        cosines = items_IG @ profile / max(1e-12, float(np.linalg.norm(profile)))
        expected = np.where(cosines > 1e-9, cosines * popularity_I, -np.inf)
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    filter_seen=st.booleans(),
    seed=st.integers(0, 100),
    n=st.integers(1, ITEMS),
    fallback=st.sampled_from(["popularity", "trending", "genres", "none"]),
    cap=st.sampled_from([None, 2]),
)
def test_no_stage_lets_a_forbidden_item_through(
    bundle: Bundle, filter_seen: bool, seed: int, n: int, fallback: str, cap: int | None
) -> None:
    rng = np.random.default_rng(seed)
    asked = {"n": n, "stages": STAGES, "fallback": fallback, "filter_seen": filter_seen, "at": AT}
    asked |= {"rerank": None if cap is None else RerankSettings(max_per_genre=cap), "time_of_day": {"weight": 1.0}}
    options = read_options(bundle, RecommendSettings.model_validate(asked))
    allowed_I = rng.random(ITEMS) < 0.6
    allowed_I[0] = True
    hidden = ItemLists.from_lists([rng.choice(ITEMS, 3, replace=False).tolist() for _ in range(USERS)])
    known = everyone(bundle)
    requests = replace(known, hidden=hidden)
    options = replace(options, allowed_I=allowed_I)
    ranked = rank(bundle, requests, options)
    assert bundle.availability is not None and options.moment is not None
    available_I = bundle.availability.mask(options.moment.span)
    for row in range(USERS):
        listed = [item for item in ranked.rows_BK[row].tolist() if item >= 0]
        forbidden = {*hidden.row(row).tolist(), *np.flatnonzero(~(allowed_I & available_I)).tolist()}
        forbidden |= set(known.histories.items_E[known.histories.span(row)].tolist()) if filter_seen else set()
        assert not set(listed) & forbidden and len(listed) == len(set(listed))
        if fallback == "popularity" and cap is None:
            assert len(listed) == min(n, ITEMS - len(forbidden))
        scores = ranked.scores_BK[row][ranked.rows_BK[row] >= 0]
        assert np.isfinite(scores).all() and not (np.diff(scores) > 0).any()
    for row in (0, 7):
        alone = rank(bundle, requests.take(np.array([row])), options)
        np.testing.assert_array_equal(alone.rows_BK[0], ranked.rows_BK[row])
        np.testing.assert_array_equal(alone.sources_BK[0], ranked.sources_BK[row])


def test_genres_that_a_new_user_names_answer_until_there_is_a_history(rules: Rules, bundle: Bundle) -> None:
    with rules.service(rules.plain) as service:
        answer = service.get("/v1/recommendations/nobody", params={"at": AT, "likes": "drama, Horror", "n": 6}).json()
        posted = service.post(
            "/v1/recommendations", json={"history": [], "at": AT, "likes": ["Drama", "horror"], "n": 6}
        )
        known = answers(service, [12], likes="drama") == answers(service, [12])
        wrong = service.get("/v1/recommendations/nobody?likes=Opera")
    assert {item["source"] for item in answer["items"]} == {"fallback:genres"} and known
    assert all({"Drama", "Horror"} & set(item["genres"]) for item in answer["items"])
    assert posted.json()["items"] == answer["items"]
    numbers = tuple(sorted(bundle.genres[1].index(name) for name in ("Drama", "Horror")))
    moment = read_options(bundle, RecommendSettings(n=1, at=AT)).moment
    nobody = Requests(
        bundle.requests(0).user_ids.slice(0, 1),
        np.array([-1], np.int32),
        Histories.from_lists([[]]),
        ItemLists.empty(1),
    )
    ranked = rank(bundle, nobody, Options(n=6, likes=numbers, moment=moment))
    assert [bundle.item_ids[row].as_py() for row in ranked.rows_BK[0]] == [item["item_id"] for item in answer["items"]]
    assert {bundle.sources[source] for source in ranked.sources_BK[0]} == {"fallback:genres"}
    assert wrong.status_code == 422 and "likes: the catalogue has no genre 'Opera'" in wrong.json()["error"]


@pytest.mark.parametrize(
    "begins",
    [[1], [0, 0], [0, 5, 3]],
)
def test_stages_that_leave_gaps_are_refused(begins: list[int]) -> None:
    stages = [StageSettings(name="x", ratings=ratings, answers="model") for ratings in begins]
    with pytest.raises(ValueError, match="must begin with 0 and rise"):
        RecommendSettings(stages=stages)


def test_genres_answer_only_where_there_are_some(bundle: Bundle) -> None:
    bare = Bundle(bundle.location, bundle.manifest, bundle.scorer, bundle.items.drop_columns("genres"))
    asked = RecommendSettings(n=1, stages=[StageSettings(name="x", ratings=0, answers="genres")])
    with pytest.raises(ConfigError, match=r"recommend\.stages: genres can't answer, the catalogue has none"):
        read_options(bare, asked)
    assert set(GENRES) == set(bundle.genres[1])
