"""Graph filters against dense polynomials and eigenvectors of the matrix they claim to filter by."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.polynomial import chebyshev

from recsys_ray.base.types import FitContext, Histories, ItemLists, TrainData
from recsys_ray.models.base import strangers
from recsys_ray.models.graph_filter import GraphFilter
from recsys_ray.models.graph_filter_choice import LOW_PASS
from recsys_ray.models.graph_filter_choice import POWERS as POWERS_TRIED
from recsys_ray.models.graph_filter_choice import chosen as choose_settings
from recsys_ray.models.holdout import hold_out, lists_quality
from recsys_ray.models.linalg.low_rank import leading_vectors
from recsys_ray.models.linalg.spectrum import step_coefficients
from recsys_ray.models.scorers.graph_filter import GraphFilterScorer
from recsys_ray.models.scorers.linear import LinearScorer, LowRankScorer
from recsys_ray.retrieval import top_k_scores
from tests.dense import ITEMS, ask, dense, in_pieces, random_data

POWERS = {"user_power": 0.2, "item_power": 0.45, "degree_power": 0.35}


def normalised(matrix: np.ndarray) -> np.ndarray:
    """R with the largest singular value 1."""
    users, items = np.maximum(matrix.sum(axis=1), 1), np.maximum(matrix.sum(axis=0), 1)
    normal = matrix * users[:, None] ** -POWERS["user_power"] * items ** -POWERS["item_power"]
    return normal / np.linalg.norm(normal, 2)


def dense_scores(data: TrainData, of_eigenvalues: Any) -> np.ndarray:
    """B D^-p F D^p with F the function of R'R that the eigenvalues, rising, are given to."""
    matrix = dense(data)
    values, vectors = np.linalg.eigh(normalised(matrix).T @ normalised(matrix))
    scale = np.maximum(matrix.sum(axis=0), 1) ** POWERS["degree_power"]
    return matrix / scale @ (vectors * of_eigenvalues(values)) @ vectors.T * scale


@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize(("order", "flatness"), [(1, 1.0), (1, 2.0), (2, 1.5), (7, 1.5)])
def test_chebyshev_is_the_dense_polynomial(order: int, flatness: float, weight: float) -> None:
    data = random_data()
    model = GraphFilter(filter="chebyshev", order=order, flatness=flatness, low_pass_weight=weight, **POWERS)
    scorer = model.fit_scorer(data, FitContext())
    assert isinstance(scorer, GraphFilterScorer)
    kept = ITEMS // 8  # the default is more than an eighth of them

    def polynomial(values: np.ndarray) -> np.ndarray:
        steps = chebyshev.chebval(2 * values - 1, step_coefficients(order, flatness))
        steps[-kept:] += weight
        return steps

    np.testing.assert_allclose(scorer.score(ask(data)), dense_scores(data, polynomial), rtol=2e-4, atol=2e-5)


def test_ideal_is_the_leading_eigenvectors() -> None:
    data = random_data()
    scorer = GraphFilter(filter="ideal", low_pass_dim=2, **POWERS).fit_scorer(data, FitContext())
    assert isinstance(scorer, LowRankScorer)
    expected = dense_scores(data, lambda values: np.arange(len(values)) >= len(values) - 2)
    np.testing.assert_allclose(scorer.score(ask(data)), expected, rtol=1e-3, atol=1e-5)


def test_linear_takes_powers() -> None:
    data, matrix = random_data(), dense(random_data())
    scorer = GraphFilter(**POWERS).fit_scorer(data, in_pieces(3))
    users, items = np.maximum(matrix.sum(axis=1), 1), np.maximum(matrix.sum(axis=0), 1)
    normal = matrix * users[:, None] ** -POWERS["user_power"] * items ** -POWERS["item_power"]
    expected = matrix / items ** POWERS["degree_power"] @ normal.T @ normal * items ** POWERS["degree_power"]
    scores = scorer.score(ask(data))
    np.testing.assert_allclose(np.where(np.isneginf(scores), 0, scores), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("flatness", [0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("order", [1, 4, 9])
def test_polynomial_meets_the_step_at_the_nodes(order: int, flatness: float) -> None:
    nodes = np.cos((np.arange(order + 1) + 0.5) * np.pi / (order + 1))
    step = np.where(nodes < 0, 1 - np.abs(nodes) ** flatness, 1 + np.abs(nodes) ** flatness) / 2
    np.testing.assert_allclose(chebyshev.chebval(nodes, step_coefficients(order, flatness)), step, atol=1e-12)


def test_flatness_1_is_the_graph_itself() -> None:
    np.testing.assert_allclose(step_coefficients(4, 1.0), [0.5, 0.5, 0, 0, 0], atol=1e-12)


def test_the_whole_matrix_scores_as_the_filter_does() -> None:
    data = random_data(users=300, items=90)
    exact = GraphFilter(filter="chebyshev", recent_weight=0.5).fit_scorer(data, FitContext())
    whole = GraphFilter(filter="chebyshev", recent_weight=0.5, neighbors=90).fit_scorer(data, in_pieces(4))
    assert isinstance(whole, LinearScorer)
    scores = whole.score(ask(data))
    np.testing.assert_allclose(np.where(np.isneginf(scores), 0, scores), exact.score(ask(data)), rtol=1e-4, atol=1e-5)
    cut = GraphFilter(filter="chebyshev", neighbors=7).fit_scorer(data, FitContext())
    assert isinstance(cut, LinearScorer)
    assert np.diff(cut.weights.offsets).max() == 7


def test_sums_over_a_history_agree_with_its_scores() -> None:
    data = random_data()
    scorer = GraphFilter(filter="chebyshev", recent_weight=0.3, **POWERS).fit_scorer(data, FitContext())
    assert isinstance(scorer, GraphFilterScorer)
    scores, rows = scorer.score(ask(data)), np.arange(ITEMS, dtype=np.int32)
    history = data.histories.slice(3, 4)
    items, parts = scorer.contributions(history, rows)
    assert items.tolist() == sorted(history.items_E.tolist())
    for item, lost in zip(items, parts, strict=True):
        less = scorer.score(strangers(history.only(history.items_E != item)))[0]
        np.testing.assert_allclose(lost, scores[3] - less, rtol=1e-3, atol=1e-5)
    image = np.random.default_rng(0).standard_normal((ITEMS, 3)).astype(np.float32)
    found = scorer.add_up(data.histories, scorer.apply_to(image))
    np.testing.assert_allclose(found, scores @ image, rtol=1e-3, atol=1e-4)


def test_a_batch_of_more_than_a_tile_is_one_by_one_to_the_bit() -> None:
    data = random_data(users=150, items=40)
    scorer = GraphFilter(filter="chebyshev").fit_scorer(data, FitContext())
    asked = ask(data, known=False)
    single = np.concatenate([scorer.score(asked.slice(row, row + 1)) for row in range(0, 150, 7)])
    np.testing.assert_array_equal(scorer.score(asked)[::7], single)


@pytest.mark.parametrize("shape", [(80, 30), (30, 80)])
def test_leading_vectors_are_those_of_the_decomposition(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    matrix = (rng.random(shape) < 0.3).astype(np.float32)
    found = leading_vectors(sp.csr_matrix(matrix), 6, FitContext())
    expected = np.linalg.svd(matrix)[2][:6].T
    np.testing.assert_allclose(np.abs(found.T @ expected), np.eye(6), atol=2e-3)
    assert (found[np.abs(found).argmax(axis=0), np.arange(6)] > 0).all()


def test_no_more_vectors_than_the_rank() -> None:
    matrix = np.outer(np.arange(1, 20), np.arange(1, 12)).astype(np.float32)
    found = leading_vectors(sp.csr_matrix(matrix), 5, FitContext())
    np.testing.assert_allclose(found[:, 0], np.arange(1, 12) / np.linalg.norm(np.arange(1, 12)), rtol=1e-5)
    assert found.shape == (11, 1)
    assert leading_vectors(sp.csr_matrix((4, 3), dtype=np.float32), 2, FitContext()).shape == (3, 0)


def in_pairs(users: int = 400, seed: int = 0) -> TrainData:
    """Users take random items, and 20 + i right after i: what comes last says what comes next."""
    rng = np.random.default_rng(seed)
    lists = [[item for first in rng.choice(20, 6, replace=False) for item in (first, 20 + first)] for _ in range(users)]
    return TrainData(Histories.from_lists(lists), random_data(items=41).items)


def test_choosing_takes_what_ranks_held_out_events_best() -> None:
    said: list[str] = []
    data = in_pairs()
    scorer = GraphFilter(filter="chebyshev", choose="both").fit_scorer(data, FitContext(progress=said.append))
    assert isinstance(scorer, GraphFilterScorer)
    assert scorer.events.recent.weight > 0
    assert any("recent_weight" in line and "NDCG@20" in line for line in said)
    plain = GraphFilter(filter="chebyshev", choose="random").fit_scorer(data, FitContext())
    assert isinstance(plain, GraphFilterScorer)
    assert plain.events.recent.weight == 0


def test_what_is_chosen_is_the_best_of_all_that_is_tried() -> None:
    """Each choice fitted and ranked on its own, without the sums that the choice is made by."""
    data = random_data(users=200, items=60)
    chosen = GraphFilter(filter="chebyshev", choose="random")
    left, held_out = hold_out(data.histories, 1.0, FitContext().rng(1), last=False)
    assert held_out is not None
    tried = {}
    for powers, weight, dim in product(POWERS_TRIED, LOW_PASS, (60 // 8, 60 // 8 // 4)):
        names = dict(zip(("user_power", "item_power", "degree_power"), powers, strict=True))
        settings = names | {"low_pass_weight": weight, "low_pass_dim": dim}
        less = TrainData(left, data.items)
        scorer = GraphFilter(filter="chebyshev", **settings).fit_scorer(less, FitContext())

        def best(users: np.ndarray, k: int, exclude: ItemLists, scorer: Any = scorer, left: Any = left) -> np.ndarray:
            scores = scorer.score(strangers(left.take(users)))
            return top_k_scores(scores, k, exclude, scorer.scorable_I).rows_BK

        tried[powers, weight, dim if weight else 60 // 8] = lists_quality(best, left, held_out)
    found = choose_settings(chosen, data, FitContext())
    assert found.choose is None
    mine = tried[found.powers, found.low_pass_weight, found.low_pass_dim]
    assert mine == pytest.approx(max(tried.values()), abs=1e-6)
    assert mine > min(tried.values()) + 5e-3


def test_choosing_needs_events_to_hold_out() -> None:
    said: list[str] = []
    data = TrainData(Histories.from_lists([[0, 1], [1, 2], [2, 0]]), random_data(items=3).items)
    scorer = GraphFilter(filter="chebyshev", choose="both").fit_scorer(data, FitContext(progress=said.append))
    assert np.isfinite(scorer.score(strangers(data.histories))).any()
    assert any("too few users" in line for line in said)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"order": 3}, "order"),
        ({"low_pass_dim": 3}, "low_pass_dim"),
        ({"choose": "random"}, "choose"),
        ({"filter": "ideal", "neighbors": 3}, "neighbors"),
        ({"filter": "ideal", "low_pass_weight": 0.1}, "low_pass_weight"),
        ({"filter": "chebyshev", "choose": "random", "item_power": 0.1}, "item_power"),
        ({"filter": "chebyshev", "choose": "both", "recent_weight": 0.1}, "recent_weight"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has no effect"):
        GraphFilter(**settings)
