"""Transitions by hand, and what an event of a history counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.types import FitContext, Histories, TrainData
from recsys_ray.models.base import strangers
from recsys_ray.models.linalg.pooling import EventWeights, Recent
from recsys_ray.models.scorers.linear import LinearScorer
from recsys_ray.models.transitions import Transitions
from tests.dense import in_pieces, weights_of

SEQUENCES = [[0, 1, 2], [1, 2], [2, 0, 1, 3], [3, 1]]
COUNTS = np.array([2, 4, 3, 2, 1])  # item 4 is touched by nobody; 1 keeps powers defined


def fitted(context: FitContext | None = None, **settings: object) -> LinearScorer:
    data = TrainData(Histories.from_lists(SEQUENCES), pa.table({"item_id": np.arange(5)}))
    settings = {"history_decay": 0.5, "source_power": 0.0, "target_power": 0.0} | settings
    return Transitions(**settings).fit_scorer(data, context or FitContext())  # type: ignore[arg-type]


def test_forward_counts_by_hand() -> None:
    """With a gap decay of 1/2: 0 -> 1 twice at once, 1 -> 2 twice, 2 -> 0 once, 0 -> 2 once over one place, ..."""
    expected = np.zeros((5, 5))
    expected[0] = [0, 2, 0.5, 0.5, 0]
    expected[1] = [0, 0, 2, 1, 0]
    expected[2] = [1, 0.5, 0, 0.25, 0]
    expected[3] = [0, 1, 0, 0, 0]
    np.testing.assert_allclose(weights_of(fitted(gap_decay=0.5, backward=0.0)), expected)
    both = expected + 0.4 * expected.T
    np.testing.assert_allclose(weights_of(fitted(in_pieces(2), gap_decay=0.5, backward=0.4)), both, rtol=1e-6)
    damped = both * COUNTS[:, None] ** -0.3 * COUNTS**-0.2
    found = fitted(gap_decay=0.5, backward=0.4, source_power=0.3, target_power=0.2)
    np.testing.assert_allclose(weights_of(found), damped, rtol=1e-6)


def test_window_and_neighbors_cut() -> None:
    near = weights_of(fitted(window=1, gap_decay=1.0, backward=0.0))
    assert near[0].tolist() == [0, 2, 0, 0, 0] and near[2].tolist() == [1, 0, 0, 0, 0]
    np.testing.assert_allclose(weights_of(fitted(window=1, gap_decay=1.0, backward=0.5)), near + 0.5 * near.T)
    assert (weights_of(fitted(neighbors=1)) != 0).sum(axis=1).max() == 1


def test_new_users_are_answered_from_their_history_the_last_event_first() -> None:
    scorer = fitted(gap_decay=0.5, backward=0.0)
    weights = weights_of(scorer)
    # Item 4 is unknown: it neither answers nor makes the others older.
    scores = scorer.score(strangers(Histories.from_lists([[0, 3], [3, 0], [0, 3, 4]])))
    np.testing.assert_allclose(np.where(np.isneginf(scores[0]), 0, scores[0]), 0.5 * weights[0] + weights[3])
    np.testing.assert_allclose(np.where(np.isneginf(scores[1]), 0, scores[1]), 0.5 * weights[3] + weights[0])
    np.testing.assert_array_equal(scores[2], scores[0])
    assert scorer.answers(strangers(Histories.from_lists([[4], [0]]))).tolist() == [False, True]


def test_reasons_say_which_step_led_here() -> None:
    """From 3 one goes to 1; from 0, too, twice as often, but it is older. Without 3 it would not be: 1 would gain."""
    scorer = fitted(gap_decay=0.5, backward=0.0, history_decay=0.25)
    items, parts = scorer.contributions(Histories.from_lists([[0, 3]]), np.array([1, 2], np.int32))
    assert items.tolist() == [0, 3]
    np.testing.assert_allclose(parts, [[0.25 * 2, 0.25 * 0.5], [1 - 0.75 * 2, -0.75 * 0.5]])
    items, parts = scorer.contributions(Histories.from_lists([[2, 0]]), np.array([1], np.int32))
    assert items.tolist() == [0, 2] and parts[0] > parts[1] > 0


@pytest.mark.parametrize(("chain", "most", "least"), [(True, 0.5, 0.0), (False, 1.0, 0.7)])
def test_how_fast_a_history_fades_is_chosen(chain: bool, most: float, least: float) -> None:
    """In a chain the last event says all. Where users stay in a group, in any order, all events say the same."""
    rng = np.random.default_rng(0)
    lists = []
    for _ in range(600):
        if chain:
            start = int(rng.integers(40))
            steps = np.cumsum(np.where(rng.random(8) < 0.9, 1, rng.integers(2, 38, 8)))
            lists.append([(start + int(step)) % 40 for step in steps])
        else:
            group = int(rng.integers(10))
            own = rng.permutation(20)[:8] + 20 * group
            noise = rng.random(8) < 0.5
            lists.append(np.where(noise, rng.integers(0, 200, 8), own).tolist())
    data = TrainData(Histories.from_lists(lists), pa.table({"item_id": np.arange(200)}))
    said: list[str] = []
    scorer = Transitions().fit_scorer(data, FitContext(progress=said.append))
    assert least <= scorer.events.decay <= most
    assert f"history_decay {scorer.events.decay:g}" in "".join(said)


def test_event_weights_by_hand() -> None:
    known = np.array([True, True, False, True])
    histories = Histories.from_lists([[0, 2, 1, 0], [3], []], [[1, 1, 2, 3], [4], []])

    def rows(events: EventWeights) -> np.ndarray:
        found = events.rows(histories, known)
        table = np.zeros((3, 4))
        for row in range(3):
            span = slice(int(found.offsets[row]), int(found.offsets[row + 1]))
            table[row, found.columns[span]] = found.values[span]
        return table

    assert rows(EventWeights()).tolist() == [[1, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert rows(EventWeights("rating")).tolist() == [[4, 2, 1, 0], [0, 0, 0, 4], [0, 0, 0, 0]]
    # Ages of the known events of the first: 2, 1, 0.
    assert rows(EventWeights(decay=0.5)).tolist() == [[1.25, 0.5, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert rows(EventWeights("rating", decay=0.5)).tolist() == [[3.25, 1, 0, 0], [0, 0, 0, 4], [0, 0, 0, 0]]
    recent = np.array([1 + 1 / 9, 1 / 4])
    expected = 1 + 0.5 * np.sqrt(2) * recent / np.linalg.norm(recent)
    found = rows(EventWeights(recent=Recent(0.5, 2.0)))
    np.testing.assert_allclose(found, [[*expected, 0, 0], [0, 0, 0, 1.5], [0, 0, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "events", [EventWeights(), EventWeights("rating", decay=0.3), EventWeights(recent=Recent(0.2, 1.5))], ids=str
)
def test_event_weights_are_read_back(events: EventWeights) -> None:
    assert EventWeights.from_json(events.to_json()) == events
