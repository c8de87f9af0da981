"""Implicit alternating least squares: matrix factorization over all user-item pairs, observed or not.

Sources: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008); the loss, the
frequency-scaled regularization and the initialization of Rendle, Krichene, Zhang, Koren, "Revisiting the Performance of
iALS on Item Recommendation Benchmarks" (RecSys 2022, arXiv 2110.14037). With S the observed pairs, w their weights:

    L(X, Y) =  sum over (u, i) in S of  w_ui (1 - x_u . y_i)^2
             + unobserved_weight * sum over all u, i of (x_u . y_i)^2
             + sum over u of lambda_u |x_u|^2 + sum over i of lambda_i |y_i|^2
    lambda_u = regularization * (|S_u| + unobserved_weight * num_items) ^ frequency_power      (likewise lambda_i)

Where we depart: each half step is exact, not by conjugate gradient. The opposite factors are first rotated into the
eigenvectors of their Gram matrix, which changes no score and makes the penalty of every row diagonal; a row of H events
then costs H^2 D + H^3 / 3 instead of D^3 / 3 + H D^2 whenever H < D, which on most data is nearly always.

Time per epoch: sum over rows of the above, plus (users + items) D^2. Memory: (2 users + 2 items) D floats and the
interactions in both orders. The fitted rows are what a fold-in of the same histories gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from recsys_ray.contracts import Counts, FitContext, FloatArray, Settings, TrainData
from recsys_ray.models.common import MemoryEstimate, history_matrix, require_finite
from recsys_ray.models.least_squares import solve_rows
from recsys_ray.models.scorers import FactorScorer, FoldIn

INIT_STD = 0.1  # of the expected length of a factor row, as in the paper: entries are N(0, INIT_STD / sqrt(D))


class ALSConfig(Settings):
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


def fit_als(data: TrainData, config: ALSConfig, context: FitContext) -> FactorScorer:
    """Fit on the training histories.

    Raises:
        ModelError: a rating is not positive under weighting = "rating", or the factors are not finite.
    """
    users_items = history_matrix("als", data, config.weighting)
    items_users = users_items.T.tocsr()
    std = INIT_STD / np.sqrt(config.embedding_dim)
    shape = (data.num_items, config.embedding_dim)
    items_ID = context.rng().standard_normal(shape, np.float32) * np.float32(std)
    for epoch in range(config.epochs):
        context.progress(f"als: epoch {epoch + 1}/{config.epochs}")
        users_UD = half_step(users_items, items_ID, config, context)[0]
        items_ID = half_step(items_users, users_UD, config, context)[0]
    # Stored rows answer for the final items, as a fold-in will.
    users_UD, items_ID, gram_D = half_step(users_items, items_ID, config, context)
    require_finite("als", "raise regularization", users_UD, items_ID)
    return FactorScorer(
        users_UD=users_UD,
        known_U=np.diff(users_items.indptr) > 0,
        items_ID=items_ID,
        trained_I=np.diff(items_users.indptr) > 0,
        fold_in=FoldIn(
            targets="ones",
            weighting=config.weighting,
            regularization=config.regularization,
            frequency_offset=config.unobserved_weight * data.num_items,
            frequency_power=config.frequency_power,
        ),
        penalty_D=np.float32(config.unobserved_weight) * gram_D,
    )


def half_step(
    rows: sp.csr_matrix, opposite_ND: FloatArray, config: ALSConfig, context: FitContext
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The exact minimum over all rows with the opposite factors held: (rows_RD, opposite_ND, gram_D).

    ``opposite_ND`` comes back rotated so that its Gram matrix is ``diag(gram_D)``; the rows belong to the rotated one.
    """
    rotated_ND, gram_D = rotate(opposite_ND)
    ridge_R = frequency_ridge(rows, config)
    penalty_D = np.float32(config.unobserved_weight) * gram_D
    blocks = _blocks(rows, ridge_R, context.num_blocks)
    parts = list(context.map_blocks(solve_block, blocks, shared=(rotated_ND, penalty_D), label="als"))
    rows_RD = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return rows_RD, rotated_ND, gram_D


def solve_block(block: tuple[Any, ...], shared: tuple[FloatArray, FloatArray]) -> FloatArray:
    """One block of rows (offsets_R1, columns_E, weights_E, ridge_R) against the shared (factors_ND, penalty_D)."""
    offsets_R1, columns_E, weights_E, ridge_R = block
    factors_ND, penalty_D = shared
    targets_E = np.ones(len(columns_E), np.float32)
    return solve_rows(offsets_R1, columns_E, weights_E, targets_E, factors_ND, penalty_D, ridge_R)


def rotate(factors_ND: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The factors in the eigenvectors of their Gram matrix, and its eigenvalues (D,)."""
    values_D, vectors_DD = np.linalg.eigh((factors_ND.T @ factors_ND).astype(np.float64))
    return factors_ND @ vectors_DD.astype(np.float32), np.maximum(values_D, 0).astype(np.float32)


def frequency_ridge(rows: sp.csr_matrix, config: ALSConfig) -> FloatArray:
    """(R,) the regularization of every row: lambda_u of the module's formula."""
    frequency_R = np.diff(rows.indptr) + config.unobserved_weight * rows.shape[1]
    ridge_R: FloatArray = (config.regularization * frequency_R**config.frequency_power).astype(np.float32)
    return ridge_R


def _blocks(rows: sp.csr_matrix, ridge_R: FloatArray, num_blocks: int) -> Iterator[tuple[Any, ...]]:
    """Contiguous row blocks of about equal work."""
    offsets = rows.indptr.astype(np.int64)
    work = offsets + np.arange(len(offsets))
    edges = np.searchsorted(work, np.linspace(0, work[-1], num_blocks + 1)[1:-1])
    for start, stop in zip([0, *edges], [*edges, rows.shape[0]], strict=True):
        events = slice(offsets[start], offsets[stop])
        yield (
            offsets[start : stop + 1] - offsets[start],
            rows.indices[events],
            rows.data[events],
            ridge_R[start:stop],
        )


def loss(users_items: sp.csr_matrix, users_UD: FloatArray, items_ID: FloatArray, config: ALSConfig) -> float:
    """L(X, Y) of the module's formula; ``users_items`` holds the weights of the observed pairs."""
    rows = np.repeat(np.arange(users_items.shape[0]), np.diff(users_items.indptr))
    total = 0.0
    for start in range(0, len(rows), 1 << 18):
        part = slice(start, start + (1 << 18))
        scores = np.einsum("ed,ed->e", users_UD[rows[part]], items_ID[users_items.indices[part]])
        total += float(np.sum(users_items.data[part] * (1.0 - scores.astype(np.float64)) ** 2))
    grams = [side.astype(np.float64).T @ side.astype(np.float64) for side in (users_UD, items_ID)]
    total += config.unobserved_weight * float(np.sum(grams[0] * grams[1]))
    for rows_, side in ((users_items, users_UD), (users_items.T.tocsr(), items_ID)):
        total += float(frequency_ridge(rows_, config).astype(np.float64) @ np.sum(side.astype(np.float64) ** 2, axis=1))
    return total


def als_memory(counts: Counts, config: ALSConfig) -> MemoryEstimate:
    factors = 2 * (counts.num_users + counts.num_items) * config.embedding_dim * 4
    return MemoryEstimate(factors + 24 * counts.num_interactions, "lower model.embedding_dim")
