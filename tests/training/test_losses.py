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
from recsys_ray.training import LocalWorker, losses
from tests.models.test_sasrec import SHAPE

ITEMS = 12
ROWS = [[0, 1, 2, 3], [4], [5, 1, 0], [2, 2, 7], []]
COMMON: dict[str, Any] = {"batch_size": 20, "negatives": 9, "temperature": 0.4, "negative_strategy": "mixed"}


def row_loss(
    name: str,
    positive: float,
    negatives: np.ndarray,
    expected: np.ndarray,
    settings: Any,
    mates: list[float] | None = None,
    num_items: int = ITEMS,
) -> float:
    """Of one positive against the negatives that count; ``expected`` are the logs of their expected draws, ``mates``
    the positives of the same user, this one among them."""
    corrected = negatives - expected * settings.correct_popularity
    if name in ("softmax", "sampled_softmax"):
        return float(np.log1p(np.exp(corrected - positive).sum()))
    if name == "bilateral_softmax":
        ratio = settings.bilateral_ratio
        assert mates is not None and positive in mates
        return float(ratio * np.log(np.exp(corrected).sum()) - np.log(np.exp(ratio * np.array(mates)).mean()))
    if name == "softmax_at_k":
        drawn = COMMON["negatives"] if num_items == ITEMS else len(negatives)
        place = min(drawn, max(1, round(settings.top_k * drawn / num_items)))
        border = sorted(corrected, reverse=True)[place - 1]
        weight = 1 / (1 + np.exp(-(positive - border) / settings.top_k_temperature))
        return float(weight * np.log1p(np.exp(corrected - positive).sum()))
    if name == "bpr":
        return float(np.log1p(np.exp(negatives - positive)).mean())
    power = 1.0
    if name == "gbce":
        rate = settings.negatives / (ITEMS - 1)
        power = rate * (settings.calibration * (1 - 1 / rate) + 1 / rate)
    return float(power * np.log1p(np.exp(-positive)) + np.log1p(np.exp(negatives)).sum())


def whole_batch(queries: torch.Tensor, items: torch.Tensor, weight: float) -> float:
    """Alignment and uniformity, a pair at a time."""
    sides = [
        side.double().numpy() / np.linalg.norm(side.double().numpy(), axis=1)[:, None] for side in (queries, items)
    ]
    near = [
        np.log(np.mean([np.exp(-2 * ((x - y) ** 2).sum()) for i, x in enumerate(side) for y in np.delete(side, i, 0)]))
        for side in sides
    ]
    return float(((sides[0] - sides[1]) ** 2).sum(axis=1).mean() + weight * sum(near) / 2)


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
    shared = config.loss not in ("bpr", "bce")
    drawn, expected = draws_of(model, items, batch[1])
    own = None if shared else own_negatives(model, users, items, batch[1])
    found = []
    for place, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
        kept = drawn != item if shared else np.ones(config.negatives, bool)
        candidates = drawn if own is None else own[place]
        negatives = scores[user, candidates[kept]]
        logs = expected[kept] if shared else np.zeros(len(candidates))
        mates = [scores[user, other] for other in items[users == user].tolist()]
        loss = row_loss(config.loss, scores[user, item], negatives, logs, config, mates)
        nodes = [user, len(ROWS) + item, *(len(ROWS) + candidates if own is not None else [])]
        penalty = sum(float((table[node] ** 2).sum()) for table in trained for node in nodes)
        found.append(loss + config.regularization / 2 * penalty)
    return float(np.mean(found))


@pytest.mark.parametrize(
    "settings",
    [
        {"similarity": "cosine"},
        {"similarity": "cosine", "correct_popularity": True},
        {"similarity": "inner", "correct_popularity": True},
        {"similarity": "inner", "loss": "bpr"},
        {"similarity": "cosine", "loss": "bilateral_softmax", "bilateral_ratio": 0.6},
        {"similarity": "cosine", "loss": "softmax_at_k", "top_k": 3, "correct_popularity": True},
        {"similarity": "cosine", "loss": "softmax_at_k", "top_k": 3, "propagate": "end"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_lightgcn(settings: dict[str, Any]) -> None:
    model = pair_model(LightGCNNetwork, LightGCN(embedding_dim=4, regularization=0.3, **COMMON | settings))
    (batch,) = model.batches(0)
    trained = model.embeddings_ND.detach().double().numpy()
    compared = model.embeddings_ND if model.config.propagate == "end" else model.propagation(model.embeddings_ND)
    users, items = np.split(compared.detach().double().numpy(), [len(ROWS)])
    if settings["similarity"] == "cosine":
        lengths = [np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) for vectors in (users, items)]
        users, items = users / lengths[0], items / lengths[1]
    scores = users @ items.T / (1 if settings.get("loss") == "bpr" else model.config.temperature)
    expected = by_hand(model, batch, scores, [trained])
    assert model.loss(batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "softmax"},
        {"loss": "softmax", "correct_popularity": True},
        {"loss": "bilateral_softmax", "bilateral_ratio": 1.4},
        {"loss": "softmax_at_k", "top_k": 2, "top_k_temperature": 0.3},
        {"loss": "bce"},
        {"loss": "bpr"},
    ],
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
        {"loss": "bilateral_softmax", "bilateral_ratio": 0.6, "correct_popularity": True},
        {"loss": "softmax_at_k", "top_k": 3},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_sequence_models(settings: dict[str, Any], similarity: Any) -> None:
    """Users with one event or none teach nothing; every position but the last predicts the item after it."""
    config = SASRec(similarity=similarity, max_length=SHAPE.max_length, **COMMON | settings)
    model = SASRecNetwork(SequenceJob(Histories.from_lists(ROWS), None, ITEMS, SHAPE, config, 1), LocalWorker()).eval()
    (batch,) = model.batches(0)
    vectors = model.encoder.embedding.weight.detach().double().numpy()[:ITEMS]
    states, targets, owners = [], [], []
    for row in sorted(batch[1].tolist()):
        events = [item for item in row if item != model.encoder.padding]
        whole = next(history for history in ROWS if history[:-1] == events)
        with torch.no_grad():
            states.extend(model.encoder(torch.tensor([events])).double().numpy())
        targets.extend(whole[1:])
        owners.extend([row] * len(events))
    assert len(targets) == 7
    drawn, logs = draws_of(model, torch.from_numpy(batch[2][batch[2] != model.encoder.padding]), batch[3])
    found = []
    scores_of = [vectors @ state for state in states]
    if similarity == "cosine":
        lengths = np.linalg.norm(vectors, axis=1) * config.temperature
        scores_of = [row / (lengths * np.linalg.norm(state)) for row, state in zip(scores_of, states, strict=True)]
    for place, (scores, target) in enumerate(zip(scores_of, targets, strict=True)):
        mates = [scores_of[other][targets[other]] for other in range(7) if owners[other] == owners[place]]
        if config.loss == "cross_entropy":
            found.append(np.log(np.exp(scores).sum()) - scores[target])
            continue
        kept = drawn != target
        found.append(row_loss(config.loss, scores[target], scores[drawn[kept]], logs[kept], config, mates))
    assert model.loss(batch).item() == pytest.approx(np.mean(found), rel=1e-5)


def test_direct_au_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    queries, items = (torch.tensor(rng.normal(size=(5, 3)), dtype=torch.float32) for _ in range(2))
    found = losses.direct_au(queries, items, 0.7)
    assert float(found) == pytest.approx(whole_batch(queries, items, 0.7), rel=1e-5)


@pytest.mark.parametrize("model", ["lightgcn", "sasrec"])
def test_direct_au_compares_the_vectors_that_are_ranked(model: str) -> None:
    if model == "lightgcn":
        network = pair_model(LightGCNNetwork, LightGCN(embedding_dim=4, loss="direct_au", batch_size=20))
        (batch,) = network.batches(0)
        users, items, _ = network.pairs.of(batch[0])
        final = network.propagation(network.embeddings_ND).detach()
        pairs = final[users], final[len(ROWS) + items]
    else:
        config = SASRec(loss="direct_au", similarity="cosine", max_length=SHAPE.max_length, batch_size=20)
        job = SequenceJob(Histories.from_lists(ROWS), None, ITEMS, SHAPE, config, 1)
        network = SASRecNetwork(job, LocalWorker()).eval()
        (batch,) = network.batches(0)
        inputs, targets = torch.from_numpy(batch[1]), torch.from_numpy(batch[2])
        with torch.no_grad():
            states = network.encoder(inputs)
        pairs = states, network.encoder.embedding.weight.detach()[targets[inputs != ITEMS]]
    assert network.loss(batch).item() == pytest.approx(whole_batch(*pairs, 1.0), rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 4 * ITEMS * 3, 1 << 20])
def test_the_softmax_in_chunks_is_the_plain_one(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Loss and both gradients, whatever the number of rows at once."""
    monkeypatch.setattr(losses, "CHUNK_BYTES", chunk)
    rng = torch.Generator().manual_seed(0)
    states, items = (torch.randn((size, 5), generator=rng).requires_grad_() for size in (7, ITEMS))
    targets = torch.randint(ITEMS, (7,), generator=rng)
    plain = 3 * torch.nn.functional.cross_entropy(states @ items.T, targets)
    expected = torch.autograd.grad(plain, (states, items))
    chunked = 3 * losses.softmax_over_all(states, items, targets)
    torch.testing.assert_close(chunked, plain)
    torch.testing.assert_close(torch.autograd.grad(chunked, (states, items)), expected)
    with torch.no_grad():
        torch.testing.assert_close(3 * losses.softmax_over_all(states, items, targets), plain)


def test_a_large_score_is_no_overflow() -> None:
    """Of the softmax over a user's positives, too."""
    positive, negative = torch.tensor([900.0, -900.0, 3.0]), torch.tensor([[880.0], [-950.0], [0.0]])
    found = losses.bilateral_softmax(positive, negative, 1.0, torch.tensor([2, 2, 5]))
    assert float(found) == pytest.approx(((880 - 950) - 2 * (900 - np.log(2)) + (0 - 3)) / 3, rel=1e-6)
