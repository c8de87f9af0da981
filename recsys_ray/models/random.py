"""Random: an even lottery over all items, drawn once per user. What chance alone reaches, in every metric.

The score of user u and item i is a hash of (seed, u, i), uniform in [0, 1): the same in every process, and independent
of what else is asked. All users that the fit doesn't know share one draw.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys_ray.base.types import (
    BoolArray,
    Counts,
    FitContext,
    FloatArray,
    MemoryEstimate,
    Requests,
    Scorer,
    ScorerState,
    TrainData,
)
from recsys_ray.data.prepare.keys import Keys, mix
from recsys_ray.models.base import Model

BITS = 24
"""Of the hash, what a float32 below 1 can hold."""


class RandomScorer:
    """Ranks every item and answers every request, by lot."""

    kind: ClassVar[str] = "random"
    personal: ClassVar[bool] = False

    def __init__(self, *, keys_I: Keys) -> None:
        self.keys_I = keys_I

    @property
    def num_items(self) -> int:
        return len(self.keys_I)

    @property
    def scorable_I(self) -> BoolArray:
        return np.ones(self.num_items, np.bool_)

    def answers(self, requests: Requests) -> BoolArray:
        return np.ones(len(requests), np.bool_)

    def score(self, requests: Requests) -> FloatArray:
        users_B = mix(requests.users_B.astype(np.int64).astype(np.uint64), 0)
        scores_BI = np.empty((len(requests), self.num_items), np.float32)
        for row, key in enumerate(users_B):
            scores_BI[row] = (mix(self.keys_I ^ key, 1) >> np.uint64(64 - BITS)).astype(np.float32)
        return scores_BI * np.float32(2.0**-BITS)

    def similar(self, items_R: np.ndarray) -> FloatArray:
        return np.full((len(items_R), self.num_items), -np.inf, np.float32)

    def state(self) -> ScorerState:
        return ScorerState({"keys": self.keys_I})

    @classmethod
    def from_state(cls, state: ScorerState) -> RandomScorer:
        return cls(keys_I=state.arrays["keys"])


class Random(Model):
    """An even lottery over all items, drawn once per user."""

    key: ClassVar[str] = "random"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (RandomScorer,)
    personal: ClassVar[bool] = False

    def fit_scorer(self, data: TrainData, context: FitContext) -> RandomScorer:
        return RandomScorer(keys_I=mix(np.arange(data.num_items, dtype=np.uint64), context.seed))

    def memory(self, counts: Counts) -> MemoryEstimate:
        return MemoryEstimate(8 * counts.num_items, "use fewer items")
