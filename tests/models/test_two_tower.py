"""Two-Tower: a target is no part of its own history, new users and new items are answered, two workers are one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import FitContext, Histories, ItemContent, ItemLists, Requests, TrainData
from recsys_ray.models.linalg.pooling import Pooling
from recsys_ray.models.two_tower.fit import TwoTower
from recsys_ray.models.two_tower.network import TwoTowerJob, TwoTowerNetwork, train_two_tower
from recsys_ray.models.two_tower.scorer import TowerScorer
from recsys_ray.models.two_tower.towers import BatchNorm
from recsys_ray.training import LocalWorker
from recsys_ray.training.workers import average_gradients, gather_rows
from tests.two_processes import leave

USERS, ITEMS = 24, 12
NEW = ITEMS  # nobody has touched the items from here on: NEW is even, NEW + 1 odd, of NEW + 2 nothing is known
SMALL: dict[str, Any] = {
    "embedding_dim": 8,
    "feature_dim": 4,
    "content_dim": 4,
    "layers": [16, 8],
    "dropout": 0.0,
    "learning_rate": 0.02,
    "batch_size": 12,
    "negatives": 12,
    "epochs": 30,
}


def parity_world() -> TrainData:
    """Even users have three to five even items, odd users odd ones; content and genres tell which items are even."""
    rng = np.random.default_rng(0)
    draws = [rng.permutation(np.arange(user % 2, ITEMS, 2))[: 3 + user // 2 % 3] for user in range(USERS)]
    rows = [sorted(draw.tolist()) for draw in draws]
    ratings = [[float(rng.integers(1, 6)) for _ in row] for row in rows]
    genres: list[list[str]] = [["even"] if item % 2 == 0 else ["odd"] for item in range(ITEMS + 2)]
    vectors = rng.normal(0, 0.1, (ITEMS + 3, 4)).astype(np.float32)
    vectors[np.arange(ITEMS + 2), np.arange(ITEMS + 2) % 2] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[ITEMS + 2] = 0
    table = pa.table({"item_id": pa.array(range(ITEMS + 3)), "genres": pa.array([*genres, []], pa.list_(pa.string()))})
    return TrainData(Histories.from_lists(rows, ratings), table, ItemContent(vectors, vectors.any(axis=1)))


def fitted(**settings: Any) -> TowerScorer:
    return TwoTower(**SMALL | settings).fit_scorer(parity_world(), FitContext(seed=1))


def ask(*histories: list[int], users: list[int] | None = None) -> Requests:
    rows = np.array([-1] * len(histories) if users is None else users, np.int32)
    return Requests(pa.array(rows), rows, Histories.from_lists(histories), ItemLists.empty(len(histories)))


def job_of(**settings: Any) -> TwoTowerJob:
    """What the workers of a fit are given."""
    given: list[TwoTowerJob] = []

    def keep(fn: Any, shared: Any, key: str) -> Any:
        given.append(shared)
        return train_two_tower(shared, LocalWorker())

    config = TwoTower(**SMALL | {"epochs": 1} | settings)
    config.fit_scorer(parity_world(), FitContext(seed=1, run_workers=keep))
    return given[0]


def losses_of(**settings: Any) -> list[float]:
    progress = train_two_tower(job_of(**settings), LocalWorker())[1]
    return [metrics["loss"] for metrics in progress.history]


@pytest.fixture(scope="module")
def scorer() -> TowerScorer:
    return fitted(use_content=True, id_dropout=0.3, user_id=True)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["sampled_softmax", "info_nce", "cosine_contrastive", "bpr", "bce", "mse", "mse_bpr"])
def test_every_loss_falls(loss: str) -> None:
    found = losses_of(loss=loss, epochs=15, id_dropout=0.0, use_content=True)
    assert min(found[-3:]) < 0.9 * found[0]


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["concat_mlp", "weighted", "gated", "attention", "bilinear"])
@pytest.mark.parametrize("layers", [[], [16, 8]], ids=["flat", "deep"])
def test_every_fusion_learns(fusion: str, layers: list[int]) -> None:
    found = losses_of(fusion=fusion, layers=layers, use_content=True, user_id=True, id_dropout=0.0, epochs=15)
    assert min(found[-3:]) < 0.9 * found[0]


@pytest.mark.slow
def test_one_batch_is_learned_by_heart() -> None:
    """Other targets of the same user are no negatives, so nothing keeps the loss above 0."""
    found = losses_of(
        loss="info_nce", epochs=150, batch_size=USERS, user_id=True, id_dropout=0.0, correct_popularity=False
    )
    assert found[-1] < 0.02 * found[0]


@pytest.mark.parametrize("history_items", ["shared", "own"])
@pytest.mark.parametrize("half_life_days", [None, 1e-8])
def test_a_target_is_no_part_of_its_own_history(history_items: str, half_life_days: float | None) -> None:
    """Each query is that of a history without the target: events, features and weights."""
    job = job_of(
        history_items=history_items, half_life_days=half_life_days, layers=[], fusion="weighted", id_dropout=0.0
    )
    model = TwoTowerNetwork(job, LocalWorker()).eval()
    batch = next(model.batches(0))
    items = job.pairs.items_E[batch.pairs_E]
    distinct, spots = np.unique(items, return_inverse=True)
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn((len(distinct), 8), generator=rng, dtype=torch.float32)
    before, own = model._queries(batch, vectors, spots)
    assert len(before) == len(items) and own.tolist() == list(range(len(items)))
    for place in (0, 7, len(items) - 1):
        changed = vectors.clone()
        changed[spots[place]] = 100.0
        after, _ = model._queries(batch, changed, spots)
        same = torch.isclose(after, before, atol=1e-4).all(dim=1).numpy()
        assert same[place]
        others = np.flatnonzero((batch.rows_E == batch.rows_E[place]) & (np.arange(len(items)) != place))
        assert not same[others].any()


@pytest.mark.parametrize("history_items", ["shared", "own"])
def test_a_query_in_training_is_the_query_of_the_rest_of_the_history(history_items: str) -> None:
    """What the finished scorer answers a user without the target: pooled history, features and id, over both towers."""
    job = job_of(
        history_items=history_items, rating_weight="rating", user_id=True, use_content=True, id_dropout=0.0, epochs=3
    )
    model = TwoTowerNetwork(job, LocalWorker()).eval()
    scorer, batch = model.scorer(), next(model.batches(0))
    places = [0, 7, 23]
    vectors = torch.from_numpy(scorer.history_ID)
    queries, _ = model._queries(batch, vectors, job.pairs.items_E[batch.pairs_E])
    histories, users = parity_world().histories, batch.users_B[batch.rows_E[places]].tolist()
    rests = [histories.slice(user, user + 1) for user in users]
    targets = job.pairs.items_E[batch.pairs_E[places]]
    rest = Histories.concatenate([row.only(row.items_E != item) for row, item in zip(rests, targets, strict=True)])
    asked = Requests(pa.array(users), np.array(users, np.int32), rest, ItemLists.empty(len(users)))
    trained = torch.nn.functional.normalize(queries[places], dim=1).detach()
    np.testing.assert_allclose(scorer.queries(asked), trained, atol=1e-5)


def test_a_dropped_id_is_hidden_with_all_that_its_interactions_tell() -> None:
    model = TwoTowerNetwork(job_of(user_id=True), LocalWorker()).eval()
    even = torch.tensor([0, 2])
    hidden = model.items(even, torch.tensor([True, True]))
    torch.testing.assert_close(hidden[0], hidden[1])
    torch.testing.assert_close(hidden[0], model.items(torch.tensor([NEW]))[0])
    assert not torch.isclose(model.items(even)[0], model.items(even)[1]).all()


def test_dropped_users_are_unknown_users() -> None:
    settings: dict[str, Any] = {"user_id": True, "use_features": False, "batch_size": USERS}
    dropped, kept = (
        TwoTowerNetwork(job_of(id_dropout=share, **settings), LocalWorker()).eval() for share in (0.999999, 0.0)
    )
    assert kept.user_ids is not None
    kept.user_ids.weight.data[:] = kept.user_ids.weight.data[-1]
    (batch,) = kept.batches(0)
    spots = kept.job.pairs.items_E[batch.pairs_E]
    vectors = torch.randn((ITEMS, 8), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dropped._queries(batch, vectors, spots)[0], kept._queries(batch, vectors, spots)[0])


def test_features_of_a_history_leave_the_target_out() -> None:
    job = job_of()
    model = TwoTowerNetwork(job, LocalWorker())
    batch = next(model.batches(0))
    assert job.features is not None and job.sums is not None
    found = model._features(batch, np.arange(len(batch.pairs_E)))
    histories = parity_world().histories
    for place in (0, 4, 11):
        row = histories.span(int(batch.users_B[batch.rows_E[place]]))
        rest = histories.items_E[row] != job.pairs.items_E[batch.pairs_E[place]]
        ratings = histories.ratings_E[row][rest]
        raw = found[place] / np.where(job.features.scale_F == 0, 1, job.features.scale_F) + job.features.mean_F
        assert raw[1:3] == pytest.approx([ratings.mean(), ratings.std()], rel=1e-4)
        assert raw[6:].sum() == pytest.approx(1)


def test_gradient_of_a_user_with_nothing_left_is_finite() -> None:
    data = TrainData(Histories.from_lists([[0], [1], [0, 1]]), pa.table({"item_id": pa.array(range(3))}))
    config = TwoTower(**SMALL | {"layers": [], "use_features": False, "gradient_clip": 1.0})
    assert np.isfinite(config.fit_scorer(data, FitContext()).score(ask([0], [0, 1]))).all()


@pytest.mark.slow
def test_a_new_user_is_answered_by_the_history(scorer: TowerScorer) -> None:
    asked = ask([0, 2, 4], [1, 3, 5], [0, 2, 4], users=[-1, -1, 1])
    scores = scorer.score(asked)
    assert scores[0, 6:ITEMS:2].mean() > scores[0, 7:ITEMS:2].mean()
    assert scores[1, 7:ITEMS:2].mean() > scores[1, 6:ITEMS:2].mean()
    assert not np.allclose(scores[0], scores[2], atol=1e-4)  # a known user has a row of its own beside the history
    assert scorer.answers(ask([], [], [NEW + 2], users=[0, -1, -1])).tolist() == [True, False, False]


def test_rows_of_known_users_are_nothing_to_a_new_one(scorer: TowerScorer) -> None:
    state = scorer.state()
    users_UC = state.arrays["users"].copy()
    users_UC[:-1] += 1
    changed = TowerScorer.from_state(dataclasses.replace(state, arrays=state.arrays | {"users": users_UC}))
    unknown, known = ask([0, 2, 4]), ask([0, 2, 4], users=[3])
    np.testing.assert_array_equal(changed.score(unknown), scorer.score(unknown))
    assert not np.allclose(changed.score(known), scorer.score(known), atol=1e-4)


def test_new_items_are_scored_by_what_is_known_of_them(scorer: TowerScorer) -> None:
    assert scorer.scorable_I.tolist() == [True] * (ITEMS + 2) + [False]
    scores = scorer.score(ask([0, 2, 4], [1, 3, 5]))
    assert scores[0, NEW] > scores[0, NEW + 1] and scores[1, NEW] < scores[1, NEW + 1]
    by_new = scorer.score(ask([NEW]))
    assert by_new[0, :ITEMS:2].mean() > by_new[0, 1:ITEMS:2].mean()
    like = scorer.similar(np.array([NEW], np.int32))[0]
    assert like[:ITEMS:2].mean() > like[1:ITEMS:2].mean() and np.isneginf(like[[NEW, NEW + 2]]).all()


def test_saved_and_loaded_is_the_same(scorer: TowerScorer) -> None:
    state = scorer.state()
    settings = json.loads(json.dumps(state.settings))
    loaded = TowerScorer.from_state(dataclasses.replace(state, settings=settings))
    asked = ask([0, 2, 4], [NEW, 1], [3], users=[0, -1, 5])
    np.testing.assert_array_equal(loaded.score(asked), scorer.score(asked))


def test_one_by_one_is_the_batch(scorer: TowerScorer) -> None:
    histories = [[0, 2, 4], [NEW, 1], [3], list(range(ITEMS))]
    single = np.concatenate([scorer.score(ask(history)) for history in histories])
    np.testing.assert_allclose(scorer.score(ask(*histories)), single, atol=1e-6)


def test_weights_of_a_pooled_history() -> None:
    day = 86_400_000
    histories = Histories.from_lists([[0, 1, 2, 3]], [[5.0, 4.0, 3.0, 2.0]], [[0, day, 2 * day, 9 * day]])
    of_items = np.array([1, 0.5, 2, 0], np.float32)
    weights = Pooling(limit=2, half_life_days=None, rating_weight="none").weights(histories, of_items)
    assert weights.tolist() == [0, 0.5, 2, 0]
    both = Pooling(limit=None, half_life_days=7.0, rating_weight="rating").weights(histories, np.ones(4, np.float32))
    expected = [5 * 0.5 ** (9 / 7), 4 * 0.5 ** (8 / 7), 3 * 0.5, 2]
    np.testing.assert_allclose(both, expected, rtol=1e-6)


def test_positives_per_user_is_a_limit_drawn_anew() -> None:
    model = TwoTowerNetwork(job_of(positives_per_user=2), LocalWorker())
    first, second = ([batch.pairs_E[batch.is_target_E] for batch in model.batches(epoch)] for epoch in (0, 1))
    assert sum(map(len, first)) == 2 * USERS
    assert set(np.concatenate(first).tolist()) != set(np.concatenate(second).tolist())


def test_early_stopping_keeps_the_best() -> None:
    config = TwoTower(**SMALL | {"validation_share": 0.5, "patience": 2, "epochs": 40})
    told: list[str] = []
    config.fit_scorer(parity_world(), FitContext(progress=told.append))
    assert any("valid" in line for line in told) and len(told) < 41


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_content": True}, r"use_content needs item vectors"),
        ({"half_life_days": 3.0}, r"half_life_days needs timestamps"),
        ({"loss": "mse"}, r'loss = "mse" needs ratings that differ'),
        ({"rating_weight": "rating"}, r"can't use the rating 0\.0"),
    ],
)
def test_what_is_asked_for_must_be_there(settings: dict[str, Any], message: str) -> None:
    rating = 0.0 if "rating_weight" in settings else 1.0
    histories = Histories.from_lists([[0, 1], [1, 2]], [[rating] * 2] * 2, [[0, 0], [0, 0]])
    data = TrainData(histories, pa.table({"item_id": pa.array(range(3))}))
    with pytest.raises(ModelError, match=rf"^two_tower: .*{message}"):
        TwoTower(**SMALL | settings).fit_scorer(data, FitContext())


def test_content_is_asked_for_by_the_setting() -> None:
    assert not TwoTower().needs_content and TwoTower(use_content=True).needs_content


WORKED: dict[str, Any] = {"epochs": 2, "user_id": True, "use_content": True, "positives_per_user": 4}


def in_a_process(rank: int, directory: str) -> None:
    """One of two workers with rows of their own; what came out goes to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=2)
    worker = LocalWorker(rank=rank, world_size=2)
    weights = torch.nn.Parameter(torch.arange(6.0).view(2, 3) / 10)
    all_rows = torch.randn((5, 2), generator=torch.Generator().manual_seed(0))
    own = all_rows[:3] if rank == 0 else all_rows[3:]
    gathered = gather_rows(own @ weights, worker)
    (gathered @ (own @ weights).T).square().sum().backward()  # type: ignore[no-untyped-call]
    average_gradients([weights], worker)
    assert weights.grad is not None
    norm = BatchNorm(2, worker)
    normalised = gather_rows(norm(own), worker)
    losses = {}
    for loss in ("sampled_softmax", "info_nce"):
        job = job_of(loss=loss, **WORKED)
        found, progress = train_two_tower(job, worker)
        losses[loss] = [metrics["loss"] for metrics in progress.history], found.items_ID.tolist()
    out = [weights.grad.tolist(), normalised.tolist(), norm.variance_D.tolist(), losses]
    Path(directory, f"{rank}.json").write_text(json.dumps(out))
    leave()


@pytest.mark.slow
def test_two_workers_are_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(in_a_process, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    weights = torch.nn.Parameter(torch.arange(6.0).view(2, 3) / 10)
    rows = torch.randn((5, 2), generator=torch.Generator().manual_seed(0))
    ((rows @ weights) @ (rows @ weights).T).square().sum().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    np.testing.assert_allclose(2 * np.array(first[0]), weights.grad, rtol=1e-4)
    norm = BatchNorm(2, LocalWorker())
    np.testing.assert_allclose(first[1], norm(rows).detach(), atol=1e-5)
    np.testing.assert_allclose(first[2], norm.variance_D, rtol=1e-5)
    for loss, (losses, items) in first[3].items():
        alone, progress = train_two_tower(job_of(loss=loss, **WORKED), LocalWorker())
        assert losses == pytest.approx([metrics["loss"] for metrics in progress.history], rel=1e-4)
        np.testing.assert_allclose(items, alone.items_ID, atol=1e-3)
