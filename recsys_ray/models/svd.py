"""Biased matrix factorization of ratings, by stochastic gradient descent. Scores are in rating units.

Sources: Funk (2006); Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems" (Computer 2009).

    r_ui ~ mean + b_u + b_i + p_u . q_i
    minimize sum over the ratings of (r_ui - prediction)^2 + regularization (b_u^2 + b_i^2 + |p_u|^2 + |q_i|^2)

Each epoch visits all ratings once, in an order drawn from the seed. A user the fit hasn't seen gets (p_u, b_u) as the
exact minimum of the same loss given the items.
Time: O(ratings * D) per epoch on one core, because the steps depend on each other. Memory: (users + items) D floats.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from recsys_ray.base.errors import ModelError
from recsys_ray.base.kernels import njit
from recsys_ray.base.progress import Step
from recsys_ray.base.types import (
    BoolArray,
    Counts,
    FitContext,
    FloatArray,
    Histories,
    MemoryEstimate,
    Scorer,
    TrainData,
)
from recsys_ray.models.base import Model, require_finite
from recsys_ray.models.linalg.sparse import read_only
from recsys_ray.models.scorers.factor import FactorScorer, FoldIn


class SVD(Model):
    """Biased matrix factorization of ratings: it predicts what a user would rate."""

    key: ClassVar[str] = "svd"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (FactorScorer,)
    predicts_ratings: ClassVar[bool] = True

    embedding_dim: int = Field(default=100, ge=1)
    """D, the length of p_u and q_i."""
    epochs: int = Field(default=100, ge=1)
    """Passes over all ratings."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Step length."""
    regularization: float = Field(default=0.1, gt=0)
    """lambda, for biases and factors alike."""
    init_std: float = Field(default=0.1, ge=0)
    """Standard deviation of the factors at the start."""

    def fit_scorer(self, data: TrainData, context: FitContext) -> FactorScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a rating is not finite, all are the same, or the descent diverged.
        """
        histories = data.histories
        ratings_E = histories.ratings_E
        require_ratings("svd", histories)
        rng = context.rng()
        mean = float(ratings_E.mean(dtype=np.float64))
        counts_I = data.item_counts()
        users_UD = start_factors(rng, histories.lengths_B > 0, self.embedding_dim, self.init_std)
        items_ID = start_factors(rng, counts_I > 0, self.embedding_dim, self.init_std)
        # The last column carries the biases: b_u faces a 1 of the item, b_i is kept apart.
        users_UD[:, -1] = 0
        items_ID[:, -1] = 1
        bias_I = np.zeros(data.num_items, np.float32)
        rows_E = histories.rows_E
        for epoch in range(self.epochs):
            order_E = rng.permutation(len(ratings_E))
            error = descend(
                *read_only(order_E, rows_E, histories.items_E, ratings_E),
                np.float32(mean),
                users_UD,
                items_ID,
                bias_I,
                np.float32(self.learning_rate),
                np.float32(self.regularization),
            )
            context.progress(Step("svd: epoch", epoch + 1, self.epochs, f", training RMSE {np.sqrt(error):.4f}"))
        require_finite("svd", "lower learning_rate", users_UD, items_ID, bias_I)
        return FactorScorer(
            users_UD=users_UD,
            known_U=histories.lengths_B > 0,
            items_ID=items_ID,
            trained_I=counts_I > 0,
            fold_in=FoldIn(
                targets="residuals",
                weighting="binary",
                regularization=self.regularization,
                frequency_offset=0.0,
                frequency_power=1.0,
            ),
            penalty_D=np.zeros(self.embedding_dim + 1, np.float32),
            bias_I=bias_I + np.float32(mean),
        )

    def memory(self, counts: Counts) -> MemoryEstimate:
        factors = (counts.num_users + counts.num_items) * (self.embedding_dim + 1) * 4
        return MemoryEstimate(factors + 12 * counts.num_interactions, "lower model.embedding_dim")


def require_ratings(model: str, histories: Histories) -> None:
    """ModelError when ratings are not finite, or do not differ."""
    ratings_E = histories.ratings_E
    if not np.isfinite(ratings_E).all():
        raise ModelError(f"{model}: a rating is {ratings_E[~np.isfinite(ratings_E)][0]}; drop such rows from the input")
    if not len(ratings_E) or ratings_E.min() == ratings_E.max():
        raise ModelError(
            f"{model}: needs ratings that differ, and all are the same; for implicit data choose als, pure_svd or ease"
        )


def start_factors(rng: np.random.Generator, has_ratings: BoolArray, dim: int, init_std: float) -> FloatArray:
    """(rows, D + 1) random factors; zero for rows that no rating will move."""
    factors = rng.standard_normal((len(has_ratings), dim + 1), np.float32)
    factors *= np.float32(init_std)
    factors[~has_ratings] = 0
    return factors


@njit(cache=True, fastmath={"contract", "reassoc"})
def descend(  # type: ignore[no-untyped-def]
    order_E, users_E, items_E, ratings_E, mean, users_UD, items_ID, bias_I, learning_rate, regularization
):
    """One pass in the given order; returns the mean squared error met on the way."""
    dim = users_UD.shape[1] - 1
    total = 0.0
    for e in order_E:
        p, q, item = users_UD[users_E[e]], items_ID[items_E[e]], items_E[e]
        product = np.float32(0)
        for d in range(dim):
            product += p[d] * q[d]
        error = ratings_E[e] - (mean + p[dim] + bias_I[item] + product)
        p[dim] += learning_rate * (error - regularization * p[dim])
        bias_I[item] += learning_rate * (error - regularization * bias_I[item])
        for d in range(dim):
            before = p[d]
            p[d] += learning_rate * (error * q[d] - regularization * before)
            q[d] += learning_rate * (error * before - regularization * q[d])
        total += error * error
    return total / len(order_E)
