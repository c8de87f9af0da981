"""A model of a kind of scorer that the package has never seen: one class each, defined here, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

import recsys_ray as rr
from recsys_ray.base.errors import BundleError
from recsys_ray.base.types import (
    BoolArray,
    Counts,
    FitContext,
    FloatArray,
    Histories,
    IntArray,
    MemoryEstimate,
    Requests,
    Scorer,
    ScorerState,
    TrainData,
)
from recsys_ray.models import Model
from recsys_ray.testing import ModelConformance


class TogetherScorer:
    """How many users of an item had an item of the history, too, the best pair counting."""

    kind: ClassVar[str] = "together"
    personal: ClassVar[bool] = True

    def __init__(self, together_II: FloatArray, scorable_I: BoolArray) -> None:
        self.together_II = together_II
        self.scorable_I = scorable_I

    @property
    def num_items(self) -> int:
        return len(self.scorable_I)

    def answers(self, requests: Requests) -> BoolArray:
        return np.array([self.scorable_I[self._items(requests.histories, row)].any() for row in range(len(requests))])

    def score(self, requests: Requests) -> FloatArray:
        scores_BI = np.full((len(requests), self.num_items), -np.inf, np.float32)
        for row in range(len(requests)):
            items = self._items(requests.histories, row)
            if len(items):
                scores_BI[row] = np.sqrt(np.square(self.together_II[items]).sum(axis=0))
        return scores_BI

    def similar(self, items_R: IntArray) -> FloatArray:
        likeness_RI = np.where(self.scorable_I, self.together_II[items_R], np.float32(-np.inf)).astype(np.float32)
        likeness_RI[~self.scorable_I[items_R]] = -np.inf
        likeness_RI[np.arange(len(items_R)), items_R] = -np.inf
        return likeness_RI

    @staticmethod
    def _items(histories: Histories, row: int) -> IntArray:
        return np.unique(histories.items_E[histories.offsets_B1[row] : histories.offsets_B1[row + 1]])

    def state(self) -> ScorerState:
        return ScorerState({"together": self.together_II, "scorable": self.scorable_I})

    @classmethod
    def from_state(cls, state: ScorerState) -> TogetherScorer:
        return cls(state.arrays["together"], state.arrays["scorable"])


class Together(Model):
    key: ClassVar[str] = "together"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (TogetherScorer,)

    damping: float = 1.0
    """Added to how many users an item has."""

    def memory(self, counts: Counts) -> MemoryEstimate:
        return MemoryEstimate(8 * counts.num_items**2, "choose another model")

    def fit_scorer(self, data: TrainData, context: FitContext) -> TogetherScorer:
        matrix = data.histories.matrix(data.num_items)
        counts_I = np.diff(matrix.tocsc().indptr)
        together_II = (matrix.T @ matrix).toarray() / (counts_I + self.damping)
        np.fill_diagonal(together_II, 0)
        return TogetherScorer(together_II.astype(np.float32), counts_I > 0)


class TestTogether(ModelConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> type[Model]:
        return Together


def events() -> Any:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 30, 400), rng.integers(0, 20, 400)
    return pd.DataFrame({"user_id": users, "item_id": 100 + items}).drop_duplicates(ignore_index=True)


def test_it_recommends_explains_and_is_saved_like_any_other(tmp_path: Path) -> None:
    model = Together().fit(rr.Dataset(events()))
    lists = model.recommend(n=5)
    assert set(lists["source"]) <= {"model", "fallback:popularity"} and (lists["source"] == "model").mean() > 0.9
    first = lists.iloc[0]
    assert model.explain(user=first["user_id"], item=first["item_id"]).kind == "likeness"
    assert len(model.similar_items(100, n=3)) == 3
    model.save(tmp_path / "together")
    again = rr.load(tmp_path / "together", models=[Together])
    pd.testing.assert_frame_equal(again.recommend(n=5), lists)


def test_a_scorer_that_nobody_named_is_said_so(tmp_path: Path) -> None:
    Together().fit(rr.Dataset(events())).save(tmp_path / "together")
    with pytest.raises(BundleError, match="unknown scorer kind 'together'"):
        rr.load(tmp_path / "together")
