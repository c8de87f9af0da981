"""The losses that LightGCN, NCF and the sequence models train on, from their definitions: a row at a time, in float64.

What a score is, other tests hold; here it is taken from the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from recsys_ray.base.types import Histories
from recsys_ray.models.lightgcn.fit import LightGCN
from recsys_ray.models.lightgcn.network import LightGCNNetwork
from recsys_ray.models.ncf.fit import NCF
from recsys_ray.models.ncf.network import NCFNetwork
from recsys_ray.models.observed_pairs import PairJob
from recsys_ray.models.sequence.network import SequenceJob
from recsys_ray.models.sequence.sasrec import SASRec
from recsys_ray.models.sequence.sasrec_network import SASRecNetwork
from recsys_ray.training import LocalWorker
from tests.models.test_sasrec import SHAPE

ITEMS = 12
ROWS = [[0, 1, 2, 3], [4], [5, 1, 0], [2, 2, 7], []]
COMMON: dict[str, Any] = {"batch_size": 20, "negatives": 9, "temperature": 0.4, "negative_strategy": "mixed"}


def row_loss(name: str, positive: float, negatives: np.ndarray, expected: np.ndarray, settings: Any) -> float:
    """Of one positive against the negatives that count; ``expected`` are the logs of their expected draws."""
    if name in ("softmax", "sampled_softmax"):
        return float(np.log1p(np.exp(negatives - expected * settings.correct_popularity - positive).sum()))
    if name == "bpr":
        return float(np.log1p(np.exp(negatives - positive)).mean())
    power = 1.0
    if name == "gbce":
        rate = settings.negatives / (ITEMS - 1)
        power = rate * (settings.calibration * (1 - 1 / rate) + 1 / rate)
    return float(power * np.log1p(np.exp(-positive)) + np.log1p(np.exp(negatives)).sum())


def draws_of(model: Any, items: torch.Tensor, random: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What the model is about to draw for a batch: items and the logs of how often each was to be expected."""
    again = torch.Generator().set_state(random.get_state())
    sample = model.negatives.draw(again, items)
    return sample.items.numpy(), sample.log_expected.double().numpy()


def own_negatives(model: Any, users: torch.Tensor, items: torch.Tensor, random: torch.Generator) -> np.ndarray:
    again = torch.Generator().set_state(random.get_state())
    return np.asarray(model.pairs.unseen_negatives(model.negatives, users, items, again))


def pair_model(kind: Any, config: Any) -> Any:
    histories = Histories.from_lists(ROWS)
    initial = np.random.default_rng(3).normal(size=(len(ROWS) + ITEMS, config.embedding_dim)).astype(np.float32)
    return kind(PairJob(histories, None, ITEMS, initial, config, seed=1), LocalWorker())


def by_hand(model: Any, batch: Any, scores: np.ndarray, trained: list[np.ndarray]) -> float:
    """The mean over the pairs of a batch, asked before the model computes it. ``scores`` are those of all users and
    items, ``trained`` the regularized (N, D) tables."""
    config = model.config
    users, items, _ = model.pairs.of(batch[0])
    shared = config.loss == "softmax"
    drawn, expected = draws_of(model, items, batch[1])
    own = None if shared else own_negatives(model, users, items, batch[1])
    losses = []
    for place, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
        kept = drawn != item if shared else np.ones(config.negatives, bool)
        candidates = drawn if own is None else own[place]
        negatives = scores[user, candidates[kept]]
        logs = expected[kept] if shared else np.zeros(len(candidates))
        loss = row_loss(config.loss, scores[user, item], negatives, logs, config)
        nodes = [user, len(ROWS) + item, *(len(ROWS) + candidates if own is not None else [])]
        penalty = sum(float((table[node] ** 2).sum()) for table in trained for node in nodes)
        losses.append(loss + config.regularization / 2 * penalty)
    return float(np.mean(losses))


@pytest.mark.parametrize(
    "settings",
    [
        {"similarity": "cosine"},
        {"similarity": "cosine", "correct_popularity": True},
        {"similarity": "inner", "correct_popularity": True},
        {"similarity": "inner", "loss": "bpr"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_lightgcn(settings: dict[str, Any]) -> None:
    model = pair_model(LightGCNNetwork, LightGCN(embedding_dim=4, regularization=0.3, **COMMON | settings))
    (batch,) = model.batches(0)
    trained = model.embeddings_ND.detach().double().numpy()
    users, items = np.split(model.propagation(model.embeddings_ND).detach().double().numpy(), [len(ROWS)])
    if settings["similarity"] == "cosine":
        lengths = [np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) for vectors in (users, items)]
        users, items = users / lengths[0], items / lengths[1]
    scores = users @ items.T / (1 if settings.get("loss") == "bpr" else model.config.temperature)
    expected = by_hand(model, batch, scores, [trained])
    assert model.loss(batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
@pytest.mark.parametrize(
    "settings",
    [{"loss": "softmax"}, {"loss": "softmax", "correct_popularity": True}, {"loss": "bce"}, {"loss": "bpr"}],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_ncf(settings: dict[str, Any], similarity: str) -> None:
    config = NCF(
        embedding_dim=4,
        mlp_dim=3,
        hidden_layers=[5],
        regularization=0.3,
        **COMMON | settings | {"similarity": similarity},
    )
    model = pair_model(NCFNetwork, config)
    (batch,) = model.batches(0)
    tables = [table.detach().double().numpy() for table in (model.factors_ND, model.inner_NF)]
    with torch.no_grad():
        final = model.final()
        users, items = model.user_rows(final, torch.arange(len(ROWS))), model.item_rows(final, torch.arange(ITEMS))
        scores = model.scores(users[:, None], items).double().numpy()
    expected = by_hand(model, batch, scores, tables)
    assert model.loss(batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "sampled_softmax", "correct_popularity": False},
        {"loss": "sampled_softmax", "correct_popularity": True},
        {"loss": "bce"},
        {"loss": "gbce", "calibration": 0.6},
        {"loss": "cross_entropy"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_sequence_models(settings: dict[str, Any], similarity: Any) -> None:
    """Users with one event or none teach nothing; every position but the last predicts the item after it."""
    config = SASRec(similarity=similarity, max_length=SHAPE.max_length, **COMMON | settings)
    model = SASRecNetwork(SequenceJob(Histories.from_lists(ROWS), None, ITEMS, SHAPE, config, 1), LocalWorker()).eval()
    (batch,) = model.batches(0)
    vectors = model.encoder.embedding.weight.detach().double().numpy()[:ITEMS]
    states, targets = [], []
    for row in sorted(batch[1].tolist()):
        events = [item for item in row if item != model.encoder.padding]
        whole = next(history for history in ROWS if history[:-1] == events)
        with torch.no_grad():
            states.extend(model.encoder(torch.tensor([events])).double().numpy())
        targets.extend(whole[1:])
    assert len(targets) == 7
    drawn, logs = draws_of(model, torch.from_numpy(batch[2][batch[2] != model.encoder.padding]), batch[3])
    losses = []
    for state, target in zip(states, targets, strict=True):
        scores = vectors @ state
        if similarity == "cosine":
            scores /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(state) * config.temperature
        if config.loss == "cross_entropy":
            losses.append(np.log(np.exp(scores).sum()) - scores[target])
            continue
        kept = drawn != target
        losses.append(row_loss(config.loss, scores[target], scores[drawn[kept]], logs[kept], config))
    assert model.loss(batch).item() == pytest.approx(np.mean(losses), rel=1e-5)
