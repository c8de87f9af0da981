"""EASE: the item-item matrix that predicts every item of a history from the others by ridge regression, in closed form.

Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019). With X the interactions (U, I):

    minimize |X - X B|^2 + sum of lambda_i |B_i.|^2   subject to diag(B) = 0
    P = (X' X + diag(lambda))^-1,    B_ij = -P_ij / P_jj,    B_jj = 0

and the scores are X B, not X B': column j of B is the regression of item j on the others. lambda_i is
``regularization * (n_i / mean of n)^regularization_power`` with n the diagonal of X'X; power 0 is the paper's.

With ``dropout`` the inputs are dropped with probability p = 1 - q while the outputs stay, which is worked out, not
drawn (Steck, "Autoencoders that don't overfit towards the Identity", NeurIPS 2020): n_i p / q comes to lambda_i, and a
factor 1 / q of all scores is left out. There the loss is taken where an output's own input was dropped; with
``kept_share`` a share w of it falls on outputs whose input was kept (Guo et al., "Generalizing Linear Autoencoder
Recommenders with Decoupled Expected Quadratic Loss", ICLR 2026; in their a and b, w = q b^2 / (p a^2 + q b^2)). The
diagonal is then free, and every column of B is that of w = 0 times a number, so that one inverse does:

    g_j = n_j + p/q n_j + lambda_j - 1 / P_jj,    d_j = w (n_j - g_j) / (w n_j + q^2 lambda_j - w^2 g_j)
    B_ij = -(1 - w d_j) P_ij / P_jj,    B_jj = q d_j

With ``features`` a second B, fitted on what items are instead of who touched them (features in place of users), is
added with a weight: add-EASE (Jeunen, Van Balen, Goethals, "Closed-Form Models for Collaborative Filtering with
Side-Information", RecSys 2020). It also knows items that nobody has touched.
Time: one addition per pair of items in a user's history, and I^3 multiply-adds of the inverse, as matrix products.
Memory: one I x I float32 array, in which Gram matrix, inverse and B follow each other, and a few of its rows; two with
features.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from recsys_ray.base.errors import ModelError
from recsys_ray.base.kernels import njit, prange
from recsys_ray.base.progress import Step
from recsys_ray.base.types import Counts, FitContext, FloatArray, ItemContent, MemoryEstimate, Scorer, TrainData
from recsys_ray.models.base import Model, history_matrix, require_finite
from recsys_ray.models.content import attribute_vectors
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
    regularization_power: float = Field(default=0.0, ge=-1, le=1)
    """Popular items are regularized more, by their interactions to this power, or less below 0; 0: all alike."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the inputs that are thought dropped, so that an item is not explained by too few others."""
    kept_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the loss on outputs whose own input was kept; 0 takes it where the input was dropped, and so forbids the
    diagonal."""
    weighting: Literal["binary", "rating"] = "binary"
    """The value of an interaction in X: 1, or its rating (which must be positive)."""
    features: Literal["none", "attributes", "content"] = "none"
    """What a second matrix is fitted on: genres and decades of the catalogue, or vectors of texts and posters."""
    features_weight: float = Field(default=0.1, gt=0)
    """What the second matrix counts beside 1 for the first; only with features."""
    features_regularization: float = Field(default=10.0, gt=0)
    """lambda of the second matrix, whose Gram matrix has ones on the diagonal; only with features."""

    @model_validator(mode="after")
    def _used(self) -> EASE:
        if self.features == "none":
            for name in ("features_weight", "features_regularization"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} has no effect without features; set features or unset it")
        return self

    @property
    def needs_content(self) -> bool:
        return self.features == "content"

    def fit_scorer(self, data: TrainData, context: FitContext) -> LinearScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a rating is not positive under weighting = "rating", the Gram matrix can't be inverted, or there
                are no features.
        """
        users_items = history_matrix("ease", data, self.weighting)
        left, right = scaled(users_items.T.tocsr()), scaled(users_items)
        features = self._features(data)
        context.progress(Step(f"ease: Gram matrix of {data.num_items} items"))
        weights_II = np.zeros((data.num_items, data.num_items), np.float32)
        add_sparse_rows(left, right, weights_II)
        self._solve(weights_II, context)
        known_I = np.diff(left.offsets) > 0
        if features is not None:
            context.progress(f"ease: Gram matrix of the features of {data.num_items} items")
            others_II: FloatArray = features.vectors_ID @ features.vectors_ID.T
            plain = EASE(regularization=self.features_regularization)
            plain._solve(others_II, context)
            others_II *= np.float32(self.features_weight)
            weights_II += others_II
            known_I |= features.present_I
        return LinearScorer(weights=weights_II, trained_I=known_I, weighting=self.weighting)

    def memory(self, counts: Counts) -> MemoryEstimate:
        size = (1 if self.features == "none" else 2) * 4 * counts.num_items**2
        panels = 4 * 4 * counts.num_items * BLOCK
        return MemoryEstimate(
            size + panels + 32 * counts.num_interactions,
            "drop rare items with data filters, or choose the model graph_filter with neighbors, item_cf or als",
        )

    def _features(self, data: TrainData) -> ItemContent | None:
        if self.features == "attributes":
            return attribute_vectors(data.items, "ease")
        if self.features == "content" and data.content is None:
            raise ModelError("ease: features = content needs item vectors; add a section content")
        return data.content if self.features == "content" else None

    def _solve(self, gram_II: FloatArray, context: FitContext) -> None:
        """A Gram matrix becomes B, in place."""
        counts_I = np.diagonal(gram_II).astype(np.float64)
        some_I = counts_I > 0
        shares_I = np.where(some_I, counts_I, 1) / (counts_I[some_I].mean() if some_I.any() else 1)
        ridge_I = self.regularization * shares_I**self.regularization_power
        kept = 1 - self.dropout
        whole_I = counts_I / kept + ridge_I
        gram_II[np.diag_indices_from(gram_II)] = whole_I
        sweep(gram_II, context)
        diagonal_I = np.diagonal(gram_II).copy()
        require_finite("ease", "raise regularization", diagonal_I)
        with threads_for(gram_II.size):
            _finish(gram_II, diagonal_I)
        if self.kept_share:
            w, explained_I = self.kept_share, whole_I + 1 / diagonal_I.astype(np.float64)
            own_I = w * (counts_I - explained_I) / (w * counts_I + kept**2 * ridge_I - w**2 * explained_I)
            gram_II *= (1 - w * own_I).astype(np.float32)
            gram_II[np.diag_indices_from(gram_II)] = kept * own_I


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
        context.progress(Step("ease: inverse, row", first, size))
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
