"""Blend: its scores by hand, weights that find the member who knows, and members that fail by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import FitContext, Histories, ItemContent, TrainData
from recsys_ray.models import ColdItemSettings, extend_to_cold_items
from recsys_ray.models.blend import Blend, search
from recsys_ray.models.content import attribute_vectors
from recsys_ray.models.linalg.hits import hits_by_rank
from recsys_ray.models.scorers.blend import BlendScorer
from tests.dense import ITEMS, ask, random_data

TWO = [{"model": {"name": "item_cf"}, "weight": 1.0}, {"model": {"name": "ease", "regularization": 5.0}, "weight": 3.0}]


def fitted(data: TrainData, members: list[dict[str, Any]] = TWO, **settings: Any) -> BlendScorer:
    return Blend(members=members, **settings).fit_scorer(data, FitContext())


def opinions(scorer: BlendScorer, data: TrainData) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every member its scores and where it has any."""
    found = []
    for member in scorer.members.values():
        scores = member.score(ask(data))
        found.append((scores, np.isfinite(scores) & member.answers(ask(data))[:, None] & member.scorable_I))
    return found


def test_the_weighted_sum_is_that_of_standard_scores() -> None:
    data = random_data(density=0.3)
    scorer = fitted(data)
    found = scorer.score(ask(data))
    members = list(scorer.members.values())
    for user in range(data.num_users):
        expected, weights, known = np.zeros(ITEMS), 0.0, np.zeros(ITEMS, np.bool_)
        for member, (scores, has), weight in zip(members, opinions(scorer, data), (1.0, 3.0), strict=True):
            row = scores[user, has[user]]
            if not len(row) or np.ptp(row) < 1e-6:
                continue
            standard = (row - row.mean()) / row.std()
            whole = np.where(member.scorable_I, standard.min(), 0.0)  # left out: no better than the worst
            whole[has[user]] = standard
            expected, weights, known = expected + weight * whole, weights + weight, known | has[user]
        if weights:
            np.testing.assert_allclose(found[user, known], expected[known] / weights, atol=2e-4)
        assert np.isneginf(found[user, ~known]).all()


def test_reciprocal_ranks_add_up() -> None:
    data = random_data(density=0.3)
    scorer = fitted(data, method="reciprocal_rank", rank_constant=10.0)
    found = scorer.score(ask(data))
    for user in range(20):
        expected, weights = np.zeros(ITEMS), 0.0
        for (scores, has), weight in zip(opinions(scorer, data), (1.0, 3.0), strict=True):
            order = sorted(np.flatnonzero(has[user]), key=lambda item: (-scores[user, item], item))
            for rank, item in enumerate(order, 1):
                expected[item] += weight / (10 + rank)
            weights += weight if order else 0
        known = np.isfinite(found[user])
        np.testing.assert_allclose(found[user, known], expected[known] / weights, rtol=1e-5)


def test_a_member_without_an_opinion_leaves_its_weight_to_the_others() -> None:
    lonely = [{"model": {"name": "popularity"}, "weight": 5.0}, {"model": {"name": "item_cf"}, "weight": 1.0}]
    ring = Histories.from_lists([[0, 1], [1, 2], [2, 0]])  # every item is as popular as the others
    even = TrainData(ring, pa.table({"item_id": [0, 1, 2]}))
    scorer = fitted(even, lonely)
    alone = fitted(even, lonely[1:])
    both, one = scorer.score(ask(even)), alone.score(ask(even))
    assert np.array_equal(np.isfinite(both), np.isfinite(one))
    np.testing.assert_allclose(both[np.isfinite(both)], one[np.isfinite(one)])


def test_weights_by_validation_find_the_member_who_knows() -> None:
    data = random_data(users=200, items=30, density=0.3)
    members = [{"model": {"name": "random"}}, {"model": {"name": "popularity"}}]
    lines: list[str] = []
    model = Blend(members=members, weights="validation")
    scorer = model.fit_scorer(data, FitContext(progress=lines.append))
    weights = dict(zip(scorer.members, scorer.weights_M, strict=True))
    assert weights["popularity"] > 0.7 and sum(weights.values()) == pytest.approx(1.0)
    assert any(line.startswith("blend: NDCG@20 on held-out events: random 0.") for line in lines)
    again = model.fit_scorer(data, FitContext())
    assert again.weights_M == scorer.weights_M


def test_a_member_that_adds_nothing_is_left_out() -> None:
    data = random_data(users=200, items=30, density=0.3)
    twice = [{"model": {"name": "popularity"}}, {"model": {"name": "popularity"}}]
    scorer = fitted(data, twice, weights="validation")
    assert list(scorer.members) == ["popularity"] and scorer.weights_M == [1.0]


def test_without_refit_every_member_is_fitted_once_and_keeps_the_weights() -> None:
    data = random_data(users=200, items=30, density=0.3)
    lines: list[str] = []
    once = Blend(members=TWO, weights="validation", refit=False).fit_scorer(data, FitContext(progress=lines.append))
    twice = Blend(members=TWO, weights="validation").fit_scorer(data, FitContext())
    assert sum(line.endswith("held-out data") for line in lines) == len(TWO)
    assert not any(line.endswith("all data") for line in lines)
    assert (list(once.members), once.weights_M) == (list(twice.members), twice.weights_M)
    assert not np.array_equal(once.score(ask(data)), twice.score(ask(data)))


def test_the_search_finds_the_top_of_a_hill() -> None:
    top = np.array([0.55, 0.1, 0.35])
    found = search(lambda weights: -float(((weights - top) ** 2).sum()), 3)
    np.testing.assert_allclose(found, top, atol=0.02)
    assert search(lambda weights: float(weights[1]), 3).tolist() == [0.0, 1.0, 0.0]


def test_reasons_are_the_weighted_reasons_of_members() -> None:
    data = random_data(density=0.3)
    scorer = fitted(data)
    history, rows = data.histories.slice(0, 1), np.array([2, 5], np.int32)
    items, total = scorer.contributions(history, rows) or pytest.fail("no contributions")
    expected = np.zeros(total.shape)
    for member, weight in zip(scorer.members.values(), scorer.weights_M, strict=True):
        own, parts = member.contributions(history, rows)
        scores = member.score(ask(data, known=False).slice(0, 1))[0]
        spread = scores[np.isfinite(scores) & member.scorable_I].std()
        expected[np.searchsorted(items, own)] += weight * parts / spread
    np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-6)
    shares = scorer.shares(ask(data).slice(0, 1), np.array([[2, 5, -1]]))
    assert shares.shape == (2, 1, 3) and not shares[:, 0, 2].any()
    assert fitted(data, method="reciprocal_rank").contributions(history, rows) is None


def test_cold_items_are_scored_through_the_members() -> None:
    data = random_data(density=0.3)
    vectors = np.random.default_rng(0).normal(size=(ITEMS, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    data = replace(data, content=ItemContent(vectors, np.ones(ITEMS, np.bool_)))
    scorer = fitted(data)
    assert not scorer.scorable_I[-1]
    extended = extend_to_cold_items(scorer, data, ColdItemSettings())
    assert extended.scorable_I[-1] and np.isfinite(extended.score(ask(data))[:20, -1]).all()


def test_a_member_that_fails_is_named() -> None:
    data = replace(random_data(), histories=Histories.from_lists([[0, 1], [1, 2]], [[3.0, 3.0], [3.0, 3.0]]))
    with pytest.raises(ModelError, match=r"^blend: member svd: svd: needs ratings that differ"):
        fitted(data, [{"model": {"name": "item_cf"}}, {"model": {"name": "svd"}}])
    with pytest.raises(ModelError, match="no user has three events"):
        fitted(data, weights="validation")


def test_two_members_of_a_kind_train_under_keys_of_their_own() -> None:
    keys: list[str] = []

    def run_workers(fn: Callable[[Any, Any], Any], shared: Any, key: str) -> Any:
        keys.append(key)
        raise ModelError("not today")

    members = [{"model": {"name": "lightgcn", "epochs": 1}}, {"model": {"name": "lightgcn", "epochs": 2}}]
    for place in (0, 1):
        with pytest.raises(ModelError, match="not today"):
            blend = Blend(members=members[place:] + members[:place])
            blend.fit_scorer(random_data(), FitContext(run_workers=run_workers))
    assert keys[0] == "lightgcn-all-lightgcn"
    assert list(Blend(members=members).models) == ["lightgcn", "lightgcn-2"]


def test_a_preset_becomes_its_members() -> None:
    hybrid, rich = Blend(preset="hybrid"), Blend(preset="hybrid_embeddings")
    assert [(name, member.weight) for name, member in zip(hybrid.models, hybrid.members, strict=True)] == [
        ("svd", 0.6), ("item_cf", 0.25), ("content", 0.15)
    ]  # fmt: skip
    assert [member.weight for member in rich.members] == [0.4, 0.3, 0.2, 0.1]
    assert not hybrid.needs_content and rich.needs_content
    assert Blend.model_validate(hybrid.model_dump(mode="json")) == hybrid


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"members": []}, "at least 1 item"),
        ({"members": [{"model": {"name": "item_cf"}, "weight": 0.0}]}, "all weights of members are 0"),
        ({"members": [{"model": {"name": "nobody"}}]}, "'nobody'"),
        ({"members": [{"model": {"name": "ease", "neighbours": 3}}]}, "neighbours"),
        ({"members": TWO, "preset": "hybrid"}, "members or a preset"),
        ({"members": TWO, "refit": False}, "refit: false needs weights: validation"),
    ],
)
def test_impossible_blends_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Blend(**values)


def test_attributes_as_vectors() -> None:
    genres, years = [["a", "b"], ["a"], [], ["b"]], [1994, 1999, None, 2001]
    items = pa.table({"item_id": [0, 1, 2, 3], "genres": genres, "year": years})
    content = attribute_vectors(items)
    assert content.present_I.tolist() == [True, True, False, True]
    cosine = content.vectors_ID @ content.vectors_ID.T
    assert cosine[0, 1] > cosine[0, 3] > 0 and cosine[1, 3] == 0  # one genre and the decade, one genre, nothing
    with pytest.raises(ModelError, match="no genres or years"):
        attribute_vectors(pa.table({"item_id": [1], "genres": pa.array([[]], pa.list_(pa.string()))}))


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_hits_by_rank_are_those_of_a_full_sort(seed: int) -> None:
    rng = np.random.default_rng(seed)
    members, users, candidates, top = rng.integers(1, [4, 5, 12, 8])
    values = rng.integers(-2, 3, (members, users, candidates)).astype(np.float32)  # many ties
    rows = np.sort(rng.permuted(np.tile(np.arange(20), (users, 1)), axis=1)[:, :candidates], axis=1).astype(np.int32)
    rows[rng.random(rows.shape) < 0.2] = -1
    hits = (rng.random(rows.shape) < 0.4) & (rows >= 0)
    weights = rng.integers(0, 3, members).astype(np.float32)
    scores = np.where(rows >= 0, np.tensordot(weights, values, axes=1), -np.inf)
    order = np.lexsort((rows, -scores), axis=1)[:, :top]
    expected = np.zeros((users, top), bool)
    expected[:, : order.shape[1]] = np.take_along_axis(hits, order, axis=1)
    np.testing.assert_array_equal(hits_by_rank(values, weights, rows, hits, top), expected)
