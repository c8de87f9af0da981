"""Cold items: scores of items nobody has touched, for any model whose scores are linear in what an item is.

The idea, attributes mapped to item vectors by regression, is that of Gantner, Drumond, Freudenthaler, Rendle,
Schmidt-Thieme, "Learning Attribute-to-Feature Mappings for Cold-Start Recommendations" (ICDM 2010). With c_i the
content vector of item i, w_i its weight, c the weighted mean of the warm items' vectors, all sums over the warm items
(those with training interactions and a content vector), and y_i anything that the model has for every item:

    y_cold = sum of w_i y_i / sum of w_i + (c_cold - c)' M^-1 sum of w_i (c_i - c) y_i
    M      = sum of w_i (c_i - c)(c_i - c)' + regularization I,        w_i ~ n_i ^ popularity_power, 1 on average

which is ridge regression of y on the content, with a free intercept. It is linear in y: for an inner product, y are
the item vectors (and biases); for history x W, y are the columns of W, or, which is the same, the scores themselves. No
items x items matrix is made, and where there is one, it is read once.

How cold scores compare with warm ones: an item that resembles no warm item gets the weighted mean of their scores, and
the more regularization, the nearer all cold items stay to it. A regression also never reaches the extremes of what it
is fitted on: among all items the cold ones are a cautious guess, seldom at the top of a list and seldom at the bottom.
Weighing by popularity lifts them all, because popular items score higher. The order among cold items hardly suffers.
Time: warm items * D^2 + D^3, and the model's vectors or non-zeros times D. Memory: 2 * items * D floats.

D is the dimension of the content or of the model's item vectors, J = D + 1 the columns of the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import (
    BoolArray,
    Contributes,
    DoubleArray,
    FloatArray,
    Histories,
    IntArray,
    ItemContent,
    ItemVectors,
    LongArray,
    Requests,
    Scorer,
    ScorerState,
    Settings,
    SumsHistories,
    TakesItems,
    TrainData,
    by_inner_product,
)
from recsys_ray.models.scorers.base import comparable, cosines
from recsys_ray.models.scorers.blend import BlendScorer

BLOCK = 8192  # items looked at in float64 at a time


class ColdItemSettings(Settings):
    regularization: float = Field(default=10.0, gt=0)
    """Added to the diagonal of the warm items' content matrix, in items: with more, cold items differ less."""
    popularity_power: float = Field(default=0.5, ge=0)
    """Warm items teach in proportion to their interactions to this power: 0 all alike, 1 every interaction alike."""


@dataclass(frozen=True, slots=True)
class ContentMap:
    """The regression for any y: ``y_cold = cold_CJ @ (map_IJ.T @ y)``."""

    map_IJ: FloatArray
    """Rows of zeros for all but warm items."""
    cold_C: IntArray
    cold_CJ: FloatArray


def extend_to_cold_items(scorer: Scorer, data: TrainData, settings: ColdItemSettings) -> Scorer:
    """The scorer with scores for items that have a content vector and no training interactions.

    Unchanged when there is no such item, or when the scorer ranks some of them by other means than interactions: by
    their content, as far as it knows it.

    Raises:
        ModelError: there are no content vectors, none of a warm item, or the scores are not linear in the items.
    """
    if data.content is None:
        raise ModelError("cold items need item vectors; add a section content or unset training.cold_items")
    if isinstance(scorer, BlendScorer):
        extended = {name: extend_to_cold_items(member, data, settings) for name, member in scorer.members.items()}
        return scorer.with_members(extended)
    counts_I = data.item_counts()
    cold_I = data.content.present_I & (counts_I == 0)
    mappable = isinstance(scorer, TakesItems | SumsHistories)
    if not cold_I.any() or (not mappable and scorer.scorable_I[cold_I].any()):
        return scorer
    if not mappable:
        raise ModelError(
            f"cold items: {type(scorer).__name__} has no item vectors to extend; unset training.cold_items"
        )
    if not (data.content.present_I & (counts_I > 0)).any():
        raise ModelError("cold items: no item with training interactions has a vector; unset training.cold_items")
    content_map = fit_map(data.content, counts_I, settings)
    if isinstance(scorer, SumsHistories):
        queries_IJ = scorer.apply_to(content_map.map_IJ)
        return ColdItemScorer(
            base=scorer, cold_C=content_map.cold_C, vectors_CJ=content_map.cold_CJ, queries_IJ=queries_IJ
        )
    vectors = by_inner_product(scorer)
    assert vectors is not None and isinstance(scorer, TakesItems)  # what takes item vectors has some
    items_ID = mapped(content_map, vectors.items.vectors_ID)
    bias_I = vectors.items.bias_I
    bias_I = None if bias_I is None else mapped(content_map, bias_I[:, None])[:, 0]
    return ColdItemScorer(base=scorer.with_items(ItemVectors(items_ID, bias_I)), cold_C=content_map.cold_C)


def fit_map(content: ItemContent, counts_I: LongArray, settings: ColdItemSettings) -> ContentMap:
    """The regression from the content of items with interactions to that of items without."""
    vectors_ID, present_I = content.vectors_ID, content.present_I
    from scipy.linalg import cho_factor, cho_solve

    warm_W, cold_C = np.flatnonzero(present_I & (counts_I > 0)), np.flatnonzero(present_I & (counts_I == 0))
    weights_W = counts_I[warm_W].astype(np.float64) ** settings.popularity_power
    weights_W /= weights_W.mean()
    dim = vectors_ID.shape[1]
    mean_D, gram_DD = np.zeros(dim), np.zeros((dim, dim))
    for rows_W, weights in _blocks(warm_W, weights_W):
        mean_D += weights @ vectors_ID[rows_W].astype(np.float64) / len(warm_W)
    for rows_W, weights in _blocks(warm_W, weights_W):
        rest_WD = vectors_ID[rows_W] - mean_D
        gram_DD += rest_WD.T @ (weights[:, None] * rest_WD)
    gram_DD[np.diag_indices(dim)] += settings.regularization
    factor = cho_factor(gram_DD, lower=True)
    map_IJ = np.zeros((len(vectors_ID), dim + 1), np.float32)
    for rows_W, weights in _blocks(warm_W, weights_W):
        map_IJ[rows_W, :dim] = cho_solve(factor, (weights[:, None] * (vectors_ID[rows_W] - mean_D)).T).T
        map_IJ[rows_W, dim] = weights / len(warm_W)
    cold_CJ = np.ones((len(cold_C), dim + 1), np.float32)
    cold_CJ[:, :dim] = vectors_ID[cold_C] - mean_D
    return ContentMap(map_IJ, cold_C.astype(np.int32), cold_CJ)


def _blocks(rows_W: LongArray, weights_W: DoubleArray) -> list[tuple[LongArray, DoubleArray]]:
    return [(rows_W[start : start + BLOCK], weights_W[start : start + BLOCK]) for start in range(0, len(rows_W), BLOCK)]


def mapped(content_map: ContentMap, values_ID: FloatArray) -> FloatArray:
    """A copy in which the rows of cold items are what the regression makes of the others'."""
    result_ID: FloatArray = np.array(values_ID, np.float32)
    slopes_JD = content_map.map_IJ.T.astype(np.float64) @ values_ID
    result_ID[content_map.cold_C] = content_map.cold_CJ @ slopes_JD
    return result_ID


class ColdItemScorer:
    """Any scorer, with scores for cold items too. Who gets an answer is decided by the scorer inside.

    Args:
        base: a fitted scorer; one with item vectors already holds those of the cold items. cold_C: the cold items.
        vectors_CJ, queries_IJ: for a base without item vectors: the content of the cold items, and what one event on
        each item adds to a query against it.
    """

    kind: ClassVar[str] = "cold"

    def __init__(
        self,
        *,
        base: Scorer,
        cold_C: IntArray,
        vectors_CJ: FloatArray | None = None,
        queries_IJ: FloatArray | None = None,
    ) -> None:
        self.base = base
        self.cold_C = cold_C
        self.vectors_CJ = vectors_CJ
        self.queries_IJ = queries_IJ
        self._scorable_I = np.array(base.scorable_I)
        self._scorable_I[cold_C] = True

    @property
    def num_items(self) -> int:
        return self.base.num_items

    @property
    def scorable_I(self) -> BoolArray:
        return self._scorable_I

    def answers(self, requests: Requests) -> BoolArray:
        return self.base.answers(requests)

    @property
    def personal(self) -> bool:
        return self.base.personal

    @property
    def items(self) -> ItemVectors | None:
        vectors = by_inner_product(self.base)
        return None if vectors is None else vectors.items

    def queries(self, requests: Requests) -> FloatArray:
        vectors = by_inner_product(self.base)
        assert vectors is not None  # or ``items`` is None, and nobody searches by queries
        return vectors.queries(requests)

    def score(self, requests: Requests) -> FloatArray:
        scores_BI = self.base.score(requests)
        if self.queries_IJ is not None:
            assert isinstance(self.base, SumsHistories)
            scores_BI[:, self.cold_C] = self._columns(self.base.add_up(requests.histories, self.queries_IJ))
        return scores_BI

    def similar(self, items_R: IntArray) -> FloatArray:
        """As the scorer inside compares items. Of history x W a cold item has no row: to a warm item it is as like as
        an event on that one says, and to another cold item no history can tell."""
        if self.items is not None:
            return cosines(self.items.vectors_ID, items_R, self.scorable_I)
        assert self.queries_IJ is not None and self.vectors_CJ is not None
        scores_RI = self.base.similar(items_R)
        scores_RI[:, self.cold_C] = self._columns(self.queries_IJ[items_R])
        places_I = np.full(self.num_items, -1)
        places_I[self.cold_C] = np.arange(len(self.cold_C))
        for row in np.flatnonzero(places_I[items_R] >= 0):
            scores_RI[row] = self.queries_IJ @ self.vectors_CJ[places_I[items_R[row]]]
            scores_RI[row, self.cold_C] = -np.inf
        return comparable(scores_RI, items_R, self.scorable_I)

    def contributions(self, history: Histories, rows_K: IntArray) -> tuple[IntArray, DoubleArray] | None:
        """The scorer inside explains its own items; cold items of history x W have columns by their content."""
        found = self.base.contributions(history, rows_K) if isinstance(self.base, Contributes) else None
        if found is None or self.queries_IJ is None:
            return found
        assert isinstance(self.base, SumsHistories) and self.vectors_CJ is not None
        items_H, values_HK = found
        queries_HJ = self.base.losses(history, self.queries_IJ)[1]
        places_K = np.searchsorted(self.cold_C, rows_K)
        for k, place in enumerate(places_K):
            if place < len(self.cold_C) and self.cold_C[place] == rows_K[k]:
                values_HK[:, k] = queries_HJ @ self.vectors_CJ[place]
        return items_H, values_HK

    def _columns(self, queries_BJ: FloatArray) -> FloatArray:
        """(B, C) scores of the cold items, summed in float64: the same in every batch but for the last rounding."""
        assert self.vectors_CJ is not None
        columns_BC: FloatArray = (queries_BJ.astype(np.float64) @ self.vectors_CJ.T).astype(np.float32)
        return columns_BC

    def state(self) -> ScorerState:
        arrays: dict[str, Any] = {"cold": self.cold_C}
        if self.queries_IJ is not None and self.vectors_CJ is not None:
            arrays |= {"vectors": self.vectors_CJ, "queries": self.queries_IJ}
        return ScorerState(arrays, parts={"base": self.base})

    @classmethod
    def from_state(cls, state: ScorerState) -> ColdItemScorer:
        arrays = state.arrays
        return cls(
            base=state.parts["base"],
            cold_C=arrays["cold"],
            vectors_CJ=arrays.get("vectors"),
            queries_IJ=arrays.get("queries"),
        )
