"""A scorer made of scorers: a weighted sum of what they say, once it is in one scale.

M are the members. The scale is by request: the scores of the items that a member has an opinion on, less their mean,
over their deviation; or the reciprocal of their ranks. So a member counts by the order and the distances it sees, not
by the unit it speaks in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from recsys_ray.base.types import (
    BoolArray,
    Contributes,
    DoubleArray,
    FloatArray,
    Histories,
    IntArray,
    Requests,
    Scorer,
    ScorerState,
)
from recsys_ray.models.base import strangers
from recsys_ray.models.scorers.base import NO_OPINION

Method = Literal["weighted", "reciprocal_rank"]
LEAST_SPREAD = 1e-6
"""A deviation below this share of the largest score is rounding, and no opinion."""


class BlendScorer:
    """The sum over members m of  weight_m * scaled score_m,  over the weights of those with an opinion.

    A member that does not answer a request, or scores all its items alike, has no opinion on it, and the others share
    its weight. An item that a member can't score at all gets its mean, which is 0; one that it could score and leaves
    out (-inf) gets the worst of its scores. By rank both get nothing.

    Args:
        members: by name, in order. weights_M: not negative, some positive. method: how scores are scaled.
        rank_constant: added to a rank before its reciprocal is taken.
    """

    kind: ClassVar[str] = "blend"
    personal: ClassVar[bool] = True

    def __init__(
        self, *, members: dict[str, Scorer], weights_M: Sequence[float], method: Method, rank_constant: float
    ) -> None:
        assert len(members) == len(weights_M) > 0
        self.members = members
        self.weights_M = [float(weight) for weight in weights_M]
        self.method: Method = method
        self.rank_constant = rank_constant
        self.scorable_I = _any([scorer.scorable_I for scorer in members.values()])

    @property
    def num_items(self) -> int:
        return len(self.scorable_I)

    def answers(self, requests: Requests) -> BoolArray:
        return _any([member.answers(requests) for member in self.members.values()])

    def score(self, requests: Requests) -> FloatArray:
        total_BI = np.zeros((len(requests), self.num_items), np.float32)
        weight_B, known_BI = np.zeros(len(requests), np.float32), np.zeros(total_BI.shape, np.bool_)
        for member, weight in zip(self.members.values(), self.weights_M, strict=True):
            scaled = scale(member, requests, self.method, self.rank_constant)
            total_BI += np.float32(weight) * scaled.values_BI
            weight_B += np.float32(weight) * scaled.speaks_B
            known_BI |= scaled.known_BI
        total_BI /= np.where(weight_B > 0, weight_B, 1)[:, None]
        return np.where(known_BI, total_BI, NO_OPINION)

    def similar(self, items_R: IntArray) -> FloatArray:
        """The weighted mean over the members that can tell."""
        total_RI = np.zeros((len(items_R), self.num_items), np.float32)
        weights_RI = np.zeros(total_RI.shape, np.float32)
        for member, weight in zip(self.members.values(), self.weights_M, strict=True):
            alike_RI = member.similar(items_R)
            tells_RI = np.isfinite(alike_RI)
            total_RI += np.float32(weight) * np.where(tells_RI, alike_RI, 0)
            weights_RI += np.float32(weight) * tells_RI
        return np.where(weights_RI > 0, total_RI / np.where(weights_RI > 0, weights_RI, 1), NO_OPINION)

    def contributions(self, history: Histories, rows_K: IntArray) -> tuple[IntArray, DoubleArray] | None:
        """The weighted sum of those of the members whose scores come apart, in their scales for this history alone.

        What a missing item would change in the scale itself is left out. None by rank, or where no member comes apart.
        """
        if self.method != "weighted":
            return None
        request, items_H = strangers(history), np.unique(history.items_E).astype(np.int32)
        total_HK = np.zeros((len(items_H), len(rows_K)))
        apart = False
        for member, weight in zip(self.members.values(), self.weights_M, strict=True):
            scaled = scale(member, request, self.method, self.rank_constant)
            found = member.contributions(history, rows_K) if isinstance(member, Contributes) else None
            if found is not None and scaled.speaks_B[0]:
                apart = True
                np.add.at(total_HK, np.searchsorted(items_H, found[0]), weight * found[1] / float(scaled.spread_B[0]))
        return (items_H, total_HK) if apart else None

    def shares(self, requests: Requests, rows_BK: IntArray) -> FloatArray:
        """(M, B, K) what each member adds to the score of each item; 0 where there is no item (-1)."""
        parts = []
        for member, weight in zip(self.members.values(), self.weights_M, strict=True):
            scaled = scale(member, requests, self.method, self.rank_constant)
            parts.append(np.float32(weight) * np.take_along_axis(scaled.values_BI, np.maximum(rows_BK, 0), axis=1))
        return np.where(rows_BK >= 0, np.stack(parts), np.float32(0))

    def with_members(self, members: dict[str, Scorer]) -> BlendScorer:
        """The same with other members under the same names."""
        return BlendScorer(
            members=members, weights_M=self.weights_M, method=self.method, rank_constant=self.rank_constant
        )

    def state(self) -> ScorerState:
        settings = {"weights": self.weights_M, "method": self.method, "rank_constant": self.rank_constant}
        return ScorerState({}, settings | {"members": list(self.members)}, dict(self.members))

    @classmethod
    def from_state(cls, state: ScorerState) -> BlendScorer:
        settings = state.settings
        return cls(
            members={name: state.parts[name] for name in settings["members"]},
            weights_M=settings["weights"],
            method=settings["method"],
            rank_constant=settings["rank_constant"],
        )


def _any(flags: list[BoolArray]) -> BoolArray:
    return np.asarray(np.stack(flags).any(axis=0), np.bool_)


class Scaled:
    """A member's scores of a batch in the common scale.

    ``values_BI`` are 0 where it has nothing to say; ``known_BI``: pairs on which it has an opinion; ``speaks_B``:
    requests on which it has one at all; ``spread_B``: what scores were divided by, 1 by rank.
    """

    def __init__(self, values_BI: FloatArray, known_BI: BoolArray, spread_B: FloatArray) -> None:
        self.values_BI, self.known_BI, self.spread_B = values_BI, known_BI, spread_B
        self.speaks_B: BoolArray = np.asarray(known_BI.any(axis=1))


def scale(member: Scorer, requests: Requests, method: Method, rank_constant: float) -> Scaled:
    """One member's scores of all items, whatever their unit."""
    scores_BI = member.score(requests)
    known_BI = np.asarray(np.isfinite(scores_BI) & member.answers(requests)[:, None] & member.scorable_I, np.bool_)
    counts_B = np.maximum(known_BI.sum(axis=1), 1).astype(np.float32)
    scores_BI = np.where(known_BI, scores_BI, np.float32(0))
    mean_B = scores_BI.sum(axis=1) / counts_B
    apart_BI = np.where(known_BI, scores_BI - mean_B[:, None], np.float32(0))
    spread_B = np.sqrt((apart_BI**2).sum(axis=1) / counts_B)
    even_B = np.asarray(spread_B <= LEAST_SPREAD * np.abs(scores_BI).max(axis=1, initial=0))
    known_BI[even_B] = False
    if method == "reciprocal_rank":
        return Scaled(_reciprocal_ranks(scores_BI, known_BI, rank_constant), known_BI, np.ones_like(spread_B))
    spread_B = np.where(spread_B > 0, spread_B, np.float32(1))
    values_BI = apart_BI / spread_B[:, None]
    worst_B = np.where(known_BI, values_BI, np.float32(0)).min(axis=1, initial=0)
    speaks_B = known_BI.any(axis=1)
    left_out_BI = ~known_BI & member.scorable_I & np.expand_dims(speaks_B, 1)
    return Scaled(np.where(known_BI, values_BI, np.where(left_out_BI, worst_B[:, None], 0)), known_BI, spread_B)


def _reciprocal_ranks(scores_BI: FloatArray, known_BI: BoolArray, constant: float) -> FloatArray:
    """1 / (constant + rank), the best rank being 1, of equals the lower item; 0 without an opinion (Cormack, Clarke,
    Buettcher, "Reciprocal Rank Fusion Outperforms Condorcet", SIGIR 2009)."""
    order_BI = np.argsort(np.where(known_BI, -scores_BI, np.float32(np.inf)), axis=1, kind="stable")
    ranks_BI = np.empty(order_BI.shape, np.float32)
    places = np.broadcast_to(np.arange(1, order_BI.shape[1] + 1, dtype=np.float32), order_BI.shape)
    np.put_along_axis(ranks_BI, order_BI, places, axis=1)
    return np.where(known_BI, 1 / (np.float32(constant) + ranks_BI), np.float32(0))
