"""Scorers that sum over a history, and the one that looks at none.

LowRankScorer     query = history x V, score = query . V'
LinearScorer      history x W, W dense or sparse
PopularityScorer  the same score for everybody

J are the columns of a map, Z the stored non-zeros of W.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from recsys_ray.base.types import (
    BoolArray,
    DoubleArray,
    FloatArray,
    Histories,
    IntArray,
    ItemVectors,
    Requests,
    ScorerState,
)
from recsys_ray.models.base import Weighting
from recsys_ray.models.linalg.pooling import EventWeights
from recsys_ray.models.linalg.sparse import SparseRows, add_dense_rows, add_sparse_rows
from recsys_ray.models.scorers.base import NO_OPINION, KnowingScorer, ReplaceableItems, comparable

SPARSE_NAMES = ("offsets", "columns", "values")


class LowRankScorer(ReplaceableItems):
    """``history x V x V'``, handed out as two factors. Known and unknown users alike are scored from their history.

    Args:
        items_ID: V. trained_I: items with training interactions. weighting: what an event of the history counts; alone,
        or with its age. history_ID: what an item of a history adds to the query, where that is not V.
    """

    kind: ClassVar[str] = "low_rank"

    def __init__(
        self,
        *,
        items_ID: FloatArray,
        trained_I: BoolArray,
        weighting: Weighting | EventWeights,
        history_ID: FloatArray | None = None,
    ) -> None:
        self.items_ID = items_ID
        self.scorable_I = trained_I
        self.events = weighting if isinstance(weighting, EventWeights) else EventWeights(weighting)
        self.history_ID = history_ID

    @property
    def _added_ID(self) -> FloatArray:
        return self.items_ID if self.history_ID is None else self.history_ID

    def queries(self, requests: Requests) -> FloatArray:
        queries_BD = np.zeros((len(requests), self.items_ID.shape[1]), np.float32)
        add_dense_rows(self.events.rows(requests.histories, self.scorable_I), self._added_ID, queries_BD)
        return queries_BD

    def contributions(self, history: Histories, rows_K: IntArray) -> tuple[IntArray, DoubleArray]:
        items_KD = self.items_ID[rows_K].astype(np.float64)
        return self.events.losses(
            history, self.scorable_I, lambda items_H: self._added_ID[items_H].astype(np.float64) @ items_KD.T
        )

    def state(self) -> ScorerState:
        arrays: dict[str, Any] = {"items": self.items_ID, "trained": self.scorable_I}
        if self.history_ID is not None:
            arrays["history"] = self.history_ID
        return ScorerState(arrays, self.events.to_json())

    @classmethod
    def from_state(cls, state: ScorerState) -> LowRankScorer:
        arrays = state.arrays
        return cls(
            items_ID=arrays["items"],
            trained_I=arrays["trained"],
            weighting=EventWeights.from_json(state.settings),
            history_ID=arrays.get("history"),
        )


class LinearScorer(KnowingScorer):
    """``history x W``; row i of W is what one event on item i adds to the score of every item.

    With a sparse W a pair that no event of the history has an entry for scores -inf: no opinion. Known and unknown
    users alike are scored from their history.

    Args:
        weights: (I, I) float32, a C-ordered array or sparse rows. trained_I: items with training interactions.
        weighting: what an event of the history counts; alone, or with its age.
    """

    kind: ClassVar[str] = "linear"

    def __init__(
        self, *, weights: FloatArray | SparseRows, trained_I: BoolArray, weighting: Weighting | EventWeights
    ) -> None:
        self.weights = weights
        self.scorable_I = trained_I
        self.events = weighting if isinstance(weighting, EventWeights) else EventWeights(weighting)

    def _rows(self, histories: Histories) -> SparseRows:
        return self.events.rows(histories, self.scorable_I)

    def score(self, requests: Requests) -> FloatArray:
        return self._score(requests.histories)

    def _score(self, histories: Histories) -> FloatArray:
        if not isinstance(self.weights, SparseRows):
            return self.add_up(histories, self.weights)
        scores_BI = np.full((len(histories), self.num_items), NO_OPINION, np.float32)
        add_sparse_rows(self._rows(histories), self.weights, scores_BI)
        return scores_BI

    def similar(self, items_R: IntArray) -> FloatArray:
        one_each = Histories.from_lists([[int(item)] for item in items_R])
        return comparable(self._score(one_each), items_R, self.scorable_I)

    def apply_to(self, map_IJ: FloatArray) -> FloatArray:
        """(I, J) ``W @ map``, a pair without an entry being 0: what one event adds to the image of the scores."""
        if not isinstance(self.weights, SparseRows):
            return self.weights @ map_IJ
        image_IJ = np.zeros(map_IJ.shape, np.float32)
        add_dense_rows(self.weights, map_IJ, image_IJ)
        return image_IJ

    def add_up(self, histories: Histories, rows_IJ: FloatArray) -> FloatArray:
        """(B, J) the sum over a history of the rows of its items, each event counting as it does in the scores."""
        sums_BJ = np.zeros((len(histories), rows_IJ.shape[1]), np.float32)
        add_dense_rows(self._rows(histories), rows_IJ, sums_BJ)
        return sums_BJ

    def losses(self, history: Histories, rows_IJ: FloatArray) -> tuple[IntArray, DoubleArray]:
        """(H,) distinct items of one history, and (H, J) how much lower ``add_up`` would be without each."""
        return self.events.losses(history, self.scorable_I, lambda items_H: rows_IJ[items_H].astype(np.float64))

    def contributions(self, history: Histories, rows_K: IntArray) -> tuple[IntArray, DoubleArray]:
        """0 where a sparse W has no entry."""
        return self.events.losses(history, self.scorable_I, lambda items_H: self._entries(items_H, rows_K))

    def _entries(self, items_H: IntArray, rows_K: IntArray) -> DoubleArray:
        """(H, K) of W."""
        weights = self.weights
        if not isinstance(weights, SparseRows):
            return weights[items_H[:, None], rows_K[None, :]].astype(np.float64)
        entries_HK = np.zeros((len(items_H), len(rows_K)))
        for h, item in enumerate(items_H):
            stored = slice(int(weights.offsets[item]), int(weights.offsets[item + 1]))
            columns_Z = weights.columns[stored]
            if len(columns_Z):
                order_Z = np.argsort(columns_Z, kind="stable")
                # Where each wanted column would stand in the sorted ones; it is there when the column found is it.
                places_K = np.searchsorted(columns_Z, rows_K, sorter=order_Z)
                places_K = order_Z[np.minimum(places_K, len(columns_Z) - 1)]
                hits_K = columns_Z[places_K] == rows_K
                entries_HK[h, hits_K] = weights.values[stored][places_K[hits_K]]
        return entries_HK

    def state(self) -> ScorerState:
        arrays: dict[str, Any] = {"trained": self.scorable_I}
        if isinstance(self.weights, SparseRows):
            arrays |= {name: getattr(self.weights, name) for name in SPARSE_NAMES}
        else:
            arrays["weights"] = self.weights
        return ScorerState(arrays, self.events.to_json())

    @classmethod
    def from_state(cls, state: ScorerState) -> LinearScorer:
        arrays = state.arrays
        trained_I = arrays["trained"]
        weights = arrays["weights"] if "weights" in arrays else SparseRows(*(arrays[name] for name in SPARSE_NAMES))
        return cls(weights=weights, trained_I=trained_I, weighting=EventWeights.from_json(state.settings))


class PopularityScorer:
    """The same score for everybody: item vectors without dimensions, only a bias.

    Answers every request; an item that scores 0 was not touched in the time that counts, and is not ranked.
    """

    kind: ClassVar[str] = "popularity"
    personal: ClassVar[bool] = False

    def __init__(self, *, scores_I: FloatArray) -> None:
        self.scores_I = scores_I
        self.items = ItemVectors(np.zeros((len(scores_I), 0), np.float32), scores_I)

    @property
    def num_items(self) -> int:
        return len(self.scores_I)

    @property
    def scorable_I(self) -> BoolArray:
        return np.asarray(self.scores_I > 0, np.bool_)

    def answers(self, requests: Requests) -> BoolArray:
        return np.ones(len(requests), np.bool_)

    def queries(self, requests: Requests) -> FloatArray:
        return np.zeros((len(requests), 0), np.float32)

    def score(self, requests: Requests) -> FloatArray:
        return np.repeat(self.scores_I[None, :], len(requests), axis=0)

    def similar(self, items_R: IntArray) -> FloatArray:
        return np.full((len(items_R), self.num_items), NO_OPINION, np.float32)

    def with_items(self, items: ItemVectors) -> PopularityScorer:
        assert items.bias_I is not None
        return PopularityScorer(scores_I=items.bias_I)

    def state(self) -> ScorerState:
        return ScorerState({"scores": self.scores_I})

    @classmethod
    def from_state(cls, state: ScorerState) -> PopularityScorer:
        return cls(scores_I=state.arrays["scores"])
