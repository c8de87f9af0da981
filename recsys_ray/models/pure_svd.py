"""PureSVD: the history projected on the leading right singular vectors of the interactions.

Source: Cremonesi, Koren, Turrin, "Performance of Recommender Algorithms on Top-N Recommendation Tasks" (RecSys 2010).

    X ~ U S V',    scores = X V V'

Time: O(interactions * D) per Lanczos step, some D steps. Memory: (users + items) * D * 20 floats at worst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import Counts, FitContext, FloatArray, MemoryEstimate, Scorer, TrainData
from recsys_ray.models.base import Model, history_matrix, require_finite
from recsys_ray.models.scorers.linear import LowRankScorer

if TYPE_CHECKING:
    import scipy.sparse as sp
NO_RANK, NOISE = 1e-6, 1e-10
"""What is rounding: a singular value below this share of the largest, an entry of a vector of length 1."""


class PureSVD(Model):
    """The leading singular vectors of the interactions (Cremonesi, Koren, Turrin 2010)."""

    key: ClassVar[str] = "pure_svd"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (LowRankScorer,)

    embedding_dim: int = Field(default=64, ge=1)
    """D, the singular vectors kept. As many as the interactions have rank would give back the history and nothing
    else: then half of them are kept, and it is said."""
    weighting: Literal["binary", "rating"] = "binary"
    """The value of an interaction: 1, or its rating (which must be positive)."""

    def fit_scorer(self, data: TrainData, context: FitContext) -> LowRankScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a rating is not positive under weighting = "rating", or the iteration doesn't converge.
        """
        users_items = history_matrix("pure_svd", data, self.weighting)
        items_ID = right_singular_vectors(users_items, self.embedding_dim, context)
        require_finite("pure_svd", "check the ratings, or set weighting = binary", items_ID)
        return LowRankScorer(items_ID=items_ID, trained_I=data.item_counts() > 0, weighting=self.weighting)

    def memory(self, counts: Counts) -> MemoryEstimate:
        smaller = min(counts.num_users, counts.num_items)
        vectors = 8 * self.embedding_dim * (4 * smaller + 2 * counts.num_users + 2 * counts.num_items)
        return MemoryEstimate(vectors + 40 * counts.num_interactions, "lower model.embedding_dim")


def right_singular_vectors(users_items: sp.csr_matrix, dim: int, context: FitContext) -> FloatArray:
    """(I, D) by falling singular value, fewer than ``dim`` where the matrix has no higher rank; of each vector the
    largest entry is positive."""
    from scipy.sparse.linalg import ArpackError, svds

    smaller = min(users_items.shape)
    is_whole = dim >= smaller // 2
    if is_whole:
        # The iteration is for few vectors of a large matrix; a small one is decomposed whole.
        _, values_D, vectors_DI = np.linalg.svd(users_items.toarray().astype(np.float64), full_matrices=False)
    else:
        start = context.rng().standard_normal(smaller)
        try:
            _, values_D, vectors_DI = svds(
                users_items.astype(np.float64), k=dim, v0=start, return_singular_vectors="vh"
            )
        except ArpackError as error:
            raise ModelError(f"pure_svd: no convergence ({error}); lower embedding_dim") from error
        order_D = np.argsort(-values_D, kind="stable")
        values_D, vectors_DI = values_D[order_D], vectors_DI[order_D]
    rank = int((values_D > NO_RANK * values_D[0]).sum())
    kept = dim
    if rank < dim or (is_whole and rank == dim):
        kept = max(1, rank // 2)
        context.progress(
            f"pure_svd: embedding_dim={dim} is not below the rank {rank} of the interactions, which leaves nothing to "
            f"tell; {kept} are kept"
        )
    vectors_DI = vectors_DI[:kept]
    vectors_DI[np.abs(vectors_DI) < NOISE] = 0  # of an item that these vectors do not tell
    largest_D = np.argmax(np.abs(vectors_DI), axis=1)
    signs_D = np.sign(vectors_DI[np.arange(len(vectors_DI)), largest_D])
    return np.ascontiguousarray((vectors_DI * signs_D[:, None]).T, dtype=np.float32)
