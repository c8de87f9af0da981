"""BERT4Rec: what is masked, who sees what, histories of any length, and a world in which the next item is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recsys_ray.base.types import FitContext, Histories
from recsys_ray.models.sequence.bert4rec import BERT4Rec
from recsys_ray.models.sequence.bert4rec_network import BERT4RecNetwork, masked_places
from recsys_ray.models.sequence.network import SequenceJob, encode
from recsys_ray.models.sequence.scorer import SequenceScorer
from recsys_ray.models.sequence.transformer import SequenceEncoder, TransformerShape
from recsys_ray.training.worker import LocalWorker
from tests.models.test_sasrec import ITEMS, SHAPE, ask, circle, random_encoder

BOTH = replace(SHAPE, num_embeddings=ITEMS + 2, causal=False)
MASK, PADDING = ITEMS, ITEMS + 1
FAST: dict[str, Any] = {
    "embedding_dim": 16,
    "blocks": 1,
    "batch_size": 60,
    "learning_rate": 0.02,
    "max_length": 6,
    "dropout": 0.0,
    "mask_probability": 0.3,
}


def model_of(
    rows: list[list[int]], shape: TransformerShape = BOTH, worker: Any = None, **settings: Any
) -> BERT4RecNetwork:
    config = BERT4Rec(**{"max_length": shape.max_length, "batch_size": 2} | settings)
    return BERT4RecNetwork(
        SequenceJob(Histories.from_lists(rows), None, ITEMS, shape, config, 1), worker or LocalWorker()
    )


@pytest.fixture(scope="module")
def encoder() -> SequenceEncoder:
    return random_encoder(BOTH)


@pytest.fixture(scope="module")
def scorer() -> SequenceScorer:
    return BERT4Rec(epochs=150, **FAST).fit_scorer(circle(), FitContext(seed=3))


# --- what is masked ---


def test_masking_worked_by_hand() -> None:
    real = np.array([[False, True, True], [True, True, True], [False, False, True], [True, True, True]])
    draws = np.array(
        [[0.9, 0.0, 0.3, 0.5], [0.9, 0.1, 0.3, 0.2], [0.9, 0.0, 0.0, 0.8], [0.1, 0.0, 0.0, 0.9]], np.float32
    )
    masked = masked_places(real, draws, probability=0.25, last_share=0.2)
    assert masked.tolist() == [
        [False, True, False],  # nothing below .25 but padding: the lowest real draw
        [True, False, True],
        [False, False, True],
        [False, False, True],  # the last alone, whatever is drawn for the others
    ]


def test_masks_are_as_frequent_as_asked() -> None:
    draws = np.random.default_rng(0).random((4000, 21), np.float32)
    masked = masked_places(np.ones((4000, 20), np.bool_), draws, probability=0.3, last_share=0.25)
    last_alone = masked[:, -1] & (masked.sum(axis=1) == 1)
    assert last_alone.mean() == pytest.approx(0.25, abs=0.03)
    assert masked[~last_alone].mean() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("probability", [0.01, 0.5, 1.0])
def test_padding_is_never_masked_and_something_always_is(probability: float) -> None:
    rows = [[1, 2], [3, 4, 5], list(range(ITEMS)), [6, 7]]
    model = model_of(rows, mask_probability=probability, batch_size=4)
    for epoch in range(20):
        _, inputs, targets, *_ = next(model.batches(epoch))
        masked = inputs == MASK
        assert inputs.shape == (4, BOTH.max_length) and masked.any(axis=1).all()
        assert ((targets != PADDING) == masked).all() and (targets != MASK).all()
        whole = np.where(masked, targets, inputs)
        expected = {tuple([PADDING] * (6 - len(row[-6:])) + row[-6:]) for row in rows}
        assert {tuple(row) for row in whole.tolist()} == expected


def test_workers_mask_what_one_would() -> None:
    rows = [[user, user + 1, user + 2, user + 3] for user in range(8)]
    alone = next(model_of(rows, batch_size=8).batches(0))[1]
    shares = [
        next(model_of(rows, worker=LocalWorker(rank=rank, world_size=2), batch_size=8).batches(0))[1] for rank in (0, 1)
    ]
    assert np.stack(shares, axis=1).reshape(8, -1).tolist() == alone.tolist()


# --- who sees what ---


def test_a_mask_sees_both_sides(encoder: SequenceEncoder) -> None:
    before, earlier, later = (encoder(torch.tensor([row]))[1] for row in ([3, MASK, 4], [8, MASK, 4], [3, MASK, 9]))
    assert not torch.allclose(before, earlier, atol=1e-3)
    assert not torch.allclose(before, later, atol=1e-3)


def test_padding_changes_nothing(encoder: SequenceEncoder) -> None:
    alone = encoder(torch.tensor([[2, 7, MASK]]))
    padded = encoder(torch.tensor([[PADDING, PADDING, 2, 7, MASK], [1, 2, 3, 4, 5]]))
    torch.testing.assert_close(padded[:3], alone, atol=1e-5, rtol=1e-5)


def test_the_question_is_a_mask_behind_the_newest_events(encoder: SequenceEncoder) -> None:
    histories = Histories.from_lists([[1, 2], list(range(ITEMS))])
    asked = encode(encoder, histories, np.arange(2))
    with torch.inference_mode():
        short = encoder(torch.tensor([[1, 2, MASK]]))[-1]
        long = encoder(torch.tensor([[*range(ITEMS - 5, ITEMS), MASK]]))[-1]  # five events and the mask fill six places
    np.testing.assert_allclose(asked, torch.stack([short, long]).numpy(), atol=1e-5)


# --- what it learns ---


@pytest.mark.slow
def test_it_learns_one_batch_by_heart() -> None:
    model = model_of([[3, 1, 4, 2], [5, 9, 2]], replace(BOTH, dropout=0.0))
    batch = next(model.batches(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    first = float(model.loss(batch).detach())
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(batch)
        loss.backward()
        optimizer.step()
    assert first > 1.0 and float(loss.detach()) < 0.05


@pytest.mark.slow
def test_the_next_item_is_found(scorer: SequenceScorer) -> None:
    histories = [[(start + step) % ITEMS for step in range(4)] for start in range(ITEMS)]
    best = scorer.score(ask(*histories))[:, :ITEMS].argmax(axis=1)
    assert best.tolist() == [(start + 4) % ITEMS for start in range(ITEMS)]


def test_batch_is_one_by_one_at_any_length(scorer: SequenceScorer) -> None:
    rng = np.random.default_rng(1)
    histories = [rng.integers(0, ITEMS, length).tolist() for length in (1, 2, 300, 5, 3, 6, 40, 1)]
    whole = scorer.score(ask(*histories))
    single = np.concatenate([scorer.score(ask(history)) for history in histories])
    np.testing.assert_allclose(whole, single, atol=1e-5)


def test_saved_and_loaded_it_says_the_same(scorer: SequenceScorer) -> None:
    again = SequenceScorer.from_state(scorer.state())
    questions = ask([1, 2, 3], list(range(ITEMS)), [ITEMS], [])
    np.testing.assert_array_equal(again.score(questions), scorer.score(questions))
    assert again.shape["causal"] is False
