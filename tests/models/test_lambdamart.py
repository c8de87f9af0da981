"""LambdaMART: it learns what decides, ranks candidates before all else, and says what it lacks."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.errors import ConfigError, ModelError
from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models.base import strangers
from recsys_ray.models.lambdamart import LambdaMART, pair_features
from recsys_ray.models.scorers.lambdamart import Candidates, LambdaMARTScorer
from tests.dense import ask, random_data

pytest.importorskip("lightgbm")
SMALL: dict[str, Any] = {"trees": 60, "leaves": 4, "least_in_leaf": 5, "learning_rate": 0.2, "candidates": 40}
POPULAR = [{"model": {"name": "random"}}, {"model": {"name": "popularity"}}]


def genre_world(users: int = 300, items: int = 60, seed: int = 0) -> TrainData:
    """Whoever likes even films likes nothing else; all films are about as popular."""
    rng = np.random.default_rng(seed)
    lists = [np.sort(rng.choice(np.arange(user % 2, items, 2), 8, replace=False)).tolist() for user in range(users)]
    genres = pa.array([["even"] if item % 2 == 0 else ["odd"] for item in range(items)])
    return TrainData(Histories.from_lists(lists), pa.table({"item_id": np.arange(items), "genres": genres}))


@pytest.fixture(scope="module")
def scorer() -> LambdaMARTScorer:
    return LambdaMART(members=POPULAR, **SMALL).fit_scorer(genre_world(), FitContext())


def test_it_learns_the_feature_that_decides(scorer: LambdaMARTScorer) -> None:
    """No member knows the genres, and one is drawn by lot; the trees put the user's own genre before the other."""
    data = genre_world()
    scores = scorer.score(ask(data))
    for user in range(40):
        scores[user, data.histories.items_E[data.histories.span(user)]] = -np.inf
    best = np.argsort(-scores[:40], axis=1)[:, :10]
    assert ((best % 2) == (np.arange(40) % 2)[:, None]).mean() > 0.95  # by chance .42


def test_strangers_are_ranked_by_their_history(scorer: LambdaMARTScorer) -> None:
    evens = Histories.from_lists([[0, 2, 4, 6], [1, 3, 5, 7]])
    scores = scorer.score(Requests(pa.array([0, 1]), np.full(2, -1, np.int32), evens, ItemLists.empty(2)))
    scores[:, :8] = -np.inf
    assert (np.argsort(-scores, axis=1)[:, :10] % 2).tolist() == [[0] * 10, [1] * 10]


def test_candidates_come_before_all_others() -> None:
    data = random_data(density=0.3)
    members = [{"model": {"name": "item_cf"}}, {"model": {"name": "ease", "regularization": 5.0}}]
    scorer = LambdaMART(members=members, **SMALL | {"candidates": 3}).fit_scorer(data, FitContext())
    chosen = Candidates(list(scorer.members.values()), ask(data), 3)
    scores = scorer.score(ask(data))
    for user in range(data.num_users):
        own = chosen.items_P[chosen.rows_P == user]
        others = np.setdiff1d(np.flatnonzero(np.isfinite(scores[user])), own)
        if len(own) and len(others):
            assert scores[user, own].min() > scores[user, others].max()
        assert not np.isin(own, data.histories.items_E[data.histories.span(user)]).any()


def test_candidates_are_the_best_of_each_member() -> None:
    data = random_data(density=0.3)
    scorer = LambdaMART(members=[{"model": {"name": "item_cf"}}], **SMALL).fit_scorer(data, FitContext())
    (member,) = scorer.members.values()
    chosen, scores = Candidates([member], ask(data), 4), member.score(ask(data))
    for user in range(10):
        scores[user, data.histories.items_E[data.histories.span(user)]] = -np.inf
        own = chosen.items_P[chosen.rows_P == user]
        assert scores[user, own].min() >= np.sort(scores[user])[-4]
        place = chosen.opinions()[chosen.rows_P == user, 1]
        assert np.argsort(-place).tolist() == np.lexsort((own, -scores[user, own])).tolist()


def test_features_by_hand() -> None:
    items = pa.table({"item_id": [0, 1, 2], "genres": [["a"], ["a", "b"], ["b"]], "year": [1990.0, 2000.0, 2010.0]})
    data = TrainData(Histories.from_lists([[0, 1], [1]], [[5.0, 3.0], [1.0]]), items)
    features = pair_features(data)
    found = features.of(strangers(data.histories), np.array([0, 0, 1], np.int32), np.array([2, 0, 2], np.int32))
    columns = dict(zip(features.names, found.T, strict=True))
    assert columns["genre_share"].tolist() == [0.5, 1.0, 1.0]
    assert columns["genre_unseen"].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(columns["user_log_count"], np.log1p([2, 2, 1]), rtol=1e-6)
    np.testing.assert_allclose(columns["user_rating_mean"], [4.0, 4.0, 1.0])
    assert columns["item_year"][0] > 0 > columns["item_year"][1]
    assert columns["item_popularity"][0] == 0.0  # of an item without interactions: the mean


def test_a_member_that_fails_is_named() -> None:
    with pytest.raises(ModelError, match=r"^lambdamart: member content: content needs item vectors"):
        LambdaMART(members=[{"model": {"name": "content"}}]).fit_scorer(random_data(), FitContext())


def test_nothing_to_learn_from_is_said() -> None:
    lonely = TrainData(Histories.from_lists([[0], [1]]), pa.table({"item_id": [0, 1]}))
    with pytest.raises(ModelError, match="no user has three events to learn from"):
        LambdaMART(members=POPULAR).fit_scorer(lonely, FitContext())


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ConfigError, match=r'lambdamart needs lightgbm.*pip install "recsys_ray\[ranker\]"$'):
        LambdaMART().fit_scorer(random_data(), FitContext())
