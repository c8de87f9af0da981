"""``query . item + bias`` where a query is part the user's own, part what the items of the history add to it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from recsys_ray.base.types import DoubleArray, FloatArray, Histories, IntArray, ScorerState
from recsys_ray.models.base import history_rows
from recsys_ray.models.linalg.least_squares import solve_rows
from recsys_ray.models.linalg.sparse import add_dense_rows
from recsys_ray.models.scorers.factor import FactorScorer


class ImplicitFactorScorer(FactorScorer):
    """A ``FactorScorer`` whose stored queries hold the sum over the history already; a new user's is added here.

    Args:
        implicit_ID: what an item of a history adds to the query, times (items of the history)^-1/2; it has one
        dimension less than the items, whose last one faces the user's bias. The others: as for ``FactorScorer``.
    """

    kind: ClassVar[str] = "implicit_factor"

    def __init__(self, *, implicit_ID: FloatArray, **factors: Any) -> None:
        super().__init__(**factors)
        assert implicit_ID.shape[1] == self.items_ID.shape[1] - 1
        self.implicit_ID = implicit_ID

    def solve(self, histories: Histories) -> FloatArray:
        """(B, D) the sum over the history, and what is left to explain of its ratings by ridge regression."""
        sums_BD = np.zeros((len(histories), self.items_ID.shape[1]), np.float32)
        sums_BD[:, :-1] = implicit_sums(histories, self.implicit_ID)
        offsets_B1, items_E, weights_E, targets_E = self._problems(histories)
        rows_E = np.repeat(np.arange(len(histories)), np.diff(offsets_B1))
        explained_E = np.einsum("ed,ed->e", sums_BD[rows_E], self.items_ID[items_E])
        ridge_B = self._ridge(np.diff(offsets_B1)).astype(np.float32)
        own_BD = solve_rows(
            offsets_B1, items_E, weights_E, targets_E - explained_E, self.items_ID, self.penalty_D, ridge_B
        )
        return sums_BD + own_BD

    def contributions(self, history: Histories, rows_K: IntArray) -> tuple[IntArray, DoubleArray]:
        """Score with, less score without each item: the history is solved again without each."""
        _, items_H, _, _ = self._problems(history)
        items_H = np.unique(items_H)
        without = [history.only(history.items_E != item) for item in items_H]
        queries_HD = self.solve(Histories.concatenate([history, *without]))
        differences_HD = (queries_HD[:1] - queries_HD[1:]).astype(np.float64)
        return items_H, np.asarray(differences_HD @ self.items_ID[rows_K].T.astype(np.float64), np.float64)

    def state(self) -> ScorerState:
        state = super().state()
        return ScorerState(state.arrays | {"implicit": self.implicit_ID}, state.settings)

    @classmethod
    def _more(cls, state: ScorerState) -> dict[str, Any]:
        return {"implicit_ID": state.arrays["implicit"]}


def implicit_sums(histories: Histories, implicit_ID: FloatArray) -> FloatArray:
    """(B, D) over the distinct items of a history, times their number^-1/2."""
    rows = history_rows(histories, len(implicit_ID), "binary")
    sums_BD = np.zeros((len(histories), implicit_ID.shape[1]), np.float32)
    add_dense_rows(rows, implicit_ID, sums_BD)
    lengths_B = np.maximum(np.diff(rows.offsets), 1).astype(np.float32)
    return np.asarray(sums_BD / np.sqrt(lengths_B)[:, None], np.float32)
