"""The leading singular vectors of a sparse matrix by random projection: many of them, nearly exact, in seconds.

Source: Halko, Martinsson, Tropp, "Finding Structure with Randomness" (SIAM Review 2011): a random subspace, turned
towards the leading vectors by products with R'R, an orthonormal basis after each.
Time: ITERATIONS products of 2 * non-zeros * D and as many orthonormal bases of 2 * columns * D^2. Memory: columns * D *
16 bytes and rows * D * 4.

D are the vectors kept, J a few more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsys_ray.base.types import FitContext, FloatArray
from recsys_ray.models.linalg.graph import Graph

if TYPE_CHECKING:
    import scipy.sparse as sp

ITERATIONS = 6
OVERSAMPLING = 32
"""Vectors carried along and thrown away: the last of those kept are then as good as the first."""
TOLERANCE = 1e-5
"""Eigenvalues of R'R below this share of the largest are rounding, and their vectors noise."""


def leading_vectors(matrix: sp.csr_matrix, dim: int, context: FitContext) -> FloatArray:
    """(I, D) orthonormal right singular vectors of (U, I), by falling singular value; of each the largest entry is
    positive. As many as the rank of the matrix, at most."""
    width = min(dim + OVERSAMPLING, *matrix.shape)
    rows, columns = Graph.rows_of(matrix), Graph.rows_of(matrix.T.tocsr())
    basis_IJ = context.rng(2).standard_normal((matrix.shape[1], width), np.float32)
    for _ in range(ITERATIONS):
        basis_IJ = _orthonormal(_squared(rows, columns, basis_IJ))
    image_IJ = _squared(rows, columns, basis_IJ)
    values_J, turn_JJ = np.linalg.eigh((basis_IJ.T @ image_IJ).astype(np.float64))  # rising
    kept = np.flatnonzero(values_J > TOLERANCE * values_J[-1])[::-1][:dim]
    vectors_ID = basis_IJ @ turn_JJ[:, kept].astype(np.float32)
    largest_D = np.argmax(np.abs(vectors_ID), axis=0)
    vectors_ID *= np.sign(vectors_ID[largest_D, np.arange(vectors_ID.shape[1])])
    return np.ascontiguousarray(vectors_ID)


def _squared(rows: Graph, columns: Graph, values_IJ: FloatArray) -> FloatArray:
    """``R' R @ values``."""
    return columns.times(rows.times(values_IJ))


def _orthonormal(values_IJ: FloatArray) -> FloatArray:
    """A basis of the same span, by Cholesky twice: ten times as fast as Householder's on a tall matrix. By that where
    the columns hardly span anything."""
    try:
        for _ in range(2):
            gram_JJ = (values_IJ.T @ values_IJ).astype(np.float64)
            root_JJ = np.linalg.cholesky(gram_JJ)
            values_IJ = values_IJ @ np.linalg.inv(root_JJ).T.astype(np.float32)
    except np.linalg.LinAlgError:
        values_IJ = np.linalg.qr(values_IJ)[0]
    return np.ascontiguousarray(values_IJ)
