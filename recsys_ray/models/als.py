"""Implicit alternating least squares: matrix factorization over all user-item pairs, observed or not.

Sources: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008); the loss, the
frequency-scaled regularization and the initialization of Rendle, Krichene, Zhang, Koren, "Revisiting the Performance of
iALS on Item Recommendation Benchmarks" (RecSys 2022, arXiv 2110.14037); zeros that weigh by popularity, of He et al.,
"Fast Matrix Factorization for Online Recommendation with Implicit Feedback" (SIGIR 2016). With S the observed pairs, w
their weights, n_i the users of item i and c_i = max(n_i, 1)^popularity_power, scaled to a mean of 1:

    L(X, Y) =  sum over (u, i) in S of  w_ui (1 - x_u . y_i)^2
             + unobserved_weight * sum over all u, i of  c_i (x_u . y_i)^2
             + sum over u of lambda_u |x_u|^2 + sum over i of lambda_i |y_i|^2
    lambda_u = regularization * (|S_u| + unobserved_weight * num_items) ^ frequency_power
    lambda_i = regularization * (|S_i| + unobserved_weight * c_i * num_users) ^ frequency_power

The rows of a half step start from those of the epoch before and are improved by a few conjugate gradients, as in
Takács, Pilászy, Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback Collaborative Filtering"
(RecSys 2011); the last ones of a fit are solved exactly. Where we depart: the opposite factors are first rotated into
the eigenvectors of their Gram matrix, which changes no score and makes the penalty of every row diagonal. A row of H
events then costs about 10 H D multiply-adds, and an exact one H^2 D + H^3 / 3 instead of D^3 / 3 + H D^2 when H < D.

Time per epoch: sum over rows of the above, plus 3 (users + items) D^2. Memory: 3 (users + items) D floats at most
and the interactions in both orders. The fitted rows are what a fold-in of the same histories gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from recsys_ray.base.progress import Step
from recsys_ray.base.types import Counts, FitContext, FloatArray, MemoryEstimate, Scorer, TrainData
from recsys_ray.models.base import Model, history_matrix, require_finite
from recsys_ray.models.linalg.conjugate_gradient import improve_rows
from recsys_ray.models.linalg.least_squares import principal_axes, rotate, solve_rows
from recsys_ray.models.scorers.factor import FactorScorer, FoldIn

if TYPE_CHECKING:
    import scipy.sparse as sp

INIT_STD = 0.1  # of the expected length of a factor row, as in the paper: entries are N(0, INIT_STD / sqrt(D))


class ALS(Model):
    """Implicit alternating least squares: matrix factorization over all user-item pairs (Hu, Koren, Volinsky 2008)."""

    key: ClassVar[str] = "als"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (FactorScorer,)

    embedding_dim: int = Field(64, ge=1)
    """D, the length of a user's and an item's vector."""
    epochs: int = Field(16, ge=1)
    """Rounds of solving all users, then all items."""
    regularization: float = Field(0.003, gt=0)
    """lambda, before it is scaled by the frequency."""
    unobserved_weight: float = Field(0.1, gt=0)
    """alpha0, the weight of a zero at every pair, relative to an observed one."""
    frequency_power: float = Field(1.0, ge=0)
    """nu: 1 regularizes rows in proportion to how much is known of them, 0 all alike."""
    weighting: Literal["binary", "rating"] = "binary"
    """The weight of an observed pair: 1, or its rating (which must be positive)."""
    popularity_power: float = Field(default=0.0, ge=0)
    """beta: with 0 the zeros of all items weigh the same, above it not to have touched a popular item says more."""

    def fit_scorer(self, data: TrainData, context: FitContext) -> FactorScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a rating is not positive under weighting = "rating", or the factors are not finite.
        """
        user_side, item_side = sides(history_matrix("als", data, self.weighting), self)
        std = INIT_STD / np.sqrt(self.embedding_dim)
        shape = (data.num_items, self.embedding_dim)
        items_ID = context.rng().standard_normal(shape, np.float32) * np.float32(std)
        users_UD = np.zeros((data.num_users, self.embedding_dim), np.float32)
        for epoch in range(1, self.epochs + 1):
            context.progress(Step("als: epoch", epoch, self.epochs))
            users_UD, items_ID, _ = half_step(user_side, items_ID, self, context, start_RD=users_UD)
            start_ID = items_ID if epoch < self.epochs else None
            items_ID, users_UD, _ = half_step(item_side, users_UD, self, context, start_RD=start_ID)
        # Stored rows answer for the final items, as a fold-in will.
        users_UD, items_ID, gram_D = half_step(user_side, items_ID, self, context)
        require_finite("als", "raise regularization", users_UD, items_ID)
        return FactorScorer(
            users_UD=users_UD,
            known_U=np.diff(user_side.pairs.indptr) > 0,
            items_ID=items_ID,
            trained_I=np.diff(item_side.pairs.indptr) > 0,
            fold_in=FoldIn(
                targets="ones",
                weighting=self.weighting,
                regularization=self.regularization,
                frequency_offset=self.unobserved_weight * data.num_items,
                frequency_power=self.frequency_power,
            ),
            penalty_D=np.float32(self.unobserved_weight) * gram_D,
        )

    def memory(self, counts: Counts) -> MemoryEstimate:
        factors = 3 * (counts.num_users + counts.num_items) * self.embedding_dim * 4
        return MemoryEstimate(factors + 24 * counts.num_interactions, "lower model.embedding_dim")


@dataclass(frozen=True, slots=True)
class Side:
    """One half of the problem: R rows to solve for, against N columns."""

    pairs: sp.csr_matrix
    """(R, N) the weights of the observed pairs."""
    zeros_R: FloatArray
    """How much the zeros of a row weigh, 1 on average."""
    zeros_N: FloatArray
    """How much those of a column weigh, likewise; a pair's is the product."""


def sides(users_items: sp.csr_matrix, config: ALS) -> tuple[Side, Side]:
    """The side that solves for users, and the one that solves for items."""
    items_users = users_items.T.tocsr()
    popularity_I = np.maximum(np.diff(items_users.indptr), 1).astype(np.float64) ** config.popularity_power
    zeros_I = (popularity_I / popularity_I.mean()).astype(np.float32)
    zeros_U = np.ones(users_items.shape[0], np.float32)
    return Side(users_items, zeros_U, zeros_I), Side(items_users, zeros_I, zeros_U)


def half_step(
    side: Side, opposite_ND: FloatArray, config: ALS, context: FitContext, start_RD: FloatArray | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """New rows, with the opposite factors held: (rows_RD, opposite_ND, gram_D).

    Without ``start_RD`` they are the exact minimum of the loss; with it, which must be in the same axes as
    ``opposite_ND``, they are improved from there. ``opposite_ND`` comes back rotated so that its Gram matrix, weighted
    by ``zeros_N``, is ``diag(gram_D)``; the new rows belong to the rotated one.
    """
    axes_DD, gram_D = principal_axes(opposite_ND, side.zeros_N)
    rotated_ND = rotate(opposite_ND, axes_DD)
    penalty_D = np.float32(config.unobserved_weight) * gram_D
    if start_RD is not None:
        start_RD = rotate(start_RD, axes_DD)
    blocks = _blocks(side, frequency_ridge(side, config), start_RD, context.num_blocks)
    parts = list(context.map_blocks(solve_block, blocks, shared=(rotated_ND, penalty_D), label="als"))
    rows_RD = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return rows_RD, rotated_ND, gram_D


def solve_block(block: tuple[Any, ...], shared: tuple[FloatArray, FloatArray]) -> FloatArray:
    """The rows of one block of ``_blocks`` against the shared (factors_ND, penalty_D)."""
    offsets_R1, columns_E, weights_E, ridge_R, start_RD = block
    factors_ND, penalty_D = shared
    problem = (offsets_R1, columns_E, weights_E, np.ones(len(columns_E), np.float32), factors_ND, penalty_D, ridge_R)
    return solve_rows(*problem) if start_RD is None else improve_rows(*problem, start_RD)


def frequency_ridge(side: Side, config: ALS) -> FloatArray:
    """(R,) the regularization of every row: lambda of the module's formula."""
    zeros_R = side.zeros_R.astype(np.float64) * side.pairs.shape[1]
    frequency_R = np.diff(side.pairs.indptr) + config.unobserved_weight * zeros_R
    ridge_R: FloatArray = (config.regularization * frequency_R**config.frequency_power).astype(np.float32)
    return ridge_R


def _blocks(side: Side, ridge_R: FloatArray, start_RD: FloatArray | None, num_blocks: int) -> Iterator[tuple[Any, ...]]:
    """Contiguous row blocks of about equal work."""
    offsets = side.pairs.indptr.astype(np.int64)
    work = offsets + np.arange(len(offsets))
    edges = np.searchsorted(work, np.linspace(0, work[-1], num_blocks + 1)[1:-1])
    for start, stop in zip([0, *edges], [*edges, len(ridge_R)], strict=True):
        events = slice(offsets[start], offsets[stop])
        zeros_R = side.zeros_R[start:stop]
        # Divided by what its zeros weigh, a row has the same penalty as all others, which is what ``shared`` holds.
        yield (
            offsets[start : stop + 1] - offsets[start],
            side.pairs.indices[events],
            side.pairs.data[events] / np.repeat(zeros_R, np.diff(offsets[start : stop + 1])),
            ridge_R[start:stop] / zeros_R,
            None if start_RD is None else start_RD[start:stop],
        )


def loss(user_side: Side, users_UD: FloatArray, items_ID: FloatArray, config: ALS) -> float:
    """L(X, Y) of the module's formula."""
    pairs = user_side.pairs
    rows = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
    total = 0.0
    for start in range(0, len(rows), 1 << 18):
        part = slice(start, start + (1 << 18))
        scores = np.einsum("ed,ed->e", users_UD[rows[part]], items_ID[pairs.indices[part]])
        total += float(np.sum(pairs.data[part] * (1.0 - scores.astype(np.float64)) ** 2))
    users, items = users_UD.astype(np.float64), items_ID.astype(np.float64)
    total += config.unobserved_weight * float(
        np.sum((users.T @ users) * (items.T @ (user_side.zeros_N[:, None] * items)))
    )
    item_side = Side(pairs.T.tocsr(), user_side.zeros_N, user_side.zeros_R)
    for side, factors in ((user_side, users), (item_side, items)):
        total += float(frequency_ridge(side, config).astype(np.float64) @ np.sum(factors**2, axis=1))
    return total
