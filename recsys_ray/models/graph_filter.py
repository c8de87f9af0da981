"""Graph filter: the training-free linear part of GF-CF, two steps of a random walk from the items of a history.

Source: Shen et al., "How Powerful is Graph Convolution for Recommendation?" (CIKM 2021), without its ideal low-pass
part. With B the binary interactions (U, I), D_u and D_i the degrees of users and items, R = D_u^-1/2 B D_i^-1/2:

    scores = B D_i^-1/2 (R' R) D_i^1/2  =  B W,    W = D_i^-1 B' D_u^-1 B

as coded: W_ij is the chance to get from item i through one of its users to item j. There is nothing to tune.
Time: one addition per pair of items in a user's history. Memory: 8 bytes per pair of items that share a user.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from recsys_ray.base.types import Counts, FitContext, FloatArray, LongArray, MemoryEstimate, Scorer, TrainData
from recsys_ray.models.base import Model, require_finite
from recsys_ray.models.linalg.similarity import ItemProduct, multiply, product_memory, scaled
from recsys_ray.models.scorers.linear import LinearScorer


class GraphFilter(Model):
    """A linear low-pass filter on the item graph; nothing is trained."""

    key: ClassVar[str] = "graph_filter"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (LinearScorer,)

    neighbors: int | None = Field(default=None, ge=1)
    """Keep so many largest entries of each row of W; None keeps all. For catalogues whose full W is too large."""

    def fit_scorer(self, data: TrainData, context: FitContext) -> LinearScorer:
        users_items = data.histories.matrix(data.num_items)
        items_users = users_items.T.tocsr()
        product = ItemProduct(
            scaled(
                items_users, rows=_inverse(np.diff(items_users.indptr)), columns=_inverse(np.diff(users_items.indptr))
            ),
            scaled(users_items),
            neighbors=self.neighbors,
            keep_diagonal=True,
        )
        matrix = multiply(product, data.num_items, context, "graph_filter")
        require_finite("graph_filter", "report it with the data's counts", matrix.values)
        return LinearScorer(weights=matrix, trained_I=np.diff(items_users.indptr) > 0, weighting="binary")

    def memory(self, counts: Counts) -> MemoryEstimate:
        return product_memory(counts, self.neighbors, "set model.neighbors (such as 500)")


def _inverse(degrees: LongArray) -> FloatArray:
    """1 / degree; rows without entries are never used and get 1."""
    return (1 / np.maximum(degrees, 1)).astype(np.float32)
