"""Closed forms and identities of the factor models: ALS, SVD, and their fold-in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numba
import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models import als, graph_filter, svd
from recsys_ray.models.linalg.conjugate_gradient import improve_rows
from recsys_ray.models.linalg.least_squares import principal_axes, rotate, solve_rows
from tests.dense import ITEMS, USERS, ask, dense, in_pieces, random_data


@contextmanager
def one_thread() -> Iterator[None]:
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)


# --- ALS

ALS = als.ALS(embedding_dim=8, epochs=3, regularization=0.05, unobserved_weight=0.3, popularity_power=0.5)


def slow_loss(matrix: np.ndarray, users: np.ndarray, items: np.ndarray, config: als.ALS) -> float:
    scores = users @ items.T
    observed = matrix > 0
    zeros = zero_weights(matrix, config)
    total = (matrix * (1 - scores) ** 2)[observed].sum() + config.unobserved_weight * (zeros * scores**2).sum()
    for axis, side in ((1, users), (0, items)):
        frequency = observed.sum(axis=axis) + config.unobserved_weight * zeros.sum(axis=axis)
        total += config.regularization * (frequency**config.frequency_power) @ (side**2).sum(axis=1)
    return float(total)


def zero_weights(matrix: np.ndarray, config: als.ALS) -> np.ndarray:
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


def ragged_problem(lengths: list[int], dim: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """The arguments of ``solve_rows``: rows of these lengths against 300 items."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.concatenate([rng.choice(300, length, replace=False) for length in lengths]).astype(np.int32)
    floats = (rng.uniform(0.5, 2, len(items)), rng.standard_normal(len(items)), rng.standard_normal((300, dim)))
    penalties = (rng.uniform(0, 2, dim), rng.uniform(0.1, 1, len(lengths)))
    return offsets, items, *(values.astype(np.float32) for values in (*floats, *penalties))


def losses_of(rows: np.ndarray, problem: tuple[np.ndarray, ...]) -> np.ndarray:
    """What ``solve_rows`` minimizes, by row."""
    offsets, items, weights, targets, factors, penalty, ridge = problem
    owner = np.repeat(np.arange(len(rows)), np.diff(offsets))
    scores = np.einsum("ed,ed->e", rows.astype(float)[owner], factors[items].astype(float))
    return np.bincount(owner, weights * (targets - scores) ** 2, len(rows)) + (
        (penalty + ridge[:, None]) * rows.astype(float) ** 2
    ).sum(axis=1)


LENGTHS = [0, 1, 2, 3, 4, 5, 19, 20, 21, 0, 64, 300, 7, 0]


@pytest.mark.parametrize("dim", [1, 16, 20])
def test_improved_rows_gain_and_approach_the_exact_ones(dim: int) -> None:
    problem = ragged_problem(LENGTHS, dim)
    exact = solve_rows(*problem)
    start = np.random.default_rng(1).standard_normal(exact.shape).astype(np.float32)
    least, before = losses_of(exact, problem), losses_of(start, problem)
    rows = improve_rows(*problem, start)
    after = losses_of(rows, problem)
    has_events = np.array(LENGTHS) > 0
    assert not rows[~has_events].any()
    assert (after - least <= 0.02 * (before - least))[has_events].all()
    for _ in range(5):
        rows = improve_rows(*problem, rows)
    np.testing.assert_allclose(rows, exact, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(improve_rows(*problem, exact), exact, rtol=1e-3, atol=1e-5)


def test_improved_rows_do_not_change_by_a_bit_with_batch_or_threads() -> None:
    problem = ragged_problem(LENGTHS * 50, 20)
    offsets, items, weights, targets, factors, penalty, ridge = problem
    start = np.random.default_rng(1).standard_normal((len(ridge), 20)).astype(np.float32)
    whole = improve_rows(*problem, start)
    with one_thread():
        np.testing.assert_array_equal(whole, improve_rows(*problem, start))
    for row in range(2 * len(LENGTHS)):
        events = slice(offsets[row], offsets[row + 1])
        single = (np.array([0, offsets[row + 1] - offsets[row]]), items[events], weights[events], targets[events])
        alone = improve_rows(*single, factors, penalty, ridge[row : row + 1], start[row : row + 1])
        np.testing.assert_array_equal(alone[0], whole[row])
    assert improve_rows(np.zeros(1, np.int64), *single[1:], factors, penalty, ridge[:0], start[:0]).shape == (0, 20)


@pytest.mark.parametrize(("count", "dim"), [(1, 1), (7, 5), (131, 16), (3001, 20)])
def test_principal_axes_make_the_weighted_gram_matrix_diagonal(count: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    rows, weights = rng.standard_normal((count, dim)).astype(np.float32), rng.uniform(0, 2, count).astype(np.float32)
    axes, values = principal_axes(rows, weights)
    rotated = rotate(rows, axes)
    np.testing.assert_allclose(axes.T @ axes, np.eye(dim), atol=1e-5)
    np.testing.assert_allclose(rotated, rows.astype(float) @ axes, atol=1e-5)
    gram = rotated.astype(float).T @ (weights[:, None] * rotated)
    np.testing.assert_allclose(gram, np.diag(values), atol=1e-5 * max(values.max(), 1))
    with one_thread():
        np.testing.assert_array_equal(rotated, rotate(rows, principal_axes(rows, weights)[0]))


def test_als_half_step_from_the_exact_rows_stays_there() -> None:
    """Whatever the axes in which they are handed over."""
    data = random_data(density=0.4)
    user_side, _ = als.sides(data.histories.matrix(ITEMS), ALS)
    rng = np.random.default_rng(1)
    opposite = rng.standard_normal((ITEMS, ALS.embedding_dim)).astype(np.float32)
    exact, rotated, _ = als.half_step(user_side, opposite, ALS, FitContext())
    turn = np.linalg.qr(rng.standard_normal((ALS.embedding_dim,) * 2))[0].astype(np.float32)
    rows, again, _ = als.half_step(user_side, rotated @ turn, ALS, FitContext(), start_RD=exact @ turn)
    np.testing.assert_allclose(rows @ again.T, exact @ rotated.T, atol=1e-4)


@pytest.mark.parametrize("popularity", [0.0, 0.7])
@pytest.mark.parametrize("unobserved", [0.3, 0.003])
def test_als_loss_keeps_up_with_exact_half_steps(popularity: float, unobserved: float) -> None:
    data = random_data(users=200, items=80)
    config = ALS.model_copy(update={"popularity_power": popularity, "unobserved_weight": unobserved})
    user_side, item_side = als.sides(data.histories.matrix(80), config)
    items = np.random.default_rng(2).standard_normal((80, 8)).astype(np.float32) * np.float32(0.1)
    users, exact_items = np.zeros((200, 8), np.float32), items
    for _ in range(8):
        users, items, _ = als.half_step(user_side, items, config, FitContext(), start_RD=users)
        items, users, _ = als.half_step(item_side, users, config, FitContext(), start_RD=items)
        exact_users, exact_items, _ = als.half_step(user_side, exact_items, config, FitContext())
        exact_items, exact_users, _ = als.half_step(item_side, exact_users, config, FitContext())
    reached = als.loss(user_side, users, items, config)
    assert reached < 1.001 * als.loss(user_side, exact_users, exact_items, config)


@pytest.mark.parametrize("popularity", [0.0, 0.7])
def test_als_fitted_users_have_zero_gradient(popularity: float) -> None:
    data = random_data(density=0.4)
    config = ALS.model_copy(update={"popularity_power": popularity})
    scorer = config.fit_scorer(data, FitContext())
    matrix, zeros = dense(data), zero_weights(dense(data), config)
    x, y = scorer.users_UD.astype(float), scorer.items_ID.astype(float)
    ridge = config.regularization * (matrix.sum(axis=1) + config.unobserved_weight * ITEMS)
    scores = x @ y.T
    gradient = (config.unobserved_weight * zeros * scores - matrix * (1 - scores)) @ y + ridge[:, None] * x
    assert np.abs(gradient[matrix.any(axis=1)]).max() < 1e-4
    assert np.abs(x).max() > 0.1


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
    scorer = ALS.model_copy(update={"weighting": weighting}).fit_scorer(data, FitContext())
    np.testing.assert_array_equal(scorer.solve(data.histories), scorer.users_UD)
    np.testing.assert_array_equal(scorer.score(ask(data)), scorer.score(ask(data, known=False)))


def test_als_user_without_training_history_is_answered_from_the_request() -> None:
    data = random_data()
    scorer = ALS.fit_scorer(data, FitContext())
    last = USERS - 1
    later = Histories.from_lists([[1, 2, 3]])
    as_known = Requests(pa.array([last]), np.array([last], np.int32), later, ItemLists.empty(1))
    as_stranger = Requests(pa.array([last]), np.array([-1], np.int32), later, ItemLists.empty(1))
    assert scorer.answers(as_known).tolist() == [True]
    np.testing.assert_array_equal(scorer.score(as_known), scorer.score(as_stranger))


def test_als_in_blocks_is_als_in_one() -> None:
    data = random_data()
    whole = ALS.fit_scorer(data, FitContext())
    for count in (2, 7, USERS + 5):
        parts = ALS.fit_scorer(data, in_pieces(count))
        np.testing.assert_array_equal(whole.users_UD, parts.users_UD)
        np.testing.assert_array_equal(whole.items_ID, parts.items_ID)


def test_als_refuses_ratings_that_are_not_positive() -> None:
    data = TrainData(Histories.from_lists([[0, 1]], [[1.0, 0.0]]), pa.table({"item_id": np.arange(2)}))
    with pytest.raises(ModelError, match=r"found 0\.0"):
        als.ALS(weighting="rating").fit_scorer(data, FitContext())


# --- SVD


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
    config = svd.SVD(embedding_dim=4, epochs=80, learning_rate=0.02, regularization=0.005)
    scorer = config.fit_scorer(data, FitContext())
    hidden = np.ones(truth.shape, bool)
    hidden[data.histories.rows_E, data.histories.items_E] = False
    spread = truth[hidden].std()
    for known in (True, False):
        error = np.sqrt(np.mean((scorer.score(ask(data, known)) - truth)[hidden] ** 2))
        assert error < 0.15 * spread


def test_svd_error_falls_and_is_reported() -> None:
    data, _ = low_rank_world()
    lines: list[str] = []
    svd.SVD(embedding_dim=4, epochs=20).fit_scorer(data, FitContext(progress=lines.append))
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
    scorer = svd.SVD(embedding_dim=4, regularization=0.1).fit_scorer(data, FitContext())
    assert scorer.bias_I is not None
    queries = scorer.solve(data.histories)
    for user in (0, 7):
        row = data.histories.span(user)
        items = data.histories.items_E[row]
        left = scorer.items_ID[items].astype(float)
        residuals = data.histories.ratings_E[row] - scorer.bias_I[items]
        expected = np.linalg.solve(left.T @ left + 0.1 * len(items) * np.eye(5), left.T @ residuals)
        np.testing.assert_allclose(queries[user], expected, rtol=1e-3, atol=1e-4)


def test_svd_says_what_to_set() -> None:
    data, _ = low_rank_world()
    with pytest.raises(ModelError, match=r"^svd: .*lower learning_rate"):
        svd.SVD(learning_rate=50.0).fit_scorer(data, FitContext())
    same = TrainData(Histories.from_lists([[0, 1]]), pa.table({"item_id": np.arange(2)}))
    with pytest.raises(ModelError, match="needs ratings that differ"):
        svd.SVD().fit_scorer(same, FitContext())


def test_scores_do_not_change_by_a_bit_with_the_number_of_threads() -> None:
    data = random_data(users=400, items=200, density=0.3)
    results = []
    for threads in (one_thread(), nullcontext()):
        with threads:
            scorer = ALS.fit_scorer(data, FitContext())
            linear = graph_filter.GraphFilter().fit_scorer(data, FitContext())
            results.append((scorer.users_UD, linear.score(ask(data))))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
