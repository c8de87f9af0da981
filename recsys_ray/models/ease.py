"""EASE: the item-item matrix that predicts every item of a history from the others by ridge regression, in closed form.

Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019). With X the interactions (U, I):

    minimize |X - X B|^2 + regularization |B|^2   subject to diag(B) = 0
    P = (X' X + regularization I)^-1,    B_ij = -P_ij / P_jj,    B_jj = 0

and the scores are X B, not X B': column j of B is the regression of item j on the others.
Time: one addition per pair of items in a user's history, and I^3 multiply-adds of the inverse, as matrix products.
Memory: one I x I float32 array, in which Gram matrix, inverse and B follow each other, and a few of its rows.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from recsys_ray.base.errors import ModelError
from recsys_ray.base.kernels import njit, prange
from recsys_ray.base.types import Counts, FitContext, FloatArray, MemoryEstimate, Scorer, TrainData
from recsys_ray.models.base import Model, history_matrix, require_finite
from recsys_ray.models.linalg.similarity import scaled
from recsys_ray.models.linalg.sparse import add_sparse_rows, threads_for
from recsys_ray.models.scorers.linear import LinearScorer

BLOCK = 1024  # rows eliminated at a time
TILE = 64


class EASE(Model):
    """Every item predicted from the others by ridge regression, in closed form (Steck 2019)."""

    key: ClassVar[str] = "ease"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (LinearScorer,)

    regularization: float = Field(default=500.0, gt=0)
    """lambda, added to the diagonal of the Gram matrix: larger for more users and sparser data."""
    weighting: Literal["binary", "rating"] = "binary"
    """The value of an interaction in X: 1, or its rating (which must be positive)."""

    def fit_scorer(self, data: TrainData, context: FitContext) -> LinearScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a rating is not positive under weighting = "rating", or the Gram matrix can't be inverted.
        """
        users_items = history_matrix("ease", data, self.weighting)
        left, right = scaled(users_items.T.tocsr()), scaled(users_items)
        context.progress(f"ease: Gram matrix of {data.num_items} items")
        gram_II = np.zeros((data.num_items, data.num_items), np.float32)
        add_sparse_rows(left, right, gram_II)
        gram_II[np.diag_indices_from(gram_II)] += np.float32(self.regularization)
        sweep(gram_II, context)
        diagonal_I = np.diagonal(gram_II).copy()
        require_finite("ease", "raise regularization", diagonal_I)
        with threads_for(gram_II.size):
            _finish(gram_II, diagonal_I)
        return LinearScorer(weights=gram_II, trained_I=np.diff(left.offsets) > 0, weighting=self.weighting)

    def memory(self, counts: Counts) -> MemoryEstimate:
        size = 4 * counts.num_items**2
        panels = 4 * 4 * counts.num_items * BLOCK
        return MemoryEstimate(
            size + panels + 32 * counts.num_interactions,
            "drop rare items with data filters, or choose the model graph_filter with neighbors, item_cf or als",
        )


def sweep(matrix_II: FloatArray, context: FitContext) -> None:
    """The upper triangle of a positive definite matrix becomes that of its negative inverse, in place.

    Block Gauss-Jordan elimination (the sweep operator of statistics). It takes as many operations as LAPACK's Cholesky
    factor and inverse, but nearly all in products of small blocks, and no routine ever sees the whole matrix: those of
    common builds crash on a matrix of 40,000 rows.

    Raises:
        ModelError: the matrix is not positive definite in float32.
    """
    size = len(matrix_II)
    for first in range(0, size, BLOCK):
        context.progress(f"ease: inverse, {100 * first // size} %")
        last = min(first + BLOCK, size)
        panel_RI = np.empty((last - first, size), np.float32)
        panel_RI[:, :first] = matrix_II[:first, first:last].T
        panel_RI[:, first:] = matrix_II[first:last, first:]
        pivot_RR = _inverse(panel_RI[:, first:last])
        swept_RI = pivot_RR @ panel_RI
        _subtract_product(matrix_II, panel_RI, swept_RI)
        matrix_II[:first, first:last] = swept_RI[:, :first].T
        matrix_II[first:last, last:] = swept_RI[:, last:]
        matrix_II[first:last, first:last] = -pivot_RR


def _inverse(upper_RR: FloatArray) -> FloatArray:
    """The full inverse of a small positive definite block, given by its upper triangle."""
    full_RR = np.triu(upper_RR).astype(np.float64)
    full_RR += np.triu(full_RR, 1).T
    try:
        np.linalg.cholesky(full_RR)  # fails where the inverse alone would give numbers without meaning
        inverse_RR: FloatArray = np.linalg.inv(full_RR).astype(np.float32)
    except np.linalg.LinAlgError as error:
        raise ModelError("ease: the Gram matrix is not positive definite in float32; raise regularization") from error
    return inverse_RR


def _subtract_product(matrix_II: FloatArray, left_RI: FloatArray, right_RI: FloatArray) -> None:
    """``matrix -= left.T @ right`` on the upper triangle, by tiles that leave the product in cache."""
    size = len(matrix_II)
    for top in range(0, size, BLOCK):
        rows = slice(top, min(top + BLOCK, size))
        for start in range(top, size, 4 * BLOCK):
            columns = slice(start, min(start + 4 * BLOCK, size))
            matrix_II[rows, columns] -= left_RI[:, rows].T @ right_RI[:, columns]


@njit(cache=True, parallel=True)
def _finish(inverse_II, diagonal_I) -> None:  # type: ignore[no-untyped-def]
    """-P, given by its upper triangle, becomes B in place. By tiles, because one side of the copy runs across rows."""
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
