"""EASE: the item-item matrix that predicts every item of a history from the others by ridge regression, in closed form.

Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019). With X the interactions (U, I):

    minimize |X - X B|^2 + regularization |B|^2   subject to diag(B) = 0
    P = (X' X + regularization I)^-1,    B_ij = -P_ij / P_jj,    B_jj = 0

and the scores are X B, not X B': column j of B is the regression of item j on the others.
Time: one addition per pair of items in a user's history, and I^3 operations of the inverse.
Memory: one I x I float32 array, in which Gram matrix, Cholesky factor, inverse and B follow each other.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit, prange
from pydantic import Field
from scipy.linalg import lapack

from recsys_ray.contracts import Counts, FitContext, FloatArray, Settings, TrainData
from recsys_ray.errors import ModelError
from recsys_ray.models.common import MemoryEstimate, history_matrix, require_finite
from recsys_ray.models.kernels import add_sparse_rows, threads_for
from recsys_ray.models.scorers import LinearScorer
from recsys_ray.models.similarity import scaled

TILE = 64


class EASEConfig(Settings):
    regularization: float = Field(default=500.0, gt=0)
    """lambda, added to the diagonal of the Gram matrix: larger for more users and sparser data."""
    weighting: Literal["binary", "rating"] = "binary"
    """The value of an interaction in X: 1, or its rating (which must be positive)."""


def fit_ease(data: TrainData, config: EASEConfig, context: FitContext) -> LinearScorer:
    """Fit on the training histories.

    Raises:
        ModelError: a rating is not positive under weighting = "rating", or the Gram matrix can't be inverted.
    """
    users_items = history_matrix("ease", data, config.weighting)
    left, right = scaled(users_items.T.tocsr()), scaled(users_items)
    context.progress(f"ease: Gram matrix of {data.num_items} items")
    gram_II = np.zeros((data.num_items, data.num_items), np.float32)
    add_sparse_rows(left, right, gram_II)
    gram_II[np.diag_indices_from(gram_II)] += np.float32(config.regularization)
    context.progress(f"ease: inverse, {data.num_items**3 / 1e12:.2f} Tflop")
    invert_upper(gram_II)
    diagonal_I = np.diagonal(gram_II).copy()
    require_finite("ease", "raise regularization", diagonal_I)
    with threads_for(gram_II.size):
        _finish(gram_II, diagonal_I)
    return LinearScorer(weights=gram_II, trained_I=np.diff(left.offsets) > 0, weighting=config.weighting)


def invert_upper(matrix_II: FloatArray) -> None:
    """The upper triangle of a positive definite matrix becomes that of its inverse, in place; the lower one is waste.

    Raises:
        ModelError: the matrix is not positive definite in float32.
    """
    # LAPACK counts columns first: to it, our upper triangle is the lower one of the same memory.
    factor_II, failed = lapack.spotrf(matrix_II.T, lower=1, clean=0, overwrite_a=1)
    if not failed:
        inverse_II, failed = lapack.spotri(factor_II, lower=1, overwrite_c=1)
    if failed:
        raise ModelError("ease: the Gram matrix is not positive definite in float32; raise regularization")
    assert np.shares_memory(inverse_II, matrix_II)


@njit(cache=True, parallel=True)
def _finish(inverse_II, diagonal_I) -> None:  # type: ignore[no-untyped-def]
    """P, given by its upper triangle, becomes B in place. By tiles, because one side of the copy runs across rows."""
    size = len(diagonal_I)
    num_tiles = (size + TILE - 1) // TILE
    for tile in prange(num_tiles):
        rows = range(tile * TILE, min(tile * TILE + TILE, size))
        for first in range(tile * TILE, size, TILE):
            for i in rows:
                for j in range(max(first, i + 1), min(first + TILE, size)):
                    value = inverse_II[i, j]
                    inverse_II[i, j] = -value / diagonal_I[j]
                    inverse_II[j, i] = -value / diagonal_I[i]
        for i in rows:
            inverse_II[i, i] = 0


def ease_memory(counts: Counts, config: EASEConfig) -> MemoryEstimate:
    size = 4 * counts.num_items**2
    return MemoryEstimate(
        size + size // 20 + 32 * counts.num_interactions,
        "drop rare items with data filters, or choose the model graph_filter with neighbors, item_cf or als",
    )
