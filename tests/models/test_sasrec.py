"""SASRec: causality, padding, histories of any length, and a world in which the next item is known."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models.sequence.padding import newest
from recsys_ray.models.sequence.sasrec import SASRec
from recsys_ray.models.sequence.scorer import SequenceScorer
from recsys_ray.models.sequence.transformer import SequenceEncoder, TransformerShape

ITEMS = 12
PADDING = ITEMS
SHAPE = TransformerShape(
    num_embeddings=ITEMS + 1,
    embedding_dim=8,
    hidden_dim=16,
    blocks=2,
    heads=2,
    max_length=6,
    dropout=0.3,
    causal=True,
    activation="gelu",
)


def circle(users: int = 60, length: int = 7) -> TrainData:
    """Everybody goes round the items in order, from somewhere; one more item that nobody has touched."""
    starts = np.random.default_rng(0).integers(0, ITEMS, users)
    rows = [[int(start + step) % ITEMS for step in range(length)] for start in starts]
    return TrainData(Histories.from_lists(rows), pa.table({"item_id": pa.array(range(ITEMS + 1))}))


def ask(*histories: list[int]) -> Requests:
    users = np.full(len(histories), -1, np.int32)
    ids = pa.array(range(len(histories)))
    return Requests(ids, users, Histories.from_lists(histories), ItemLists.empty(len(histories)))


def random_encoder(shape: TransformerShape) -> SequenceEncoder:
    torch.manual_seed(0)
    network = SequenceEncoder(shape).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


@pytest.fixture(scope="module")
def encoder() -> SequenceEncoder:
    return random_encoder(SHAPE)


@pytest.fixture(scope="module")
def scorer() -> SequenceScorer:
    config = SASRec(embedding_dim=16, epochs=25, batch_size=30, learning_rate=0.02, max_length=5, dropout=0.1)
    return config.fit_scorer(circle(), FitContext(seed=3))


def test_a_later_item_changes_nothing_earlier(encoder: SequenceEncoder) -> None:
    first, second = torch.tensor([[3, 1, 4, 2, 5, 9]]), torch.tensor([[3, 1, 4, 2, 0, 7]])
    before, after = encoder(first), encoder(second)
    assert torch.equal(before[:4], after[:4])
    assert not torch.allclose(before[4:], after[4:], atol=1e-3)


def test_an_earlier_item_does_change_what_is_later(encoder: SequenceEncoder) -> None:
    before, after = encoder(torch.tensor([[3, 1, 4]])), encoder(torch.tensor([[8, 1, 4]]))
    assert not torch.allclose(before[2], after[2], atol=1e-3)


def test_both_directions_see_everything() -> None:
    torch.manual_seed(0)
    both = SequenceEncoder(
        TransformerShape(**{name: getattr(SHAPE, name) for name in SHAPE.__slots__} | {"causal": False})
    ).eval()
    torch.nn.init.normal_(both.embedding.weight)
    before, after = both(torch.tensor([[3, 1, 4]])), both(torch.tensor([[3, 1, 8]]))
    assert not torch.allclose(before[0], after[0], atol=1e-4)


def test_padding_changes_nothing(encoder: SequenceEncoder) -> None:
    alone = encoder(torch.tensor([[2, 7]]))
    padded = encoder(torch.tensor([[PADDING, PADDING, PADDING, 2, 7], [1, 2, 3, 4, 5]]))
    torch.testing.assert_close(padded[:2], alone, atol=1e-5, rtol=1e-5)


def test_newest_events_fill_from_the_right() -> None:
    histories = Histories.from_lists([[1, 2, 3, 4], [5], [], [6, 7]])
    rows = np.array([3, 0, 2])
    assert newest(histories, rows, 3, PADDING).tolist() == [[PADDING, 6, 7], [2, 3, 4], [PADDING] * 3]
    assert newest(histories, np.array([1]), 3, PADDING).tolist() == [[5]]
    assert newest(histories, np.array([2]), 3, PADDING).tolist() == [[PADDING]]


@pytest.mark.slow
def test_the_next_item_is_found(scorer: SequenceScorer) -> None:
    histories = [[(start + step) % ITEMS for step in range(4)] for start in range(ITEMS)]
    best = scorer.score(ask(*histories))[:, :ITEMS].argmax(axis=1)
    assert best.tolist() == [(start + 4) % ITEMS for start in range(ITEMS)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "cross_entropy"},
        {"loss": "gbce", "negatives": 6},
        {"loss": "bce", "negatives": 2},
        {"loss": "sampled_softmax", "negatives": 8, "negative_strategy": "mixed"},
        {"loss": "cross_entropy", "similarity": "cosine"},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
def test_every_loss_learns_it(settings: dict[str, Any]) -> None:
    config = SASRec(
        embedding_dim=16, epochs=60, batch_size=30, learning_rate=0.02, max_length=5, dropout=0.0, **settings
    )
    fitted = config.fit_scorer(circle(), FitContext())
    histories = [[(start + step) % ITEMS for step in range(4)] for start in range(ITEMS)]
    best = fitted.score(ask(*histories))[:, :ITEMS].argmax(axis=1)
    assert (best == (np.arange(ITEMS) + 4) % ITEMS).mean() > 0.8


def test_batch_is_one_by_one_at_any_length(scorer: SequenceScorer) -> None:
    rng = np.random.default_rng(1)
    histories = [rng.integers(0, ITEMS, length).tolist() for length in (1, 2, 300, 5, 3, 6, 40, 1)]
    whole = scorer.score(ask(*histories))
    single = np.concatenate([scorer.score(ask(history)) for history in histories])
    np.testing.assert_allclose(whole, single, atol=1e-5)


def test_only_the_newest_of_a_long_history_count(scorer: SequenceScorer) -> None:
    long, short = list(range(ITEMS)) * 5, (list(range(ITEMS)) * 5)[-5:]
    np.testing.assert_allclose(*scorer.score(ask(long, short)), atol=1e-5)


def test_unknown_items_are_passed_over(scorer: SequenceScorer) -> None:
    scores = scorer.score(ask([3, ITEMS, 4, ITEMS], [3, 4], [ITEMS], []))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    assert (scores[2:] == 0).all()
    assert scorer.answers(ask([3, ITEMS, 4, ITEMS], [3, 4], [ITEMS], [])).tolist() == [True, True, False, False]
    assert not scorer.scorable_I[ITEMS]


def test_heads_must_divide_the_dimension() -> None:
    with pytest.raises(ValueError, match=r"heads: 3 must divide embedding_dim 64"):
        SASRec(heads=3)


@pytest.mark.slow
def test_torch_is_loaded_when_it_is_needed() -> None:
    """Workers that rank finished scores stay small."""
    code = "import sys, recsys_ray.models.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
