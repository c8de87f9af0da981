"""A scorer of propagated embeddings: stored queries of known users, a sum over the history for the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import ClassVar

import numpy as np

from recsys_ray.base.ragged import kept_offsets
from recsys_ray.base.types import BoolArray, FloatArray, Histories, Requests, ScorerState
from recsys_ray.models.base import history_rows
from recsys_ray.models.linalg.pooling import Recent
from recsys_ray.models.linalg.sparse import SparseRows, add_dense_rows
from recsys_ray.models.scorers.base import ReplaceableItems, has_stored_row

RIDGE = 1e-3  # of the fold-in map, relative to the mean squared length of its input


class PropagationScorer(ReplaceableItems):
    """``query . item``; an unknown user's query is |H|^-1/2 times the sum of ``history_ID`` over the known items H.

    Args:
        users_UD: queries of the fit's users. known_U: users with training history; rows of the others are not used.
        items_ID: item vectors. history_ID: what an item of a history adds to the query.
        trained_I: items with training interactions. recent: what the last events add to every query.
    """

    kind: ClassVar[str] = "propagation"

    def __init__(
        self,
        *,
        users_UD: FloatArray,
        known_U: BoolArray,
        items_ID: FloatArray,
        history_ID: FloatArray,
        trained_I: BoolArray,
        recent: Recent,
    ) -> None:
        self.users_UD = users_UD
        self.known_U = known_U
        self.items_ID = items_ID
        self.history_ID = history_ID
        self.scorable_I = trained_I
        self.recent = recent

    def queries(self, requests: Requests) -> FloatArray:
        queries_BD = user_rows(requests, self.users_UD, self.known_U, self._queries_of)
        return self.recent.added(queries_BD, requests.histories, self.items_ID, self.scorable_I)

    def _queries_of(self, histories: Histories) -> FloatArray:
        return history_sums(histories, self.history_ID, self.scorable_I)

    def state(self) -> ScorerState:
        arrays = {
            "users": self.users_UD,
            "known": self.known_U,
            "items": self.items_ID,
            "history": self.history_ID,
            "trained": self.scorable_I,
        }
        return ScorerState(arrays, {"recent": asdict(self.recent)})

    @classmethod
    def from_state(cls, state: ScorerState) -> PropagationScorer:
        arrays = state.arrays
        return cls(
            users_UD=arrays["users"],
            known_U=arrays["known"],
            items_ID=arrays["items"],
            history_ID=arrays["history"],
            trained_I=arrays["trained"],
            recent=Recent(**state.settings.get("recent", {})),
        )


def user_rows(
    requests: Requests, users_UD: FloatArray, known_U: BoolArray, of_histories: Callable[[Histories], FloatArray]
) -> FloatArray:
    """(B, D) the stored row of every known user, and of the others what ``of_histories`` makes of the history."""
    stored_B = has_stored_row(requests, known_U)
    if stored_B.all():
        return np.ascontiguousarray(users_UD[requests.users_B])
    rows_BD = of_histories(requests.histories)
    rows_BD[stored_B] = users_UD[requests.users_B[stored_B]]
    return rows_BD


def history_sums(histories: Histories, vectors_ID: FloatArray, known_I: BoolArray) -> FloatArray:
    """(B, D) |H|^-1/2 times the sum of the vectors over H, the known items of a history, each counted once."""
    rows = history_rows(histories, len(vectors_ID), "binary")
    keep_E = known_I[rows.columns]
    offsets_B1 = kept_offsets(rows.offsets, keep_E)
    counts_B = np.diff(offsets_B1)
    scale_B = np.maximum(counts_B, 1).astype(np.float32) ** np.float32(-0.5)
    kept = SparseRows(offsets_B1, rows.columns[keep_E], np.repeat(scale_B, counts_B))
    sums_BD = np.zeros((len(counts_B), vectors_ID.shape[1]), np.float32)
    add_dense_rows(kept, vectors_ID, sums_BD)
    return sums_BD


def fold_in_map(sums_UD: FloatArray, queries_UD: FloatArray) -> FloatArray:
    """(D, D) the M whose ``sums M`` is closest to the queries: ridge regression."""
    inputs = sums_UD.astype(np.float64)
    gram_DD = inputs.T @ inputs
    gram_DD[np.diag_indices_from(gram_DD)] += RIDGE * np.trace(gram_DD) / len(gram_DD) + np.finfo(np.float64).tiny
    map_DD: FloatArray = np.linalg.solve(gram_DD, inputs.T @ queries_UD.astype(np.float64)).astype(np.float32)
    return map_DD
