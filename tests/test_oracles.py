"""Closed forms and identities: every model against the formula it claims, worked out densely and slowly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.contracts import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.errors import ModelError
from recsys_ray.models import als, ease, graph_filter, item_cf, popularity, pure_svd, svd
from recsys_ray.models.kernels import SparseRows
from recsys_ray.models.least_squares import solve_rows
from recsys_ray.models.scorers import LinearScorer

USERS, ITEMS = 60, 25
DAY = 86_400_000


def random_data(seed: int = 0, users: int = USERS, items: int = ITEMS, density: float = 0.2) -> TrainData:
    """Random pairs with ratings 1 to 5; the last item has none and the last user neither."""
    rng = np.random.default_rng(seed)
    likes = rng.random((users, items)) < density * rng.uniform(0.2, 1.8, items)
    likes[:, -1] = likes[-1] = False
    lists = [np.flatnonzero(row).tolist() for row in likes]
    ratings = [rng.integers(1, 6, len(row)).astype(float).tolist() for row in lists]
    return TrainData(Histories.from_lists(lists, ratings), pa.table({"item_id": np.arange(items)}))


def dense(data: TrainData, ratings: bool = False) -> np.ndarray:
    histories = data.histories
    matrix = np.zeros((data.num_users, data.num_items))
    matrix[histories.rows_E, histories.items_E] = histories.ratings_E if ratings else 1.0
    return matrix


def ask(data: TrainData, known: bool = True) -> Requests:
    users = np.arange(data.num_users, dtype=np.int32) if known else np.full(data.num_users, -1, np.int32)
    return Requests(pa.array(range(data.num_users)), users, data.histories, ItemLists.empty(data.num_users))


def weights_of(scorer: LinearScorer) -> np.ndarray:
    """W as a dense array, from the scores of one-item histories; pairs without an entry are 0."""
    size = scorer.num_items
    each = Histories.from_lists([[item] for item in range(size)])
    scores = scorer.score(Requests(pa.array(range(size)), np.full(size, -1, np.int32), each, ItemLists.empty(size)))
    return np.where(np.isneginf(scores), 0, scores)


def in_pieces(count: int) -> FitContext:
    """Blocks worked on one by one, in reverse order and handed back in the right one, as other machines might."""

    def map_blocks(
        fn: Callable[[Any, Any], Any], blocks: Iterable[Any], shared: Any = None, label: str | None = None
    ) -> Iterator[Any]:
        return reversed([fn(block, shared) for block in reversed(list(blocks))])

    return FitContext(map_blocks=map_blocks, num_blocks=count)


# --- EASE


@pytest.mark.parametrize("weighting", ["binary", "rating"])
def test_ease_column_is_the_ridge_regression_on_the_other_items(weighting: str) -> None:
    data, regularization = random_data(), 7.0
    scorer = ease.fit_ease(data, ease.EASEConfig(regularization=regularization, weighting=weighting), FitContext())
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
    weights = weights_of(ease.fit_ease(random_data(), ease.EASEConfig(regularization=7.0), FitContext()))
    assert np.abs(weights - weights.T).max() > 0.05


def test_ease_larger_than_a_tile() -> None:
    data = random_data(users=400, items=150)
    weights = weights_of(ease.fit_ease(data, ease.EASEConfig(regularization=20.0), FitContext()))
    inverse = np.linalg.inv(dense(data).T @ dense(data) + 20.0 * np.eye(150))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(weights, expected, atol=2e-6)


# --- item-CF and graph filter


def item_vectors(matrix: np.ndarray, config: item_cf.ItemCFConfig) -> np.ndarray:
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


def similarities(matrix: np.ndarray, config: item_cf.ItemCFConfig) -> np.ndarray:
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
    config = item_cf.ItemCFConfig(neighbors=ITEMS, weighting=weighting, **settings)
    scorer = item_cf.fit_item_cf(data, config, in_pieces(3))
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
        scorer = item_cf.fit_item_cf(data, item_cf.ItemCFConfig(neighbors=neighbors), FitContext())
        assert np.flatnonzero(weights_of(scorer)[0]).tolist() == kept


@pytest.mark.parametrize("settings", [{"similarity": "bm25", "shrinkage": 1.0}, {"bm25_b": 0.1}])
def test_item_cf_refuses_settings_without_effect(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no effect"):
        item_cf.ItemCFConfig(**settings)


def test_graph_filter_is_its_formula() -> None:
    data = random_data()
    scorer = graph_filter.fit_graph_filter(data, graph_filter.GraphFilterConfig(), in_pieces(4))
    matrix = dense(data)
    users, items = np.maximum(matrix.sum(axis=1), 1), np.maximum(matrix.sum(axis=0), 1)
    normal = matrix / np.sqrt(users)[:, None] / np.sqrt(items)
    expected = matrix @ np.diag(items**-0.5) @ (normal.T @ normal) @ np.diag(items**0.5)
    scores = scorer.score(ask(data))
    np.testing.assert_allclose(np.where(np.isneginf(scores), 0, scores), expected, rtol=1e-5, atol=1e-6)


def test_graph_filter_keeps_the_largest() -> None:
    data = random_data()
    whole = weights_of(graph_filter.fit_graph_filter(data, graph_filter.GraphFilterConfig(), FitContext()))
    cut = weights_of(graph_filter.fit_graph_filter(data, graph_filter.GraphFilterConfig(neighbors=5), FitContext()))
    for row, kept in zip(whole, cut, strict=True):
        assert np.sort(kept[kept != 0]).tolist() == np.sort(row[row != 0])[-5:].tolist()


# --- ALS


ALS = als.ALSConfig(embedding_dim=8, epochs=3, regularization=0.05, unobserved_weight=0.3, popularity_power=0.5)


def slow_loss(matrix: np.ndarray, users: np.ndarray, items: np.ndarray, config: als.ALSConfig) -> float:
    scores = users @ items.T
    observed = matrix > 0
    zeros = zero_weights(matrix, config)
    total = (matrix * (1 - scores) ** 2)[observed].sum() + config.unobserved_weight * (zeros * scores**2).sum()
    for axis, side in ((1, users), (0, items)):
        frequency = observed.sum(axis=axis) + config.unobserved_weight * zeros.sum(axis=axis)
        total += config.regularization * (frequency**config.frequency_power) @ (side**2).sum(axis=1)
    return float(total)


def zero_weights(matrix: np.ndarray, config: als.ALSConfig) -> np.ndarray:
    """(U, I) the c_i of the model's docstring."""
    popularity = np.maximum((matrix > 0).sum(axis=0), 1.0) ** config.popularity_power
    return np.ones_like(matrix) * popularity / popularity.mean()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("popularity", [0.0, 0.7])
@pytest.mark.parametrize("weighting", ["binary", "rating"])
def test_als_half_steps_have_zero_gradient(power: float, popularity: float, weighting: str) -> None:
    """Every row is where the loss has no slope; rows shorter and longer than the dimension take different ways."""
    data = random_data(density=0.4)
    config = ALS.model_copy(update={"frequency_power": power, "popularity_power": popularity, "weighting": weighting})
    matrix = dense(data, ratings=weighting == "rating")
    zeros = zero_weights(matrix, config)
    pairs = data.histories.matrix(ITEMS, data.histories.ratings_E if weighting == "rating" else None)
    opposite = np.random.default_rng(1).standard_normal((ITEMS, config.embedding_dim)).astype(np.float32)
    for side, weights, zero in zip(als.sides(pairs, config), (matrix, matrix.T), (zeros, zeros.T), strict=True):
        lengths = (weights > 0).sum(axis=1)
        assert (lengths < config.embedding_dim).any() and (lengths >= config.embedding_dim).any()
        rows, rotated, _ = als.half_step(side, opposite, config, FitContext())
        np.testing.assert_allclose(rotated @ rotated.T, opposite @ opposite.T, atol=1e-4)
        x, y = rows.astype(float), rotated.astype(float)
        ridge = config.regularization * (lengths + config.unobserved_weight * zero.sum(axis=1)) ** power
        scores = x @ y.T
        gradient = (config.unobserved_weight * zero * scores - weights * (1 - scores)) @ y + ridge[:, None] * x
        assert np.abs(gradient).max() < 1e-4
        assert np.abs(x).max() > 0.1
        opposite = rows


def test_als_long_histories() -> None:
    """Several times as many events as are added up together."""
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((300, 20)).astype(np.float32)
    weights, targets = rng.uniform(0.5, 2, 300).astype(np.float32), rng.standard_normal(300).astype(np.float32)
    penalty = rng.uniform(0, 2, 20).astype(np.float32)
    for length in (1, 19, 20, 63, 64, 65, 300):
        part = slice(0, length)
        order = np.arange(300, dtype=np.int32)[part]
        offsets, ridge = np.array([0, length], np.int64), np.array([0.5], np.float32)
        found = solve_rows(offsets, order, weights[part], targets[part], factors, penalty, ridge)
        left = factors[part].T.astype(float) * weights[part]
        expected = np.linalg.solve(left @ factors[part] + np.diag(penalty + 0.5), left @ targets[part])
        np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("popularity", [0.0, 0.7])
def test_als_loss_is_the_slow_one_and_falls(popularity: float) -> None:
    data = random_data()
    config = ALS.model_copy(update={"popularity_power": popularity})
    user_side, item_side = als.sides(data.histories.matrix(ITEMS), config)
    items = np.random.default_rng(2).standard_normal((ITEMS, 8)).astype(np.float32) * np.float32(0.1)
    losses = []
    for _ in range(6):
        users, items, _ = als.half_step(user_side, items, config, FitContext())
        losses.append(als.loss(user_side, users, items, config))
        assert losses[-1] == pytest.approx(slow_loss(dense(data), users, items, config), rel=1e-5)
        items, users, _ = als.half_step(item_side, users, config, FitContext())
        losses.append(als.loss(user_side, users, items, config))
    assert all(after < before * (1 + 1e-6) for before, after in itertools.pairwise(losses))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("weighting", ["binary", "rating"])
def test_als_stored_row_is_the_fold_in_of_its_history(weighting: str) -> None:
    data = random_data()
    scorer = als.fit_als(data, ALS.model_copy(update={"weighting": weighting}), FitContext())
    np.testing.assert_array_equal(scorer.solve(data.histories), scorer.users_UD)
    np.testing.assert_array_equal(scorer.score(ask(data)), scorer.score(ask(data, known=False)))


def test_als_user_without_training_history_is_answered_from_the_request() -> None:
    data = random_data()
    scorer = als.fit_als(data, ALS, FitContext())
    last = USERS - 1
    later = Histories.from_lists([[1, 2, 3]])
    as_known = Requests(pa.array([last]), np.array([last], np.int32), later, ItemLists.empty(1))
    as_stranger = Requests(pa.array([last]), np.array([-1], np.int32), later, ItemLists.empty(1))
    assert scorer.answers(as_known).tolist() == [True]
    np.testing.assert_array_equal(scorer.score(as_known), scorer.score(as_stranger))


def test_als_in_blocks_is_als_in_one() -> None:
    data = random_data()
    whole = als.fit_als(data, ALS, FitContext())
    for count in (2, 7, USERS + 5):
        parts = als.fit_als(data, ALS, in_pieces(count))
        np.testing.assert_array_equal(whole.users_UD, parts.users_UD)
        np.testing.assert_array_equal(whole.items_ID, parts.items_ID)


def test_als_refuses_ratings_that_are_not_positive() -> None:
    data = TrainData(Histories.from_lists([[0, 1]], [[1.0, 0.0]]), pa.table({"item_id": np.arange(2)}))
    with pytest.raises(ModelError, match=r"found 0\.0"):
        als.fit_als(data, als.ALSConfig(weighting="rating"), FitContext())


# --- SVD and PureSVD


def low_rank_world(rank: int = 2) -> tuple[TrainData, np.ndarray]:
    """Half of the ratings of a world that is exactly bias plus ``rank`` factors; and all of them."""
    rng = np.random.default_rng(5)
    users, items = 200, 80
    truth = rng.standard_normal((users, rank)) @ rng.standard_normal((rank, items)) / np.sqrt(rank)
    truth += 3.0 + 0.5 * rng.standard_normal((users, 1)) + 0.5 * rng.standard_normal((1, items))
    shown = rng.random((users, items)) < 0.5
    lists = [np.flatnonzero(row).tolist() for row in shown]
    ratings = [truth[user, row].tolist() for user, row in enumerate(lists)]
    return TrainData(Histories.from_lists(lists, ratings), pa.table({"item_id": np.arange(items)})), truth


def test_svd_recovers_a_low_rank_world_for_known_and_unknown_users() -> None:
    data, truth = low_rank_world()
    config = svd.SVDConfig(embedding_dim=4, epochs=80, learning_rate=0.02, regularization=0.005)
    scorer = svd.fit_svd(data, config, FitContext())
    hidden = np.ones(truth.shape, bool)
    hidden[data.histories.rows_E, data.histories.items_E] = False
    spread = truth[hidden].std()
    for known in (True, False):
        error = np.sqrt(np.mean((scorer.score(ask(data, known)) - truth)[hidden] ** 2))
        assert error < 0.15 * spread


def test_svd_error_falls_and_is_reported() -> None:
    data, _ = low_rank_world()
    lines: list[str] = []
    svd.fit_svd(data, svd.SVDConfig(embedding_dim=4), FitContext(progress=lines.append))
    errors = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert len(errors) == 20 and errors[-1] < errors[0] and errors == sorted(errors, reverse=True)


def test_svd_pass_is_the_update_of_the_paper() -> None:
    rng = np.random.default_rng(6)
    users = rng.standard_normal((3, 3)).astype(np.float32)
    items = rng.standard_normal((4, 3)).astype(np.float32)
    items[:, -1] = 1
    bias = rng.standard_normal(4).astype(np.float32)
    rows, columns = np.array([0, 0, 1, 2, 2], np.int32), np.array([0, 3, 1, 0, 2], np.int32)
    ratings = rng.standard_normal(5).astype(np.float32)
    order, rate, penalty, mean = np.array([3, 0, 4, 1, 2]), 0.1, 0.3, 0.5
    p, b_u = users[:, :2].astype(float), users[:, 2].astype(float)
    q, b_i = items[:, :2].astype(float), bias.astype(float)
    total = 0.0
    for e in order:
        u, i = rows[e], columns[e]
        error = ratings[e] - (mean + b_u[u] + b_i[i] + p[u] @ q[i])
        b_u[u] += rate * (error - penalty * b_u[u])
        b_i[i] += rate * (error - penalty * b_i[i])
        p[u], q[i] = p[u] + rate * (error * q[i] - penalty * p[u]), q[i] + rate * (error * p[u] - penalty * q[i])
        total += error**2
    settings = (np.float32(mean), users, items, bias, np.float32(rate), np.float32(penalty))
    found = svd.descend(order, rows, columns, ratings, *settings)
    assert found == pytest.approx(total / 5, rel=1e-5)
    np.testing.assert_allclose(users, np.column_stack([p, b_u]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(items, np.column_stack([q, np.ones(4)]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bias, b_i, rtol=1e-4, atol=1e-6)


def test_svd_fold_in_is_the_ridge_regression_on_the_residuals() -> None:
    data, _ = low_rank_world()
    scorer = svd.fit_svd(data, svd.SVDConfig(embedding_dim=4, regularization=0.1), FitContext())
    assert scorer.bias_I is not None
    queries = scorer.solve(data.histories)
    for user in (0, 7):
        row = data.histories.row(user)
        items = data.histories.items_E[row]
        left = scorer.items_ID[items].astype(float)
        residuals = data.histories.ratings_E[row] - scorer.bias_I[items]
        expected = np.linalg.solve(left.T @ left + 0.1 * len(items) * np.eye(5), left.T @ residuals)
        np.testing.assert_allclose(queries[user], expected, rtol=1e-3, atol=1e-4)


def test_svd_says_what_to_set() -> None:
    data, _ = low_rank_world()
    with pytest.raises(ModelError, match=r"^svd: .*lower learning_rate"):
        svd.fit_svd(data, svd.SVDConfig(learning_rate=50.0), FitContext())
    same = TrainData(Histories.from_lists([[0, 1]]), pa.table({"item_id": np.arange(2)}))
    with pytest.raises(ModelError, match="needs ratings that differ"):
        svd.fit_svd(same, svd.SVDConfig(), FitContext())


@pytest.mark.parametrize("dim", [3, 20])  # by iteration, and whole
def test_pure_svd_is_the_projection(dim: int) -> None:
    data = random_data()
    scorer = pure_svd.fit_pure_svd(data, pure_svd.PureSVDConfig(embedding_dim=dim), FitContext())
    matrix = dense(data)
    leading = np.linalg.svd(matrix)[2][:dim]
    np.testing.assert_allclose(scorer.score(ask(data)), matrix @ leading.T @ leading, atol=1e-5)
    strengths = np.linalg.norm(matrix @ scorer.items_ID, axis=0)
    np.testing.assert_allclose(strengths, np.linalg.svd(matrix)[1][:dim], rtol=1e-4)
    assert (scorer.items_ID[np.abs(scorer.items_ID).argmax(axis=0), np.arange(dim)] > 0).all()


# --- popularity and scoring


def test_popularity_counts_and_decays() -> None:
    times = [[0, 10 * DAY], [10 * DAY], [5 * DAY]]
    histories = Histories.from_lists([[0, 1], [1], [2]], timestamps=times)
    data = TrainData(histories, pa.table({"item_id": np.arange(4)}))

    def scores(**settings: float) -> list[float]:
        config = popularity.PopularityConfig(**settings)
        return popularity.fit_popularity(data, config, FitContext()).scores_I.tolist()

    assert scores() == [1, 2, 1, 0]
    assert scores(window_days=5.0) == [0, 2, 1, 0]
    assert scores(half_life_days=5.0) == [0.25, 2, 0.5, 0]


def test_popularity_needs_timestamps_for_a_window() -> None:
    histories = Histories.from_lists([[0, 1]], timestamps=[[0, 0]])
    data = TrainData(histories, pa.table({"item_id": np.arange(2)}))
    with pytest.raises(ModelError, match="need timestamps"):
        popularity.fit_popularity(data, popularity.PopularityConfig(window_days=1.0), FitContext())


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


def test_scores_do_not_change_by_a_bit_with_the_number_of_threads() -> None:
    data = random_data(users=400, items=200, density=0.3)
    results = []
    threads = numba.get_num_threads()
    try:
        for count in (1, threads):
            numba.set_num_threads(count)
            scorer = als.fit_als(data, ALS, FitContext())
            linear = graph_filter.fit_graph_filter(data, graph_filter.GraphFilterConfig(), FitContext())
            results.append((scorer.users_UD, linear.score(ask(data))))
    finally:
        numba.set_num_threads(threads)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
