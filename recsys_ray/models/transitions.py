"""Transitions: what followed an item in other histories, weighed by how far behind it came. Nothing is trained.

Sources: Ludewig, Jannach, "Evaluation of Session-Based Recommendation Algorithms" (UMUAI 2018), whose sequential rules
count what came after an item by its distance; Rendle, Freudenthaler, Schmidt-Thieme, "Factorizing Personalized Markov
Chains for Next-Basket Recommendation" (WWW 2010), whose first-order chain they extend. Where we depart: items also
count, less, for what they followed; both items' popularity is damped by a power; and the whole history answers, older
events less. With n_i the events on item i and g >= 1 how many places behind item i item j came in a history:

    T_ij  = sum over such pairs, g <= window, of gap_decay^(g - 1),  plus backward times the same with i and j swapped
    W_ij  = T_ij / (n_i^source_power n_j^target_power)
    score = sum over the events of the history of  history_decay^(known events after it) W_ij

How far back a history tells what comes next differs most between data sets; without a ``history_decay`` it is chosen:
T is counted without the last event of some users, and the decay under which that event ranks best is taken.
Time: 2 * window additions an event. Memory: items * neighbors * 8 bytes and a block of dense rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from recsys_ray.base.kernels import njit, prange
from recsys_ray.base.types import (
    Counts,
    FitContext,
    FloatArray,
    Histories,
    IntArray,
    ItemLists,
    LongArray,
    MemoryEstimate,
    Scorer,
    TrainData,
)
from recsys_ray.models.base import Model, strangers
from recsys_ray.models.holdout import hold_out, lists_quality
from recsys_ray.models.linalg.pooling import EventWeights
from recsys_ray.models.linalg.similarity import BLOCK_BYTES, by_rows, largest_of_rows
from recsys_ray.models.linalg.sparse import read_only, threads_for
from recsys_ray.models.scorers.linear import LinearScorer

DECAYS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Tried where none is given."""
USUAL_DECAY = 0.7
"""Where nobody has three events to choose it on."""
MOST_WATCHED = 5000
"""Users whose last event is held out to choose it."""
ASKED = 256  # of them scored at a time


class Transitions(Model):
    """What followed the items of a history in the histories of others, the last ones first."""

    key: ClassVar[str] = "transitions"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (LinearScorer,)
    ordered: ClassVar[bool] = True

    window: int = Field(default=50, ge=1)
    """Places that two events of a history may be apart to count as a transition."""
    gap_decay: float = Field(default=0.9, gt=0, le=1)
    """A transition one place longer counts this much of it."""
    backward: float = Field(default=0.4, ge=0)
    """What a transition counts from the later item to the earlier, where it counts 1 from the earlier to the later."""
    source_power: float = Field(default=0.3, ge=0)
    """Popular items say less about what follows: transitions from item i are divided by n_i to this power."""
    target_power: float = Field(default=0.2, ge=0)
    """Popular items are held back: transitions to item j are divided by n_j to this power."""
    history_decay: float | None = Field(default=None, gt=0, le=1)
    """An event with k later ones in its history counts this^k; null chooses it on the last events of training
    histories."""
    neighbors: int = Field(default=500, ge=1)
    """Items kept for each item, those that it leads to most."""

    def fit_scorer(self, data: TrainData, context: FitContext) -> LinearScorer:
        """Fit on the training histories, in their order."""
        decay = self._chosen_decay(data, context) if self.history_decay is None else self.history_decay
        return self._scorer(data.histories, data.num_items, decay, context)

    def memory(self, counts: Counts) -> MemoryEstimate:
        entries = min(2 * self.window * counts.num_interactions, counts.num_pairs, counts.num_items * self.neighbors)
        return MemoryEstimate(
            2 * 8 * entries + 40 * counts.num_interactions + 8 * counts.num_items + 3 * BLOCK_BYTES,
            "lower model.neighbors or model.window",
        )

    def _scorer(self, histories: Histories, num_items: int, decay: float, context: FitContext) -> LinearScorer:
        counts_I = np.bincount(histories.items_E, minlength=num_items)
        order_E = np.argsort(histories.items_E, kind="stable")
        events = _Events(
            histories.offsets_B1,
            histories.items_E,
            np.concatenate([[0], np.cumsum(counts_I)]),
            order_E,
            np.repeat(np.arange(len(histories)), histories.lengths_B)[order_E],
            (np.maximum(counts_I, 1) ** -self.source_power).astype(np.float32),
            (np.maximum(counts_I, 1) ** -self.target_power).astype(np.float32),
            self,
        )
        matrix = by_rows(_some_rows, events, num_items, context, "transitions")
        return LinearScorer(weights=matrix, trained_I=counts_I > 0, weighting=EventWeights(decay=decay))

    def _chosen_decay(self, data: TrainData, context: FitContext) -> float:
        share = min(1.0, MOST_WATCHED / max(1, data.num_users))
        left, held_out = hold_out(data.histories, share, context.rng(1), last=True)
        if held_out is None:
            return USUAL_DECAY
        fitted = self._scorer(left, data.num_items, USUAL_DECAY, context)
        found = {decay: _quality(_with_decay(fitted, decay), left, held_out) for decay in DECAYS}
        best = max(DECAYS, key=lambda decay: found[decay])
        context.progress(f"transitions: history_decay {best:g}, NDCG@20 of held-out last events {found[best]:.4f}")
        return best


@dataclass(frozen=True, slots=True)
class _Events:
    """Histories by user and by item, and what a block of rows needs beside; S: events in the order of their items."""

    offsets_U1: LongArray
    items_E: IntArray
    offsets_I1: LongArray
    places_S: LongArray
    """Where in ``items_E`` each is."""
    users_S: LongArray
    source_I: FloatArray
    target_I: FloatArray
    model: Transitions


def _some_rows(block: tuple[int, int], events: _Events) -> tuple[LongArray, IntArray, FloatArray]:
    """Rows start:stop of W as (entries per row, columns, values)."""
    start, stop = block
    model, num_items = events.model, len(events.source_I)
    rows_RI = np.zeros((stop - start, num_items), np.float32)
    spans = read_only(events.offsets_U1, events.items_E, events.offsets_I1, events.places_S, events.users_S)
    with threads_for(float(model.window) * int(events.offsets_I1[stop] - events.offsets_I1[start])):
        _count(*spans, start, model.window, np.float32(model.gap_decay), np.float32(model.backward), rows_RI)
    rows_RI *= events.source_I[start:stop, None]
    rows_RI *= events.target_I
    return largest_of_rows(rows_RI, model.neighbors)


@njit(cache=True, parallel=True)
def _count(  # type: ignore[no-untyped-def]
    offsets_U1, items_E, offsets_I1, places_S, users_S, start, window, decay, backward, out_RI
) -> None:
    for r in prange(out_RI.shape[0]):
        for s in range(offsets_I1[start + r], offsets_I1[start + r + 1]):
            here, user = places_S[s], users_S[s]
            weight = np.float32(1.0)
            for place in range(here + 1, min(here + 1 + window, offsets_U1[user + 1])):
                out_RI[r, items_E[place]] += weight
                weight *= decay
            weight = backward
            for place in range(here - 1, max(here - 1 - window, offsets_U1[user] - 1), -1):
                out_RI[r, items_E[place]] += weight
                weight *= decay


def _with_decay(scorer: LinearScorer, decay: float) -> LinearScorer:
    events = replace(scorer.events, decay=decay)
    return LinearScorer(weights=scorer.weights, trained_I=scorer.scorable_I, weighting=events)


def _quality(scorer: LinearScorer, histories: Histories, held_out: ItemLists) -> float:
    """Mean NDCG@20 of the held-out events."""
    from recsys_ray.retrieval import top_k_scores

    def best(users: LongArray, k: int, exclude: ItemLists) -> IntArray:
        rows = []
        for start in range(0, len(users), ASKED):
            asked = strangers(histories.take(users[start : start + ASKED]))
            rows.append(top_k_scores(scorer.score(asked), k, exclude.slice(start, start + len(asked))).rows_BK)
        return np.concatenate(rows)

    return lists_quality(best, histories, held_out)
