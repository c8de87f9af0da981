"""``query . item + bias`` with stored queries of known users; an unknown user's is solved from the history."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from recsys_ray.base.ragged import kept_offsets
from recsys_ray.base.types import (
    BoolArray,
    DoubleArray,
    FloatArray,
    Histories,
    IntArray,
    LongArray,
    Requests,
    ScorerState,
)
from recsys_ray.models.base import Weighting, history_rows
from recsys_ray.models.linalg.least_squares import solve_rows
from recsys_ray.models.scorers.base import ReplaceableItems, has_stored_row


@dataclass(frozen=True, slots=True)
class FoldIn:
    """How a query is solved from a history of H events: weighted least squares against the item vectors, with ridge
    ``regularization * (H + frequency_offset) ^ frequency_power``."""

    targets: Literal["ones", "residuals"]
    """What an event should score: 1, or its rating less the item's bias."""
    weighting: Weighting
    """What an event counts: 1, or its rating. Events of no positive weight count nothing."""
    regularization: float
    frequency_offset: float
    frequency_power: float


class FactorScorer(ReplaceableItems):
    """``query . item + bias`` with stored queries of known users and a fold-in for the others.

    A request is answered from its stored row when ``users_B`` names a user with training history, else from
    the history it carries.

    Args:
        users_UD: queries of the fit's users. known_U: users with training history; rows of the others are not used.
        items_ID: item vectors. trained_I: items with training interactions. fold_in: the least squares problem that
        gives an unknown user's query. penalty_D: its penalty per dimension, the same for every user (the items'
        weighted Gram matrix, diagonal by rotation). bias_I: added to every query's scores.
    """

    kind: ClassVar[str] = "factor"

    def __init__(
        self,
        *,
        users_UD: FloatArray,
        known_U: BoolArray,
        items_ID: FloatArray,
        trained_I: BoolArray,
        fold_in: FoldIn,
        penalty_D: FloatArray,
        bias_I: FloatArray | None = None,
    ) -> None:
        assert users_UD.shape[1] == items_ID.shape[1] == len(penalty_D)
        self.users_UD = users_UD
        self.known_U = known_U
        self.items_ID = items_ID
        self.scorable_I = trained_I
        self.fold_in = fold_in
        self.penalty_D = penalty_D
        self.bias_I = bias_I

    def queries(self, requests: Requests) -> FloatArray:
        """(B, D) stored or solved."""
        stored_B = has_stored_row(requests, self.known_U)
        queries_BD = np.zeros((len(requests), self.items_ID.shape[1]), np.float32)
        queries_BD[stored_B] = self.users_UD[requests.users_B[stored_B]]
        if not stored_B.all():
            folded_BD = self.solve(requests.histories)
            queries_BD[~stored_B] = folded_BD[~stored_B]
        return queries_BD

    def solve(self, histories: Histories) -> FloatArray:
        """(B, D) the queries of these histories alone; zero where there is no item of the fit."""
        offsets_B1, items_E, weights_E, targets_E = self._problems(histories)
        return solve_rows(
            offsets_B1,
            items_E,
            weights_E,
            targets_E,
            self.items_ID,
            self.penalty_D,
            self._ridge(np.diff(offsets_B1)).astype(np.float32),
        )

    def contributions(self, history: Histories, rows_K: IntArray) -> tuple[IntArray, DoubleArray]:
        """Score with, less score without each item, of the query that the history alone gives: the closed form of
        leave-one-out ridge regression. A known user's stored query comes from training, and this one stands for it.

        Without item h the ridge is that of a shorter history, for all h the same. With A the normal matrix under that
        ridge, x = A^-1 b and z = A^-1 y_h, the query without h is x - z w_h (t_h - y_h x) / (1 - w_h y_h z).
        """
        _, items_H, weights_H, targets_H = self._problems(history)
        if not len(items_H):
            return items_H, np.zeros((0, len(rows_K)))
        vectors_HD = self.items_ID[items_H].astype(np.float64)
        weighted_HD = weights_H[:, None].astype(np.float64) * vectors_HD
        gram_DD, right_D = vectors_HD.T @ weighted_HD, weighted_HD.T @ targets_H
        query_D = np.linalg.solve(gram_DD + self._penalty(len(items_H)), right_D)
        if len(items_H) == 1:
            differences_HD = query_D[None, :]  # without its only item a history asks for nothing
        else:
            shorter_DD = gram_DD + self._penalty(len(items_H) - 1)
            solved = np.linalg.solve(shorter_DD, np.column_stack([right_D, vectors_HD.T]))
            fitted_D, inverse_HD = solved[:, 0], solved[:, 1:].T
            leverage_H = np.einsum("hd,hd->h", weighted_HD, inverse_HD)
            residuals_H = weights_H * (targets_H - vectors_HD @ fitted_D) / (1.0 - leverage_H)
            differences_HD = query_D - (fitted_D - residuals_H[:, None] * inverse_HD)
        return items_H, np.asarray(differences_HD @ self.items_ID[rows_K].T.astype(np.float64), np.float64)

    def _problems(self, histories: Histories) -> tuple[LongArray, IntArray, FloatArray, FloatArray]:
        """The least squares problems of B histories: (B + 1,) offsets, and of each distinct item that teaches
        something its row, weight and target."""
        rows = history_rows(histories, self.num_items, self.fold_in.weighting)
        targets_E = np.ones(len(rows.columns), np.float32)
        if self.fold_in.targets == "residuals":
            ratings = history_rows(histories, self.num_items, "rating")
            repeats = histories.matrix(self.num_items, np.ones(histories.num_interactions, np.float32))
            bias_E = 0.0 if self.bias_I is None else self.bias_I[rows.columns]
            targets_E = (ratings.values / repeats.data - bias_E).astype(np.float32)
        keep_E = self.scorable_I[rows.columns] & (rows.values > 0)
        offsets_B1 = kept_offsets(rows.offsets, keep_E)
        return offsets_B1, rows.columns[keep_E], rows.values[keep_E], targets_E[keep_E]

    def _ridge(self, num_events: Any) -> Any:
        fold_in = self.fold_in
        return fold_in.regularization * (num_events + fold_in.frequency_offset) ** fold_in.frequency_power

    def _penalty(self, num_events: int) -> DoubleArray:
        return np.diag(self.penalty_D.astype(np.float64) + self._ridge(num_events))

    def state(self) -> ScorerState:
        arrays: dict[str, Any] = {
            "users": self.users_UD,
            "known": self.known_U,
            "items": self.items_ID,
            "trained": self.scorable_I,
            "penalty": self.penalty_D,
        }
        if self.bias_I is not None:
            arrays["bias"] = self.bias_I
        return ScorerState(arrays, asdict(self.fold_in))

    @classmethod
    def from_state(cls, state: ScorerState) -> Self:
        arrays = state.arrays
        return cls(
            users_UD=arrays["users"],
            known_U=arrays["known"],
            items_ID=arrays["items"],
            trained_I=arrays["trained"],
            fold_in=FoldIn(**state.settings),
            penalty_D=arrays["penalty"],
            bias_I=arrays.get("bias"),
            **cls._more(state),
        )

    @classmethod
    def _more(cls, state: ScorerState) -> dict[str, Any]:
        """What a subclass keeps beside."""
        return {}
