"""Popularity: the same list for everybody, most interactions first. The baseline, and the fallback of every other
model.

    score_i = sum over the interactions e of item i, inside the window, of 0.5 ^ (age_e / half_life)

where the age is counted back from the latest interaction of the training data. Items without interactions score 0.
Time and memory: O(interactions).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import Counts, FitContext, FloatArray, LongArray, MemoryEstimate, Scorer, TrainData
from recsys_ray.data.features import MILLISECONDS_PER_DAY
from recsys_ray.models.base import Model, require_finite
from recsys_ray.models.scorers.linear import PopularityScorer


class Popularity(Model):
    """The same list for everybody, most interactions first."""

    key: ClassVar[str] = "popularity"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (PopularityScorer,)
    personal: ClassVar[bool] = False

    window_days: float | None = Field(default=None, gt=0)
    """Count only interactions of the last so many days of the training data."""
    half_life_days: float | None = Field(default=None, gt=0)
    """An interaction this old counts half."""

    def fit_scorer(self, data: TrainData, context: FitContext) -> PopularityScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a window or half-life is set and the data has no timestamps.
        """
        histories = data.histories
        if self.window_days is None and self.half_life_days is None:
            return PopularityScorer(scores_I=data.item_counts().astype(np.float32))
        weights_E = _weights(histories.timestamps_E, self)
        scores_I = np.bincount(histories.items_E, weights_E, minlength=data.num_items).astype(np.float32)
        require_finite("popularity", "raise half_life_days", scores_I)
        return PopularityScorer(scores_I=scores_I)

    def memory(self, counts: Counts) -> MemoryEstimate:
        return MemoryEstimate(
            24 * counts.num_interactions + 8 * counts.num_items, "shorten the history with data filters"
        )


def _weights(timestamps_E: LongArray, config: Popularity) -> FloatArray:
    if not timestamps_E.any():
        raise ModelError(
            "popularity: window_days and half_life_days need timestamps, and the interactions have none; unset them"
        )
    age_E = (timestamps_E.max() - timestamps_E) / MILLISECONDS_PER_DAY
    weights_E = np.ones(len(age_E)) if config.half_life_days is None else 0.5 ** (age_E / config.half_life_days)
    if config.window_days is not None:
        weights_E[age_E > config.window_days] = 0
    return weights_E.astype(np.float32)
