"""LightGCN: propagation against dense matrix powers, gradients against autograd, fold-in against stored rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models.holdout import hold_out, ranking_quality
from recsys_ray.models.lightgcn.fit import LightGCN, scorer_from
from recsys_ray.models.lightgcn.network import LightGCNNetwork, SparseProduct, propagation, train_lightgcn
from recsys_ray.models.linalg.graph import CHUNKS, Graph, Propagator
from recsys_ray.models.linalg.initial import initial_embeddings
from recsys_ray.models.observed_pairs import PairJob
from recsys_ray.training.worker import LocalWorker
from tests.two_processes import leave

USERS, ITEMS = 30, 50


def world(seed: int = 0, users: int = USERS, items: int = ITEMS) -> TrainData:
    """Two halves that don't mix, an item and a user without interactions at the end."""
    rng = np.random.default_rng(seed)
    histories = []
    for user in range(users - 1):
        half = np.arange(user % 2, items - 1, 2)
        histories.append(rng.choice(half, rng.integers(4, 13), replace=False).tolist())
    return TrainData(Histories.from_lists([*histories, []]), pa.table({"item_id": pa.array(range(items))}))


def dense_adjacency(data: TrainData) -> np.ndarray:
    pairs = data.histories.matrix(data.num_items).toarray().astype(np.float64)
    users, items = pairs.shape
    whole = np.zeros((users + items, users + items))
    whole[:users, users:] = pairs
    whole[users:, :users] = pairs.T
    scale = 1 / np.sqrt(np.maximum(whole.sum(axis=1), 1))
    return scale[:, None] * whole * scale


@pytest.mark.parametrize("dim", [1, 5, 64, 70, 128])
@pytest.mark.parametrize("weights", [(1.0,), (0.0, 1.0), (0.25, 0.25, 0.25, 0.25), (0.5, 0.0, 2.0)])
def test_propagation_is_dense_matrix_powers(dim: int, weights: tuple[float, ...]) -> None:
    data = world()
    values = np.random.default_rng(1).standard_normal((USERS + ITEMS, dim)).astype(np.float32)
    dense = dense_adjacency(data)
    expected = sum(weight * np.linalg.matrix_power(dense, k) @ values for k, weight in enumerate(weights))
    graph = Graph.of(data.histories.matrix(ITEMS))
    for reuse in (False, True):
        propagate = Propagator(graph, weights, reuse)
        propagate(values * 2)
        np.testing.assert_allclose(propagate(values), expected, atol=1e-5)
    np.testing.assert_allclose(
        propagation(graph, weights, "cpu")(torch.from_numpy(values)).detach(), expected, atol=1e-5
    )


def test_the_product_for_gpus_is_that_for_cpus() -> None:
    data = world()
    graph, weights = Graph.of(data.histories.matrix(ITEMS)), (0.5, 0.0, 2.0)
    start = torch.from_numpy(np.random.default_rng(1).standard_normal((USERS + ITEMS, 5)).astype(np.float32))
    answers = []
    for product in (propagation(graph, weights, "cpu"), SparseProduct(graph, weights, "cpu")):
        values = start.clone().requires_grad_()
        # What the loop wraps a step in on a GPU: mixed precision, which the product stays out of.
        with torch.autocast("cpu", torch.bfloat16):
            propagated = product(values)
        propagated.square().sum().backward()
        assert values.grad is not None
        answers.append((propagated.detach().numpy(), values.grad.numpy()))
    for ours, theirs in zip(*answers, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_the_spectral_start_is_the_truncated_singular_value_decomposition() -> None:
    data = world()
    pairs = data.histories.matrix(ITEMS)
    start = initial_embeddings(pairs, LightGCN(embedding_dim=4, initial_std=0.2), FitContext())
    normalised = dense_adjacency(data)[:USERS, USERS:]
    left, values, right = np.linalg.svd(normalised)
    closest = (left[:, :4] * values[:4]) @ right[:4]
    ours = start[:USERS] @ start[USERS:].T
    np.testing.assert_allclose(ours / np.linalg.norm(ours), closest / np.linalg.norm(closest), atol=1e-4)
    assert start.std() == pytest.approx(0.2)


def test_columns_beyond_the_rank_start_at_random() -> None:
    one_block = Histories.from_lists([[0, 1], [0, 1], [0, 1]])  # of rank 1
    start = initial_embeddings(one_block.matrix(2), LightGCN(embedding_dim=3), FitContext())
    noise = initial_embeddings(one_block.matrix(2), LightGCN(embedding_dim=3, initialization="normal"), FitContext())
    np.testing.assert_array_equal(start[:, 1:], noise[:, 1:])
    assert np.ptp(start[:3, 0]) < 1e-6 < abs(start[0, 0])


def test_chunks_cover_all_rows() -> None:
    for users in (3, 400):
        data = world(users=users)
        edges = Graph.of(data.histories.matrix(ITEMS)).chunks()
        assert edges[0] == 0 and edges[-1] == users + ITEMS and (np.diff(edges) >= 0).all()
        assert len(edges) <= CHUNKS + 1


def model_of(data: TrainData, config: LightGCN, worker: Any = None) -> LightGCNNetwork:
    shape = (data.num_users + data.num_items, config.embedding_dim)
    initial = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    job = PairJob(data.histories, None, data.num_items, initial, config, seed=1)
    return LightGCNNetwork(job, worker or LocalWorker())


class Dense(torch.nn.Module):
    """The same product without a backward of our own."""

    def __init__(self, total: torch.Tensor) -> None:
        super().__init__()
        self.total = total

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.total @ values


@pytest.mark.parametrize("settings", [{"loss": "bpr", "negatives": 2, "regularization": 0.1}, {"negatives": 9}])
def test_gradient_is_that_of_the_dense_model(settings: dict[str, Any]) -> None:
    """The compiled product has a backward of our own; autograd through a dense matrix has not."""
    data = world()
    model = model_of(data, LightGCN(embedding_dim=8, batch_size=32, **settings))
    batch = next(iter(model.batches(0)))
    model.loss(batch).backward()
    ours = model.embeddings_ND.grad.clone()
    dense = torch.from_numpy(dense_adjacency(data)).float()
    total = sum(torch.linalg.matrix_power(dense, k) for k in range(4)) / 4
    model.embeddings_ND.grad = None
    model.propagation = Dense(total)
    batch[1].manual_seed(batch[1].initial_seed())
    model.loss(batch).backward()
    assert float(ours.abs().max()) > 1e-4
    torch.testing.assert_close(ours, model.embeddings_ND.grad, atol=1e-6, rtol=1e-4)


def test_a_negative_is_not_the_users_own() -> None:
    """Of five items a user has four: drawn at random, most negatives would be positives."""
    data = TrainData(Histories.from_lists([[0, 1, 2, 3], [4, 0]]), pa.table({"item_id": pa.array(range(5))}))
    model = model_of(data, LightGCN(embedding_dim=4, loss="bpr", negatives=1))
    users = torch.zeros(2000, dtype=torch.long)
    random = torch.Generator().manual_seed(0)
    drawn = [model.pairs.unseen_negatives(model.negatives, users, users, random) for _ in range(3)]
    # One in five draws is not the user's; with a second try 1 - 0.8 ^ 2 are not.
    assert float((torch.cat(drawn) == 4).float().mean()) == pytest.approx(0.36, abs=0.03)


def test_fold_in_is_the_stored_row_where_users_have_no_vector_of_their_own() -> None:
    """Layer 0 zero for users: then a row is a function of the history alone, and the formula must give it exactly."""
    data = world()
    config = LightGCN(embedding_dim=8, layers=1)
    embeddings = np.random.default_rng(0).standard_normal((USERS + ITEMS, 8)).astype(np.float32)
    embeddings[:USERS] = 0
    scorer = scorer_from(embeddings, data, config)
    known, strange = (scorer.queries(asking(data, known)) for known in (True, False))
    np.testing.assert_allclose(known[:-1], strange[:-1], rtol=0.02, atol=0.02)
    assert np.abs(known[:-1]).max() > 0.1


def test_items_are_ranked_with_a_power_of_their_length_and_nobody_is_known_without_a_history() -> None:
    data = world()
    embeddings = np.random.default_rng(0).normal(size=(USERS + ITEMS, 6)).astype(np.float32)
    whole, root = (scorer_from(embeddings, data, LightGCN(length_power=power)) for power in (1.0, 0.5))
    lengths = np.linalg.norm(whole.items_ID, axis=1, keepdims=True)
    np.testing.assert_allclose(root.items_ID, whole.items_ID / np.sqrt(lengths), rtol=1e-4)
    assert whole.answers(asking(data, known=True)).tolist() == [True] * (USERS - 1) + [False]


def asking(data: TrainData, known: bool) -> Requests:
    users = np.arange(data.num_users, dtype=np.int32) if known else np.full(data.num_users, -1, np.int32)
    return Requests(pa.array(range(data.num_users)), users, data.histories, ItemLists.empty(data.num_users))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "bpr", "negatives": 1, "learning_rate": 0.1},
        {"loss": "bpr", "negatives": 2, "negative_strategy": "hard", "hard_candidates": 6, "learning_rate": 0.1},
        {"negatives": 30, "learning_rate": 0.1},
        {"negatives": 30, "learning_rate": 0.1, "negative_strategy": "mixed", "correct_popularity": True},
        {"negatives": 30, "learning_rate": 0.1, "similarity": "inner", "temperature": 1.0},
        {"negatives": 30, "learning_rate": 0.1, "layers": 0},
        {"negatives": 20, "negative_strategy": "hard", "hard_candidates": 30, "learning_rate": 0.1},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
def test_it_learns_which_half_a_user_likes(settings: dict[str, Any]) -> None:
    data = world()
    scorer = LightGCN(embedding_dim=8, epochs=12, batch_size=64, **settings).fit_scorer(data, FitContext())
    same = (np.arange(USERS - 1)[:, None] + np.arange(ITEMS - 1)) % 2 == 0
    seen = data.histories.matrix(ITEMS).toarray()[:-1, :-1] > 0
    for known in (True, False):
        scores = scorer.score(asking(data, known))[:-1, :-1]
        best_wrong = np.where(~same, scores, -np.inf).max(axis=1)
        best_right = np.where(same & ~seen, scores, -np.inf).max(axis=1)
        assert (best_right > best_wrong).mean() > 0.8, (
            known
        )  # a half of them by chance; over seeds .86 to 1 of 29 users


def test_early_stopping_watches_what_it_held_out() -> None:
    data = world(users=200)
    config = LightGCN(embedding_dim=8, epochs=200, batch_size=512, learning_rate=0.1, validation_share=0.3, patience=2)
    lines: list[str] = []
    config.fit_scorer(data, FitContext(progress=lines.append))
    epochs = int(lines[-1].split()[1])
    assert 3 <= epochs < 200


def test_held_out_events_are_the_histories_own() -> None:
    data = world(users=200)
    kept, held = hold_out(data.histories, 0.25, np.random.default_rng(0), last=False)
    assert held is not None
    watched = np.flatnonzero(held.lengths_B)
    assert len(watched) == round(0.25 * 199)
    for user in range(200):
        whole = data.histories.items_E[data.histories.span(user)].tolist()
        rest = kept.items_E[kept.span(user)].tolist()
        assert sorted(rest + held.row(user).tolist()) == sorted(whole) and len(set(rest)) == len(rest)
    _, last = hold_out(data.histories, 1.0, np.random.default_rng(0), last=True)
    assert last is not None and last.row(3).tolist() == [data.histories.items_E[data.histories.span(3)][-1]]
    assert hold_out(data.histories, 0.0, np.random.default_rng(0), last=True) == (data.histories, None)


def test_ranking_quality_worked_by_hand() -> None:
    """Items on a line, two users with targets at rank 1 and 2 after what they have seen, one without a target."""
    items = np.arange(6, dtype=np.float32)[:, None]
    queries = np.ones((3, 1), np.float32)
    histories = Histories.from_lists([[5], [0], [5]])
    held = ItemLists.from_lists([[4], [4], []])
    assert ranking_quality(queries, items, histories, held) == pytest.approx((1 + 1 / np.log2(3)) / 2)


def in_a_process(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=2)
    data = world()
    trained, progress = train_lightgcn(pair_job(data), LocalWorker(rank=rank, world_size=2))
    Path(directory, f"{rank}.json").write_text(json.dumps([trained.tolist(), progress.history[-1]["loss"]]))
    leave()


def pair_job(data: TrainData) -> PairJob[LightGCN]:
    config = LightGCN(embedding_dim=4, epochs=5, batch_size=40, learning_rate=0.05, negatives=16)
    return model_of(data, config).job


@pytest.mark.slow
def test_two_workers_are_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(in_a_process, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    alone, progress = train_lightgcn(pair_job(world()), LocalWorker())
    np.testing.assert_allclose(first[0], alone, atol=2e-3)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == pytest.approx(progress.history[-1]["loss"], rel=1e-3)


def test_hard_negatives_need_candidates() -> None:
    with pytest.raises(ValueError, match="hard needs hard_candidates >= negatives"):
        LightGCN(negative_strategy="hard")
