"""A scorer that filters a history over the item graph when it is asked: no item-item matrix is ever made.

J are the signals that are filtered at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from recsys_ray.base.types import BoolArray, DoubleArray, FloatArray, Histories, IntArray, Requests, ScorerState
from recsys_ray.models.linalg.graph import WIDTH, Graph
from recsys_ray.models.linalg.pooling import EventWeights
from recsys_ray.models.linalg.sparse import add_dense_rows
from recsys_ray.models.scorers.base import KnowingScorer, comparable


class GraphFilterScorer(KnowingScorer):
    """``history x D^-p F D^p``, the filter ``F = sum of c_k T_k(2 R'R - 1) + V V'`` being symmetric, never made.

    D are the items' degrees and R the normalised interactions with the largest singular value 1.

    Args:
        users_items: R. items_users: R'. coefficients: c_0 .. c_K of the Chebyshev polynomials T_k. vectors_ID: V, the
        low-pass term with its weight; no columns without one. scales_I: D^p. trained_I: items with training
        interactions. events: what an event of a history counts.
    """

    kind: ClassVar[str] = "graph_filter"

    def __init__(
        self,
        *,
        users_items: Graph,
        items_users: Graph,
        coefficients: Sequence[float],
        vectors_ID: FloatArray,
        scales_I: FloatArray,
        trained_I: BoolArray,
        events: EventWeights,
    ) -> None:
        self.users_items, self.items_users = users_items, items_users
        self.coefficients = tuple(float(value) for value in coefficients)
        self.vectors_ID = vectors_ID
        self.scales_I = scales_I
        self.scorable_I = trained_I
        self.events = events

    def filtered(self, signals_IJ: FloatArray) -> FloatArray:
        """(I, J) ``F @ signals``; a column is filtered alike whatever the others are."""
        num_signals = signals_IJ.shape[1]
        out_IJ = np.empty(signals_IJ.shape, np.float32)
        for start in range(0, num_signals, WIDTH):
            # Always as many columns: fewer would be added up by another loop, in another order.
            some_IJ = np.zeros((len(signals_IJ), WIDTH), np.float32)
            stop = min(start + WIDTH, num_signals)
            some_IJ[:, : stop - start] = signals_IJ[:, start:stop]
            found_IJ = clenshaw(self.users_items, self.items_users, self.coefficients, some_IJ)
            if self.vectors_ID.shape[1]:
                found_IJ += self.vectors_ID @ (self.vectors_ID.T @ some_IJ)
            out_IJ[:, start:stop] = found_IJ[:, : stop - start]
        return out_IJ

    def score(self, requests: Requests) -> FloatArray:
        return self._score(requests.histories, self.events)

    def _score(self, histories: Histories, events: EventWeights) -> FloatArray:
        scores_BI = np.empty((len(histories), self.num_items), np.float32)
        for start in range(0, len(histories), WIDTH):
            stop = min(start + WIDTH, len(histories))
            signals_IJ = self.signals(histories.slice(start, stop), events)
            scores_BI[start:stop] = (self.filtered(signals_IJ) * self.scales_I[:, None]).T
        return scores_BI

    def signals(self, histories: Histories, events: EventWeights) -> FloatArray:
        """(I, J) what is filtered of J histories: ``D^-p`` times what their events count."""
        rows = events.rows(histories, self.scorable_I)
        signals_IJ = np.zeros((self.num_items, len(histories)), np.float32)
        columns_E = np.repeat(np.arange(len(histories)), np.diff(rows.offsets))
        signals_IJ[rows.columns, columns_E] = rows.values / self.scales_I[rows.columns]
        return signals_IJ

    def weights(self, items_R: IntArray) -> FloatArray:
        """(R, I) rows of the matrix ``D^-p F D^p``: what one plain event on each of these items adds to all scores."""
        return self._score(Histories.from_lists([[int(item)] for item in items_R]), EventWeights())

    def similar(self, items_R: IntArray) -> FloatArray:
        return comparable(self.weights(items_R), items_R, self.scorable_I)

    def apply_to(self, map_IJ: FloatArray) -> FloatArray:
        """(I, J) ``D^-p F D^p @ map``: what one event adds to the image of the scores."""
        return self.filtered(map_IJ * self.scales_I[:, None]) / self.scales_I[:, None]

    def add_up(self, histories: Histories, rows_IJ: FloatArray) -> FloatArray:
        """(B, J) the sum over a history of the rows of its items, each event counting as it does in the scores."""
        sums_BJ = np.zeros((len(histories), rows_IJ.shape[1]), np.float32)
        add_dense_rows(self.events.rows(histories, self.scorable_I), rows_IJ, sums_BJ)
        return sums_BJ

    def losses(self, history: Histories, rows_IJ: FloatArray) -> tuple[IntArray, DoubleArray]:
        """(H,) distinct items of one history, and (H, J) how much lower ``add_up`` would be without each."""
        return self.events.losses(history, self.scorable_I, lambda items_H: rows_IJ[items_H].astype(np.float64))

    def contributions(self, history: Histories, rows_K: IntArray) -> tuple[IntArray, DoubleArray]:
        """By columns of the filter, which are its rows."""
        signals_IJ = np.zeros((self.num_items, len(rows_K)), np.float32)
        signals_IJ[rows_K, np.arange(len(rows_K))] = self.scales_I[rows_K]
        columns_IJ = self.filtered(signals_IJ) / self.scales_I[:, None]
        return self.losses(history, columns_IJ)

    def state(self) -> ScorerState:
        arrays = {"vectors": self.vectors_ID, "scales": self.scales_I, "trained": self.scorable_I}
        for name, graph in (("users", self.users_items), ("items", self.items_users)):
            arrays |= {f"{name}_offsets": graph.offsets_N1, f"{name}_columns": graph.neighbors_E}
            arrays[f"{name}_values"] = graph.values_E
        return ScorerState(arrays, {"coefficients": list(self.coefficients), "events": self.events.to_json()})

    @classmethod
    def from_state(cls, state: ScorerState) -> GraphFilterScorer:
        arrays = state.arrays
        graphs = [
            Graph(arrays[f"{name}_offsets"], arrays[f"{name}_columns"], arrays[f"{name}_values"])
            for name in ("users", "items")
        ]
        return cls(
            users_items=graphs[0],
            items_users=graphs[1],
            coefficients=state.settings["coefficients"],
            vectors_ID=arrays["vectors"],
            scales_I=arrays["scales"],
            trained_I=arrays["trained"],
            events=EventWeights.from_json(state.settings["events"]),
        )


def clenshaw(
    users_items: Graph, items_users: Graph, coefficients: Sequence[float], signals_IJ: FloatArray
) -> FloatArray:
    """(I, J) ``sum of c_k T_k(2 R'R - 1) @ signals`` by the recurrence of Clenshaw: a product with R and one with R' a
    degree, and no T_k kept.

    Source: Clenshaw, "A Note on the Summation of Chebyshev Series" (Mathematics of Computation 1955).
    """
    first, *others = coefficients
    if not others:
        return signals_IJ * np.float32(first)
    # From the highest degree down, b_k = c_k x + 2 (2 R'R - 1) b_(k+1) - b_(k+2); at degree 0 the 2 in front is a 1.
    last_IJ, before_IJ = signals_IJ * np.float32(others[-1]), np.zeros_like(signals_IJ)
    for degree in range(len(others) - 1, -1, -1):
        twice = np.float32(2.0 if degree else 1.0)
        added_IJ = np.float32(coefficients[degree]) * signals_IJ - twice * last_IJ - before_IJ
        turned_IJ = items_users.times(users_items.times(last_IJ), 2.0 * float(twice), added_IJ, 1.0)
        last_IJ, before_IJ = turned_IJ, last_IJ
    return last_IJ
