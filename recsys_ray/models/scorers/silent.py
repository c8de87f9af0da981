"""A scorer that knows nothing: what stands in for a model that can't be loaded, so that its fallbacks answer."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys_ray.base.types import BoolArray, FloatArray, IntArray, Requests, ScorerState


class SilentScorer:
    """No opinion on anything; it is never saved."""

    kind: ClassVar[str] = "silent"
    personal: ClassVar[bool] = False

    def __init__(self, num_items: int) -> None:
        self.scorable_I: BoolArray = np.zeros(num_items, np.bool_)

    @property
    def num_items(self) -> int:
        return len(self.scorable_I)

    def answers(self, requests: Requests) -> BoolArray:
        return np.zeros(len(requests), np.bool_)

    def score(self, requests: Requests) -> FloatArray:
        return np.full((len(requests), self.num_items), -np.inf, np.float32)

    def similar(self, items_R: IntArray) -> FloatArray:
        return np.full((len(items_R), self.num_items), -np.inf, np.float32)

    def state(self) -> ScorerState:
        return ScorerState({}, {"items": self.num_items})

    @classmethod
    def from_state(cls, state: ScorerState) -> SilentScorer:
        return cls(state.settings["items"])
