"""NCF: the split first layer against the plain network, pairs against blocks, strangers, ranking what was retrieved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models import MODELS
from recsys_ray.models.holdout import lists_quality
from recsys_ray.models.ncf.fit import NCF
from recsys_ray.models.ncf.kernels import LANES, Perceptron, score_block, score_rows
from recsys_ray.models.ncf.network import NCFNetwork
from recsys_ray.models.ncf.scorer import PairScorer
from recsys_ray.models.observed_pairs import PairJob
from recsys_ray.recommend.bundle import Bundle, open_bundle, write_bundle
from recsys_ray.recommend.config import RankerSettings, RecommendSettings
from recsys_ray.recommend.options import Options, read_options, with_stages
from recsys_ray.recommend.rank import recommend, seen_items
from recsys_ray.training.worker import LocalWorker
from tests.data_worlds import prepare_values

USERS, ITEMS = 30, 50


def world(users: int = USERS) -> TrainData:
    """Two halves that don't mix, an item and a user without interactions at the end."""
    rng = np.random.default_rng(0)
    histories = []
    for user in range(users - 1):
        half = np.arange(user % 2, ITEMS - 1, 2)
        histories.append(rng.choice(half, rng.integers(4, 13), replace=False).tolist())
    return TrainData(Histories.from_lists([*histories, []]), pa.table({"item_id": pa.array(range(ITEMS))}))


def ask(data: TrainData, known: bool = True) -> Requests:
    users = np.arange(data.num_users, dtype=np.int32) if known else np.full(data.num_users, -1, np.int32)
    return Requests(pa.array(range(data.num_users)), users, data.histories, ItemLists.empty(data.num_users))


def model_of(data: TrainData, **settings: Any) -> NCFNetwork:
    config = NCF(**{"embedding_dim": 5, "mlp_dim": 4, "hidden_layers": [7, 6, 3]} | settings)
    initial = np.random.default_rng(3).normal(size=(data.num_users + data.num_items, 5)).astype(np.float32)
    return NCFNetwork(PairJob(data.histories, None, data.num_items, initial, config, seed=1), LocalWorker())


@pytest.fixture(scope="module")
def scorer() -> PairScorer:
    config = NCF(embedding_dim=8, mlp_dim=8, epochs=12, batch_size=64, learning_rate=0.02, negatives=20)
    return config.fit_scorer(world(), FitContext())


# --- the network ---


@pytest.mark.parametrize("hidden_layers", [[6], [7, 6], [9, 4, 5, 2]])
@pytest.mark.parametrize(("similarity", "layers"), [("inner", 0), ("cosine", 1)])
def test_the_split_first_layer_is_the_plain_network(hidden_layers: list[int], similarity: Any, layers: int) -> None:
    """Worked out as the paper draws it: vectors side by side, one layer after the other, both branches at the end."""
    model = model_of(world(), hidden_layers=hidden_layers, similarity=similarity, temperature=0.5, layers=layers)
    if similarity == "inner":
        torch.nn.init.normal_(model.factor_weights_D)
    (p, q), (r, s) = (values.detach().split([USERS, ITEMS]) for values in (model.factors_ND, model.inner_NF))
    if layers:
        matrix = torch.from_numpy(world().histories.matrix(ITEMS).toarray())
        scale = torch.rsqrt(matrix.sum(dim=1).clamp_min(1))[:, None], torch.rsqrt(matrix.sum(dim=0).clamp_min(1))
        matrix = scale[0] * matrix * scale[1]
        p, q = (p + matrix @ q) / 2, (q + matrix.T @ p) / 2
    values = torch.cat([r[:, None].expand(-1, ITEMS, -1), s[None].expand(USERS, -1, -1)], dim=2)
    first = torch.cat([model.user_half.weight, model.item_half.weight], dim=1)
    values = torch.relu(values @ first.T + model.user_half.bias)
    for layer in model.layers:
        values = torch.relu(values @ layer.weight.T + layer.bias)
    if similarity == "cosine":
        factors = torch.nn.functional.cosine_similarity(p[:, None], q[None], dim=2)[..., None] / 0.5
    else:
        factors = p[:, None] * q[None] * model.factor_weights_D
    last = torch.cat([factors.sum(dim=2, keepdim=True), values], dim=2)
    plain = last @ torch.cat([torch.ones(1), model.output.weight[0]]) + model.output.bias
    every_user, every_item = torch.arange(USERS), torch.arange(ITEMS)
    final = model.final()
    every_pair = model.scores_of_all(model.user_rows(final, every_user), model.item_rows(final, every_item))
    torch.testing.assert_close(every_pair, plain, atol=1e-5, rtol=1e-5)
    one_by_one = model.scores(model.user_rows(final, every_user), model.item_rows(final, every_user))
    torch.testing.assert_close(one_by_one, plain[every_user, every_user], atol=1e-5, rtol=1e-5)
    trained, block = model.trained(), np.empty((USERS, ITEMS), np.float32)
    score_block(trained.users_UJ, trained.items_IJ, trained.perceptron, block)
    np.testing.assert_allclose(block, plain.detach().numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("items", [1, LANES - 1, LANES, 2 * LANES + 3])
def test_pairs_are_the_entries_of_the_block_bit_by_bit(items: int) -> None:
    rng = np.random.default_rng(0)
    widths, dim, rows = (6, 5), 9, 4
    weights = rng.standard_normal(6 * 5 + 5 + 5 + 1).astype(np.float32)
    queries, vectors = (rng.standard_normal((count, dim + 6)).astype(np.float32) for count in (rows, items))
    block, listed = np.empty((rows, items), np.float32), rng.integers(0, items, (rows, 70)).astype(np.int32)
    pairs = np.empty(listed.shape, np.float32)
    score_block(queries, vectors, Perceptron(widths, weights), block)
    score_rows(queries, vectors, Perceptron(widths, weights), listed, pairs)
    np.testing.assert_array_equal(pairs, np.take_along_axis(block, listed, axis=1))
    alone = np.empty((1, items), np.float32)
    score_block(queries[2:3], vectors, Perceptron(widths, weights), alone)
    np.testing.assert_array_equal(alone[0], block[2])


# --- what it learns ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "bce", "negatives": 4},
        {"loss": "bpr", "negatives": 2, "regularization": 1e-3},
        {"loss": "softmax", "negatives": 30, "negative_strategy": "mixed", "correct_popularity": True},
        {"loss": "softmax", "negatives": 30, "similarity": "cosine", "hidden_layers": [8], "layers": 1},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
def test_every_loss_learns_which_half_a_user_likes(settings: dict[str, Any]) -> None:
    data = world()
    config = NCF(**{"embedding_dim": 8, "mlp_dim": 8, "epochs": 12, "batch_size": 64, "learning_rate": 0.02} | settings)
    assert_halves_are_told_apart(config.fit_scorer(data, FitContext()), data)


def assert_halves_are_told_apart(scorer: PairScorer, data: TrainData) -> None:
    same = (np.arange(USERS - 1)[:, None] + np.arange(ITEMS - 1)) % 2 == 0
    seen = data.histories.matrix(ITEMS).toarray()[:-1, :-1] > 0
    for known in (True, False):
        scores = scorer.score(ask(data, known))[:-1, :-1]
        best_wrong = np.where(~same, scores, -np.inf).max(axis=1)
        best_right = np.where(same & ~seen, scores, -np.inf).max(axis=1)
        assert (best_right > best_wrong).mean() > 0.9, known


def test_a_stranger_is_answered_from_the_history_and_a_user_from_the_stored_row(scorer: PairScorer) -> None:
    data = world()
    assert_halves_are_told_apart(scorer, data)
    assert not np.allclose(scorer.score(ask(data)), scorer.score(ask(data, known=False)), atol=1e-3)
    assert scorer.answers(ask(data)).tolist() == [True] * (USERS - 1) + [False]


def test_rows_of_histories_are_the_regression_of_the_stored_ones(scorer: PairScorer) -> None:
    """Ridge regression with a free intercept, by a solver that knows least squares only: the penalty as more rows."""
    data = world()
    stored = scorer.users_UJ[:-1]
    lists = [data.histories.items_E[data.histories.span(user)] for user in range(USERS - 1)]
    sums = np.stack([scorer.items_IJ[items].sum(axis=0) / np.sqrt(len(items)) for items in lists]).astype(np.float64)
    centred, targets = sums - sums.mean(axis=0), stored - stored.mean(axis=0)
    penalty = np.sqrt(1e-3 * np.square(centred).sum() / sums.shape[1]) * np.eye(sums.shape[1])
    solved = np.linalg.lstsq(np.vstack([centred, penalty]), np.vstack([targets, np.zeros_like(penalty)]), rcond=None)[0]
    told = scorer.rows_of(data.histories)[:-1]
    np.testing.assert_allclose(told, stored.mean(axis=0) + centred @ solved, atol=1e-4)


def test_saved_and_loaded_it_says_the_same(scorer: PairScorer) -> None:
    data, again = world(), PairScorer.from_state(scorer.state())
    rows = np.random.default_rng(0).integers(-1, ITEMS, (USERS, 9)).astype(np.int32)
    for known in (True, False):
        np.testing.assert_array_equal(again.score(ask(data, known)), scorer.score(ask(data, known)))
        np.testing.assert_array_equal(
            again.score_pairs(ask(data, known), rows), scorer.score_pairs(ask(data, known), rows)
        )
    assert np.isneginf(scorer.score_pairs(ask(data), rows)[rows < 0]).all()


def test_early_stopping_watches_what_it_held_out() -> None:
    lines: list[str] = []
    config = NCF(
        embedding_dim=8, mlp_dim=4, epochs=100, batch_size=512, learning_rate=0.05, validation_share=0.5, patience=1
    )
    config.fit_scorer(world(users=60), FitContext(progress=lines.append))
    assert 2 <= int(lines[-1].split()[1]) < 100


def test_quality_of_lists_worked_by_hand() -> None:
    """The second of two users with a target finds it in place 2; nothing of the histories may be listed."""
    histories, held = Histories.from_lists([[5], [0], [5]]), ItemLists.from_lists([[4], [4], []])

    def best(users: np.ndarray, k: int, exclude: ItemLists) -> np.ndarray:
        assert users.tolist() == [0, 1] and exclude.row(1).tolist() == [0]
        rows = np.full((2, k), -1, np.int32)
        rows[:, :2] = [[4, 1], [1, 4]]
        return rows

    assert lists_quality(best, histories, held) == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_widths_must_be_widths() -> None:
    with pytest.raises(ValidationError, match=r"hidden_layers: widths must be at least 1, found 0"):
        NCF(hidden_layers=[4, 0])


# --- as a ranker ---


def test_it_ranks_what_another_model_retrieved(tmp_path: Path) -> None:
    prepared = prepare_values(tmp_path, source="synthetic", users=60, items=40, interactions_per_user=6, shards=1)
    settings = {"item_cf": {}, "ncf": {"embedding_dim": 4, "epochs": 2, "negatives": 10}}
    bundles: dict[str, Bundle] = {}
    for name, values in settings.items():
        fitted = MODELS[name](**values).fit_scorer(prepared.train_data(("train",)), FitContext())
        location = Location.of(tmp_path / name)
        facts = {"model": name, "prepared": "prepared", "predicts_ratings": False}
        write_bundle(location, fitted, prepared, ("train",), facts)
        bundles[name] = open_bundle(location)
    first, second = bundles["item_cf"], bundles["ncf"]
    requests = first.requests(0)
    wanted = RecommendSettings(n=3, fallback=[], ranker=RankerSettings(pool=8))
    options = with_stages(first, wanted, read_options(first, wanted), second.location)
    rows = recommend(first, requests, options).to_pylist()
    found = recommend(first, requests, Options(n=8, fallback=())).to_pylist()
    scores, by_hand = second.scorer.score(requests), []
    for position, user in enumerate(requests.user_ids.to_pylist()):
        ids = [row["item_id"] for row in found if row["user_id"] == user]
        items = first.item_rows(pa.array(ids, first.item_ids.type), "test")
        assert not set(items.tolist()) & set(seen_items(requests).row(position).tolist())
        best = sorted(zip((-scores[position, items]).tolist(), items.tolist(), strict=True))[:3]
        by_hand += [(user, first.item_ids[item].as_py(), -score) for score, item in best]
    assert [(row["user_id"], row["item_id"]) for row in rows] == [(user, item) for user, item, _ in by_hand]
    np.testing.assert_allclose([row["score"] for row in rows], [score for *_, score in by_hand], atol=1e-6)
