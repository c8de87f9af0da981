"""Closed forms of the linear models: each against the formula it claims, worked out densely and slowly."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models import ease, graph_filter, item_cf, popularity, pure_svd
from recsys_ray.models.content import attribute_vectors
from recsys_ray.models.linalg.sparse import SparseRows
from recsys_ray.models.scorers.linear import LinearScorer
from tests.dense import ITEMS, ask, dense, in_pieces, random_data, weights_of

DAY = 86_400_000

# --- EASE


@pytest.mark.parametrize("weighting", ["binary", "rating"])
def test_ease_column_is_the_ridge_regression_on_the_other_items(weighting: str) -> None:
    data, regularization = random_data(), 7.0
    scorer = ease.EASE(regularization=regularization, weighting=weighting).fit_scorer(data, FitContext())
    matrix = dense(data, ratings=weighting == "rating")
    weights = weights_of(scorer)
    for item in range(ITEMS - 1):
        others = np.delete(np.arange(ITEMS), item)
        left = matrix[:, others]
        column = np.linalg.solve(left.T @ left + regularization * np.eye(ITEMS - 1), left.T @ matrix[:, item])
        np.testing.assert_allclose(weights[others, item], column, atol=2e-6)
        assert weights[item, item] == 0
    np.testing.assert_allclose(scorer.score(ask(data)), matrix @ weights, atol=1e-4)


def test_ease_is_not_transposed() -> None:
    """With unequal popularity B differs from its transpose, so the test above can tell them apart."""
    weights = weights_of(ease.EASE(regularization=7.0).fit_scorer(random_data(), FitContext()))
    assert np.abs(weights - weights.T).max() > 0.05


def test_ease_larger_than_a_tile() -> None:
    data = random_data(users=400, items=150)
    weights = weights_of(ease.EASE(regularization=20.0).fit_scorer(data, FitContext()))
    inverse = np.linalg.inv(dense(data).T @ dense(data) + 20.0 * np.eye(150))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(weights, expected, atol=2e-6)


def dropped_out(matrix: np.ndarray, column: int, model: ease.EASE) -> np.ndarray:
    """Column of B by weighted least squares over every way to drop the inputs of every user."""
    kept, size = 1 - model.dropout, matrix.shape[1]
    counts = matrix.sum(axis=0)
    ridge = model.regularization * (np.maximum(counts, 1) / counts[counts > 0].mean()) ** model.regularization_power
    others = np.delete(np.arange(size), column)
    rows, targets, weights = [], [], []
    for mask in product([0, 1], repeat=size - 1):
        chance = np.prod(np.where(mask, kept, 1 - kept))
        for own, share in ((0.0, 1 - model.kept_share), (1.0, model.kept_share)):
            inputs = np.zeros(matrix.shape)
            inputs[:, others] = matrix[:, others] * mask
            inputs[:, column] = matrix[:, column] * own
            rows.append(inputs)
            targets.append(matrix[:, column])
            weights.append(np.full(len(matrix), chance * share))
    left, right, weight = np.concatenate(rows), np.concatenate(targets), np.concatenate(weights)
    gram = left.T @ (weight[:, None] * left) + kept**2 * np.diag(ridge)
    return kept * np.linalg.solve(gram, left.T @ (weight * right))


@pytest.mark.parametrize("power", [0.0, 0.5])
@pytest.mark.parametrize(("dropout", "kept_share"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.6), (0.4, 0.3), (0.3, 1.0)])
def test_ease_under_dropout_is_the_expected_regression(dropout: float, kept_share: float, power: float) -> None:
    data = random_data(users=30, items=6, density=0.5)
    model = ease.EASE(regularization=3.0, regularization_power=power, dropout=dropout, kept_share=kept_share)
    scorer = model.fit_scorer(data, FitContext())
    matrix, found = dense(data), weights_of(scorer)
    expected = np.stack([dropped_out(matrix, column, model) for column in range(6)], axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert (np.abs(np.diagonal(found)[:-1]) > 0.01).all() == (kept_share > 0)


def test_ease_adds_the_regression_on_features() -> None:
    data = random_data()
    items = data.items.append_column("genres", pa.array([["a"], ["b"], ["a", "b"], ["c"], []] * 5))
    data = TrainData(data.histories, items)
    plain = weights_of(ease.EASE(regularization=7.0).fit_scorer(data, FitContext()))
    model = ease.EASE(regularization=7.0, features="attributes", features_weight=0.4, features_regularization=2.0)
    scorer = model.fit_scorer(data, FitContext())
    vectors = attribute_vectors(items).vectors_ID.astype(np.float64)
    inverse = np.linalg.inv(vectors @ vectors.T + 2.0 * np.eye(ITEMS))
    added = -inverse / np.diag(inverse)
    np.fill_diagonal(added, 0)
    np.testing.assert_allclose(weights_of(scorer), plain + 0.4 * added, atol=1e-5)
    # Nobody has touched the last item, which has no genre either; the one before is known by both.
    assert scorer.scorable_I.tolist() == [True] * (ITEMS - 1) + [False]
    with pytest.raises(ModelError, match=r"^ease: the catalogue has no genres or years; .*unset features"):
        model.fit_scorer(random_data(), FitContext())
    with pytest.raises(ValueError, match="features_weight has no effect"):
        ease.EASE(features_weight=0.4)
    with pytest.raises(ModelError, match="ease: features = content needs item vectors"):
        ease.EASE(features="content").fit_scorer(data, FitContext())
    assert ease.EASE(features="content").needs_content and not model.needs_content


# --- item-CF and graph filter


def item_vectors(matrix: np.ndarray, config: item_cf.ItemCF) -> np.ndarray:
    """(I, U) the weights m_iu of the model's docstring."""
    counts = matrix.T
    idf = np.log((1 + matrix.shape[1]) / (1 + (matrix > 0).sum(axis=1)))
    if config.similarity == "cosine":
        return counts
    if config.similarity == "tfidf":
        return np.sqrt(counts) * idf
    users_of = (counts > 0).sum(axis=1)
    length = 1 - config.bm25_b + config.bm25_b * users_of / users_of.mean()
    return counts * (config.bm25_k1 + 1) / (config.bm25_k1 * length[:, None] + counts) * idf


def similarities(matrix: np.ndarray, config: item_cf.ItemCF) -> np.ndarray:
    vectors = item_vectors(matrix, config)
    similar = vectors @ vectors.T
    if config.similarity != "bm25":
        norms = np.linalg.norm(vectors, axis=1)
        similar = similar / np.maximum(np.outer(norms, norms) + config.shrinkage, 1e-30)
    np.fill_diagonal(similar, 0)
    return similar


@pytest.mark.parametrize("weighting", ["binary", "rating"])
@pytest.mark.parametrize(
    "settings",
    [
        {"similarity": "cosine"},
        {"similarity": "cosine", "shrinkage": 3.0},
        {"similarity": "tfidf"},
        {"similarity": "bm25"},
        {"similarity": "bm25", "bm25_k1": 2.0, "bm25_b": 0.3},
    ],
    ids=str,
)
def test_item_cf_is_its_formula(settings: dict[str, Any], weighting: str) -> None:
    data = random_data()
    config = item_cf.ItemCF(neighbors=ITEMS, weighting=weighting, **settings)
    scorer = config.fit_scorer(data, in_pieces(3))
    matrix = dense(data, ratings=weighting == "rating")
    expected = matrix @ similarities(matrix, config)
    scores = scorer.score(ask(data))
    np.testing.assert_allclose(np.where(np.isneginf(scores), 0, scores), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.isneginf(scores), expected == 0)


def test_item_cf_keeps_the_nearest_and_the_lower_of_equals() -> None:
    # Items 1 to 4 share one user each with item 0 and have no other: four equal similarities. Item 5 is nearer.
    lists = [[0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 5]]
    data = TrainData(Histories.from_lists(lists), pa.table({"item_id": np.arange(6)}))
    for neighbors, kept in ((1, [5]), (3, [1, 2, 5]), (9, [1, 2, 3, 4, 5])):
        scorer = item_cf.ItemCF(neighbors=neighbors).fit_scorer(data, FitContext())
        assert np.flatnonzero(weights_of(scorer)[0]).tolist() == kept


@pytest.mark.parametrize("settings", [{"similarity": "bm25", "shrinkage": 1.0}, {"bm25_b": 0.1}])
def test_item_cf_refuses_settings_without_effect(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no effect"):
        item_cf.ItemCF(**settings)


def test_graph_filter_is_its_formula() -> None:
    data = random_data()
    scorer = graph_filter.GraphFilter().fit_scorer(data, in_pieces(4))
    matrix = dense(data)
    users, items = np.maximum(matrix.sum(axis=1), 1), np.maximum(matrix.sum(axis=0), 1)
    normal = matrix / np.sqrt(users)[:, None] / np.sqrt(items)
    expected = matrix @ np.diag(items**-0.5) @ (normal.T @ normal) @ np.diag(items**0.5)
    scores = scorer.score(ask(data))
    np.testing.assert_allclose(np.where(np.isneginf(scores), 0, scores), expected, rtol=1e-5, atol=1e-6)


def test_graph_filter_keeps_the_largest() -> None:
    data = random_data()
    whole = weights_of(graph_filter.GraphFilter().fit_scorer(data, FitContext()))
    cut = weights_of(graph_filter.GraphFilter(neighbors=5).fit_scorer(data, FitContext()))
    for row, kept in zip(whole, cut, strict=True):
        assert np.sort(kept[kept != 0]).tolist() == np.sort(row[row != 0])[-5:].tolist()


# --- PureSVD, popularity and scoring


@pytest.mark.parametrize("dim", [3, 20])  # by iteration, and whole
def test_pure_svd_is_the_projection(dim: int) -> None:
    data = random_data()
    scorer = pure_svd.PureSVD(embedding_dim=dim).fit_scorer(data, FitContext())
    matrix = dense(data)
    leading = np.linalg.svd(matrix)[2][:dim]
    np.testing.assert_allclose(scorer.score(ask(data)), matrix @ leading.T @ leading, atol=1e-5)
    strengths = np.linalg.norm(matrix @ scorer.items_ID, axis=0)
    np.testing.assert_allclose(strengths, np.linalg.svd(matrix)[1][:dim], rtol=1e-4)
    assert (scorer.items_ID[np.abs(scorer.items_ID).argmax(axis=0), np.arange(dim)] > 0).all()


def test_popularity_counts_and_decays() -> None:
    times = [[0, 10 * DAY], [10 * DAY], [5 * DAY]]
    histories = Histories.from_lists([[0, 1], [1], [2]], timestamps=times)
    data = TrainData(histories, pa.table({"item_id": np.arange(4)}))

    def scores(**settings: float) -> list[float]:
        config = popularity.Popularity(**settings)
        return config.fit_scorer(data, FitContext()).scores_I.tolist()

    assert scores() == [1, 2, 1, 0]
    assert scores(window_days=5.0) == [0, 2, 1, 0]
    assert scores(half_life_days=5.0) == [0.25, 2, 0.5, 0]


def test_popularity_needs_timestamps_for_a_window() -> None:
    histories = Histories.from_lists([[0, 1]], timestamps=[[0, 0]])
    data = TrainData(histories, pa.table({"item_id": np.arange(2)}))
    with pytest.raises(ModelError, match="need timestamps"):
        popularity.Popularity(window_days=1.0).fit_scorer(data, FitContext())


@pytest.mark.slow
def test_linear_scores_beyond_one_tile_sparse_and_dense() -> None:
    rng = np.random.default_rng(3)
    size = 5000
    histories = Histories.from_lists([sorted(rng.choice(size, 4, replace=False).tolist()) for _ in range(9)])
    requests = Requests(pa.array(range(9)), np.full(9, -1, np.int32), histories, ItemLists.empty(9))
    weights = np.maximum(rng.integers(-6, 4, (size, size), np.int8), 0).astype(np.float32)
    counts, columns = (weights != 0).sum(axis=1), np.nonzero(weights)[1].astype(np.int32)
    sparse = SparseRows(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), columns, weights[weights != 0])
    trained = np.ones(size, bool)
    expected = histories.matrix(size) @ weights
    found = LinearScorer(weights=weights, trained_I=trained, weighting="binary").score(requests)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = LinearScorer(weights=sparse, trained_I=trained, weighting="binary").score(requests)
    np.testing.assert_array_equal(np.isneginf(found), (histories.matrix(size) @ (weights != 0)) == 0)
    np.testing.assert_allclose(np.where(np.isneginf(found), 0, found), expected, atol=1e-5)
