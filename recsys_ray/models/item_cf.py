"""Item-based collaborative filtering: an item's score is the sum of its similarities to the items of the history.

Source: Deshpande, Karypis, "Item-Based Top-N Recommendation Algorithms" (TOIS 2004). With x_ui the interactions, n_i
the users of item i, and m_i the weights of item i over the users:

    cosine   m_iu = x_ui                              sim_ij = m_i . m_j / (|m_i| |m_j| + shrinkage)
    tfidf    m_iu = sqrt(x_ui) idf_u                  sim_ij = m_i . m_j / (|m_i| |m_j| + shrinkage)
    bm25     m_iu = x_ui (k1 + 1) / (k1 L_i + x_ui) idf_u, with L_i = 1 - b + b n_i / mean n
                                                      sim_ij = m_i . m_j
    idf_u = log((1 + number of items) / (1 + items of u))

Here items are the documents and users the terms: agreeing users count less the more they have touched. For every item
of a history its ``neighbors`` most similar items get a vote; sim_ii is 0. A pair without a vote has no score.
Time: one addition per pair of items in a user's history. Memory: I * neighbors * 8 bytes and a block of dense rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from recsys_ray.base.types import Counts, FitContext, FloatArray, MemoryEstimate, Scorer, TrainData
from recsys_ray.models.base import Model, history_matrix, require_finite
from recsys_ray.models.linalg.similarity import ItemProduct, multiply, product_memory, scaled
from recsys_ray.models.scorers.linear import LinearScorer

if TYPE_CHECKING:
    import scipy.sparse as sp

BM25_K1, BM25_B = 1.2, 0.75


class ItemCF(Model):
    """Items like those of the history, by a similarity of who touched them."""

    key: ClassVar[str] = "item_cf"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (LinearScorer,)

    similarity: Literal["cosine", "tfidf", "bm25"] = "cosine"
    """How two items are compared."""
    neighbors: int = Field(default=100, ge=1)
    """Most similar items kept for each item."""
    shrinkage: float = Field(default=0.0, ge=0)
    """Added to the divisor, lowering similarities that rest on few users; not with bm25, which has no divisor."""
    bm25_k1: float = Field(default=BM25_K1, gt=0)
    """How much a larger rating adds; bm25 only."""
    bm25_b: float = Field(default=BM25_B, ge=0, le=1)
    """How much popular items are held back; bm25 only."""
    weighting: Literal["binary", "rating"] = "binary"
    """The value of an interaction, in the similarities and in a history: 1, or its rating (which must be positive)."""

    @model_validator(mode="after")
    def _used(self) -> ItemCF:
        if self.similarity == "bm25" and self.shrinkage != 0:
            raise ValueError("shrinkage has no effect with similarity = bm25; unset it")
        if self.similarity != "bm25" and (self.bm25_k1, self.bm25_b) != (BM25_K1, BM25_B):
            raise ValueError(f"bm25_k1 and bm25_b have no effect with similarity = {self.similarity}; unset them")
        return self

    def fit_scorer(self, data: TrainData, context: FitContext) -> LinearScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a rating is not positive under weighting = "rating".
        """
        users_items = history_matrix("item_cf", data, self.weighting)
        users_items.data = weights(users_items, self)
        items_users = users_items.T.tocsr()
        norms_I = None
        if self.similarity != "bm25":
            norms_I = np.sqrt(np.bincount(users_items.indices, users_items.data**2, minlength=data.num_items))
            norms_I = norms_I.astype(np.float32)
        product = ItemProduct(
            scaled(items_users),
            scaled(users_items),
            norms_I=norms_I,
            shrinkage=self.shrinkage,
            neighbors=self.neighbors,
        )
        matrix = multiply(product, data.num_items, context, "item_cf")
        require_finite("item_cf", "check the ratings, or set weighting = binary", matrix.values)
        return LinearScorer(weights=matrix, trained_I=data.item_counts() > 0, weighting=self.weighting)

    def memory(self, counts: Counts) -> MemoryEstimate:
        return product_memory(counts, self.neighbors, "lower model.neighbors")


def weights(users_items: sp.csr_matrix, config: ItemCF) -> FloatArray:
    """The m_iu of the module's formula, one for each stored entry of (U, I)."""
    value_E: FloatArray = users_items.data
    if config.similarity == "cosine":
        return value_E
    users_of_I = np.bincount(users_items.indices, minlength=users_items.shape[1])
    items_of_U = np.diff(users_items.indptr)
    idf_E = np.repeat(np.log((1 + users_items.shape[1]) / (1 + items_of_U)), items_of_U)
    if config.similarity == "tfidf":
        return np.asarray(np.sqrt(value_E) * idf_E, np.float32)
    length_I = 1 - config.bm25_b + config.bm25_b * users_of_I / max(users_of_I.mean(), 1e-12)
    saturation_E = config.bm25_k1 * length_I[users_items.indices] + value_E
    weighted_E: FloatArray = (value_E * (config.bm25_k1 + 1) / saturation_E * idf_E).astype(np.float32)
    return weighted_E
