"""A scorer without factors: a network looks at every pair of a user and an item (``pair_kernels`` says how).

It ranks the whole catalogue block by block, or as a second model the candidates of a first (``recommend.ranker``).

D is the dimension of the inner product, J = D + the width of the perceptron's first layer.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar

import numpy as np

from recsys_ray.base.types import BoolArray, FloatArray, Histories, IntArray, Requests, ScorerState
from recsys_ray.data.attributes import AttributeEncoder
from recsys_ray.models.linalg.pooling import Recent
from recsys_ray.models.ncf.kernels import Perceptron, score_block, score_rows
from recsys_ray.models.scorers.base import NO_OPINION, KnowingScorer, cosines, has_stored_row
from recsys_ray.models.scorers.propagation import history_sums, user_rows


class PairScorer(KnowingScorer):
    """``network(user, item)`` with stored rows of known users and rows from the history for the others.

    An unknown user's row is ``intercept_J`` plus |H|^-1/2 times the sum of ``history_IJ`` over the known items H.

    Args:
        users_UJ: rows of the fit's users. known_U: users with training history; rows of the others are not used.
        items_IJ: rows of the items. history_IJ: what an item of a history adds to a row.
        perceptron: the layers behind the first. trained_I: items with training interactions. recent: what the last
        events add to the columns of the inner product. attributes: of the table of users, and attributes_AJ what each
        of their columns adds to a row; None without.
    """

    kind: ClassVar[str] = "pair"

    def __init__(
        self,
        *,
        users_UJ: FloatArray,
        known_U: BoolArray,
        items_IJ: FloatArray,
        history_IJ: FloatArray,
        intercept_J: FloatArray,
        perceptron: Perceptron,
        trained_I: BoolArray,
        recent: Recent,
        attributes: AttributeEncoder | None = None,
        attributes_AJ: FloatArray | None = None,
    ) -> None:
        self.users_UJ = users_UJ
        self.known_U = known_U
        self.items_IJ = items_IJ
        self.history_IJ = history_IJ
        self.intercept_J = intercept_J
        self.perceptron = perceptron
        self.scorable_I = trained_I
        self.recent = recent
        self.attributes, self.attributes_AJ = attributes, attributes_AJ
        self.factors_ID = items_IJ[:, : items_IJ.shape[1] - perceptron.widths[0]]
        if recent.weight:  # sums over histories want whole rows side by side
            self.factors_ID = np.ascontiguousarray(self.factors_ID)

    def score(self, requests: Requests) -> FloatArray:
        scores_BI = np.empty((len(requests), self.num_items), np.float32)
        score_block(self._rows(requests), self.items_IJ, self.perceptron, scores_BI)
        return scores_BI

    def score_pairs(self, requests: Requests, rows_BK: IntArray) -> FloatArray:
        """(B, K) the scores of the listed items, bit by bit those of ``score``; -inf where the item is -1."""
        scores_BK = np.empty(rows_BK.shape, np.float32)
        rows = np.ascontiguousarray(np.maximum(rows_BK, 0))
        score_rows(self._rows(requests), self.items_IJ, self.perceptron, rows, scores_BK)
        scores_BK[rows_BK < 0] = NO_OPINION
        return scores_BK

    def _rows(self, requests: Requests) -> FloatArray:
        """(B, J) stored, or from the history; with what was done last."""
        rows_BJ = user_rows(requests, self.users_UJ, self.known_U, self.rows_of)
        if self.attributes is not None and self.attributes_AJ is not None:
            new_B = ~has_stored_row(requests, self.known_U)
            encoded_BA = self.attributes.encode(requests.attributes, len(requests))
            rows_BJ[new_B] += encoded_BA[new_B] @ self.attributes_AJ
        dim = self.factors_ID.shape[1]
        rows_BJ[:, :dim] = self.recent.added(rows_BJ[:, :dim], requests.histories, self.factors_ID, self.scorable_I)
        return rows_BJ

    def rows_of(self, histories: Histories) -> FloatArray:
        """(B, J) what histories alone tell of their users."""
        return self.intercept_J + history_sums(histories, self.history_IJ, self.scorable_I)

    def similar(self, items_R: IntArray) -> FloatArray:
        return cosines(self.factors_ID, items_R, self.scorable_I)

    def state(self) -> ScorerState:
        arrays = {
            "users": self.users_UJ,
            "known": self.known_U,
            "items": self.items_IJ,
            "history": self.history_IJ,
            "intercept": self.intercept_J,
            "perceptron": self.perceptron.weights_E,
            "trained": self.scorable_I,
        }
        settings = {"widths": list(self.perceptron.widths), "recent": asdict(self.recent)}
        if self.attributes is not None and self.attributes_AJ is not None:
            arrays["attributes"] = self.attributes_AJ
            settings["attributes"] = self.attributes.to_json()
        return ScorerState(arrays, settings)

    @classmethod
    def from_state(cls, state: ScorerState) -> PairScorer:
        arrays = state.arrays
        return cls(
            users_UJ=arrays["users"],
            known_U=arrays["known"],
            items_IJ=arrays["items"],
            history_IJ=arrays["history"],
            intercept_J=arrays["intercept"],
            perceptron=Perceptron(tuple(state.settings["widths"]), arrays["perceptron"]),
            trained_I=arrays["trained"],
            recent=Recent(**state.settings.get("recent", {})),
            attributes=AttributeEncoder.from_json(state.settings.get("attributes")),
            attributes_AJ=arrays.get("attributes"),
        )
