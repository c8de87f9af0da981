"""SVD++: its step against the gradient of its loss, and new users answered as known ones are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import FitContext, Histories, TrainData
from recsys_ray.models.scorers.implicit_factor import implicit_sums
from recsys_ray.models.svd import SVD
from recsys_ray.models.svdpp import SVDpp, descend
from tests.dense import ITEMS, ask, random_data

MEAN, PENALTIES = 3.0, (0.3, 0.2, 0.1)  # of p and q, of y, of the biases


def loss(histories: Histories, users: np.ndarray, items: np.ndarray, implicit: np.ndarray, bias: np.ndarray) -> float:
    """Half the loss of the module's text, each penalty counted once a rating, as stochastic steps do."""
    factors, implicits, biases = PENALTIES
    total = 0.0
    for user in range(len(histories)):
        row = histories.span(user)
        mine = histories.items_E[row]
        if not len(mine):
            continue
        query = users[user, :-1] + implicit[mine].sum(axis=0) / np.sqrt(len(mine))
        for item, rating in zip(mine, histories.ratings_E[row], strict=True):
            error = rating - (MEAN + users[user, -1] + bias[item] + query @ items[item, :-1])
            total += error**2 + factors * (users[user, :-1] @ users[user, :-1] + items[item, :-1] @ items[item, :-1])
            total += biases * (users[user, -1] ** 2 + bias[item] ** 2) + implicits * implicit[item] @ implicit[item]
    return total / 2


@pytest.mark.parametrize("which", range(4))
def test_a_short_step_follows_the_gradient(which: int) -> None:
    """To first order an epoch of tiny steps moves every parameter by the slope of the loss, found by differences."""
    data = random_data(users=8, items=6, density=0.5)
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape) * 0.5 for shape in ((8, 4), (6, 4), (6, 3), (6,))]
    start[1][:, -1] = 1.0
    moved = [array.astype(np.float32) for array in start]
    users, items, implicit, bias = moved
    rate, histories = 1e-4, data.histories
    descend(
        np.arange(8), histories.offsets_B1, histories.items_E, histories.ratings_E, np.float32(MEAN),
        users, items, implicit, bias, np.float32(rate), *map(np.float32, PENALTIES),
    )  # fmt: skip
    slope = np.zeros(start[which].shape)
    for place in np.ndindex(slope.shape):
        if which == 1 and place[1] == 3:
            continue  # the constant that faces the user's bias does not move
        ends = []
        for change in (1e-5, -1e-5):
            shifted = [array.copy() for array in start]
            shifted[which][place] += change
            ends.append(loss(histories, *shifted))
        slope[place] = (ends[0] - ends[1]) / 2e-5
    step = (moved[which].astype(np.float64) - start[which].astype(np.float32)) / rate
    np.testing.assert_allclose(step, -slope, atol=0.03 * np.abs(slope).max())


def test_a_new_user_is_solved_for_what_the_history_leaves_unexplained() -> None:
    data, model = random_data(density=0.4), SVDpp(embedding_dim=5, epochs=5)
    scorer = model.fit_scorer(data, FitContext())
    queries = scorer.queries(ask(data, known=False)).astype(np.float64)
    sums = implicit_sums(data.histories, scorer.implicit_ID)
    for user in range(20):
        row = data.histories.span(user)
        mine, ratings = data.histories.items_E[row], data.histories.ratings_E[row]
        vectors = scorer.items_ID[mine].astype(np.float64)
        left = ratings - scorer.bias_I[mine] - vectors[:, :-1] @ sums[user]
        system = vectors.T @ vectors + model.regularization * len(mine) * np.eye(6)
        expected = np.linalg.solve(system, vectors.T @ left)
        expected[:-1] += sums[user]
        np.testing.assert_allclose(queries[user], expected, atol=1e-3)


def test_reasons_are_the_scores_without_each_item() -> None:
    data = random_data(density=0.4)
    scorer = SVDpp(embedding_dim=5, epochs=5).fit_scorer(data, FitContext())
    history, rows = data.histories.slice(0, 1), np.array([3, 7], np.int32)
    found = scorer.contributions(history, rows)
    assert found is not None
    items, shares = found
    everything = scorer.solve(history) @ scorer.items_ID[rows].T
    for place, item in enumerate(items):
        without = scorer.solve(history.only(history.items_E != item)) @ scorer.items_ID[rows].T
        np.testing.assert_allclose(shares[place], (everything - without)[0], atol=1e-5)


def test_implicit_feedback_explains_ratings_that_factors_alone_can_not() -> None:
    """Who has item 0 likes the first half of the catalogue, who has item 1 the second: held-out ratings of people with
    one rated item each are foretold from what they have."""
    rng = np.random.default_rng(0)
    lists, ratings, targets = [], [], []
    for user in range(400):
        camp, item = user % 2, 2 + int(rng.integers(0, ITEMS - 2))
        good = (item < ITEMS // 2) == (camp == 0)
        lists.append([camp, item])
        ratings.append([3.0, 5.0 if good else 1.0])
        targets.append((2 + int(rng.integers(0, ITEMS - 2)), camp))
    data = replace(random_data(), histories=Histories.from_lists(lists, ratings))
    errors = {}
    for model in (SVD(epochs=40), SVDpp(epochs=40, implicit_regularization=0.05)):
        scorer = model.fit_scorer(data, FitContext())
        scores = scorer.score(ask(data))
        truth = np.array([5.0 if (item < ITEMS // 2) == (camp == 0) else 1.0 for item, camp in targets])
        found = scores[np.arange(400), [item for item, _ in targets]]
        errors[model.key] = float(np.sqrt(np.mean((found - truth) ** 2)))
    assert errors["svdpp"] < 0.8 * errors["svd"]


@pytest.mark.parametrize(("ratings", "words"), [([3.0, 3.0], "all are the same"), ([3.0, np.nan], "a rating is nan")])
def test_ratings_that_say_nothing_are_refused(ratings: list[float], words: str) -> None:
    data = TrainData(Histories.from_lists([[0, 1]], [ratings]), random_data().items)
    with pytest.raises(ModelError, match=words):
        SVDpp().fit_scorer(data, FitContext())
