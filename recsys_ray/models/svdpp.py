"""SVD++: biased matrix factorization in which a user is also what the user has rated. Scores are in rating units.

Source: Koren, "Factorization Meets the Neighborhood" (KDD 2008). With N_u the items that u has rated:

    r_ui ~ mean + b_u + b_i + q_i . z_u,   z_u = p_u + |N_u|^-1/2 sum over j in N_u of y_j
    minimize sum over the ratings of (r_ui - prediction)^2
             + bias_regularization (b_u^2 + b_i^2) + regularization (|p_u|^2 + |q_i|^2)
    + sum over u, j in N_u of implicit_regularization |y_j|^2

by stochastic gradient descent, the step growing shorter from epoch to epoch. Where we depart: all ratings of a user are
visited in a row, and the y_j, which all of them share, move once, by the sum of their gradients; a rating then costs
O(D) instead of O(|N_u| D). A user the fit hasn't seen has the sum of the y_j of the history, and (p_u, b_u) as the
exact minimum of the same loss given all else: known and new users are answered by one formula.
Time: O((ratings + sum of |N_u|) D) per epoch on one core. Memory: (users + 2 items) D floats.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from recsys_ray.base.kernels import njit
from recsys_ray.base.progress import Step
from recsys_ray.base.types import Counts, FitContext, MemoryEstimate, Scorer, TrainData
from recsys_ray.models.base import Model, require_finite
from recsys_ray.models.linalg.sparse import read_only
from recsys_ray.models.scorers.factor import FoldIn
from recsys_ray.models.scorers.implicit_factor import ImplicitFactorScorer, implicit_sums
from recsys_ray.models.svd import require_ratings, start_factors


class SVDpp(Model):
    """Biased matrix factorization with implicit feedback (Koren 2008): it predicts what a user would rate."""

    key: ClassVar[str] = "svdpp"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (ImplicitFactorScorer,)
    predicts_ratings: ClassVar[bool] = True

    embedding_dim: int = Field(default=128, ge=1)
    """D, the length of p_u, q_i and y_j."""
    epochs: int = Field(default=60, ge=1)
    """Passes over all ratings."""
    learning_rate: float = Field(default=0.007, gt=0)
    """Step length of the first epoch."""
    decay: float = Field(default=0.98, gt=0, le=1)
    """Every epoch's step length is this much of the one before."""
    regularization: float = Field(default=0.12, gt=0)
    """Penalty of the factors p and q."""
    implicit_regularization: float = Field(default=1.0, gt=0)
    """Penalty of the factors y."""
    bias_regularization: float = Field(default=0.1, gt=0)
    """Penalty of the biases."""
    init_std: float = Field(default=0.06, ge=0)
    """Standard deviation of p and q at the start; y starts at 0."""

    def fit_scorer(self, data: TrainData, context: FitContext) -> ImplicitFactorScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a rating is not finite, all are the same, or the descent diverged.
        """
        histories, dim = data.histories, self.embedding_dim
        require_ratings("svdpp", histories)
        rng, counts_I = context.rng(), data.item_counts()
        mean = float(histories.ratings_E.mean(dtype=np.float64))
        users_UD = start_factors(rng, histories.lengths_B > 0, dim, self.init_std)
        items_ID = start_factors(rng, counts_I > 0, dim, self.init_std)
        # As in SVD the last column carries b_u, which faces a 1 of the item.
        users_UD[:, -1], items_ID[:, -1] = 0, 1
        implicit_ID = np.zeros((data.num_items, dim), np.float32)
        bias_I = np.zeros(data.num_items, np.float32)
        rate = self.learning_rate
        for epoch in range(self.epochs):
            error = descend(
                rng.permutation(len(histories)),
                *read_only(histories.offsets_B1, histories.items_E, histories.ratings_E),
                np.float32(mean),
                users_UD,
                items_ID,
                implicit_ID,
                bias_I,
                np.float32(rate),
                np.float32(self.regularization),
                np.float32(self.implicit_regularization),
                np.float32(self.bias_regularization),
            )
            rate *= self.decay
            context.progress(Step("svdpp: epoch", epoch + 1, self.epochs, f", training RMSE {np.sqrt(error):.4f}"))
        require_finite("svdpp", "lower learning_rate", users_UD, items_ID, implicit_ID, bias_I)
        users_UD[:, :-1] += implicit_sums(histories, implicit_ID)
        return ImplicitFactorScorer(
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
            penalty_D=np.zeros(dim + 1, np.float32),
            bias_I=bias_I + np.float32(mean),
            implicit_ID=implicit_ID,
        )

    def memory(self, counts: Counts) -> MemoryEstimate:
        factors = (counts.num_users + 2 * counts.num_items) * (self.embedding_dim + 1) * 4
        return MemoryEstimate(factors + 12 * counts.num_interactions, "lower model.embedding_dim")


@njit(cache=True, fastmath={"contract", "reassoc"})
def descend(  # type: ignore[no-untyped-def]
    order_U,
    offsets_U1,
    items_E,
    ratings_E,
    mean,
    users_UD,
    items_ID,
    implicit_ID,
    bias_I,
    rate,
    penalty,
    implicit_penalty,
    bias_penalty,
):
    """One pass over all users in the given order; returns the mean squared error met on the way."""
    dim = implicit_ID.shape[1]
    sum_D, moved_D = np.empty(dim, np.float32), np.empty(dim, np.float32)
    total = 0.0
    for u in order_U:
        first, last = offsets_U1[u], offsets_U1[u + 1]
        if first == last:
            continue
        share = np.float32(1) / np.sqrt(np.float32(last - first))
        sum_D[:] = 0
        moved_D[:] = 0
        for e in range(first, last):
            y = implicit_ID[items_E[e]]
            for d in range(dim):
                sum_D[d] += share * y[d]
        p = users_UD[u]
        for e in range(first, last):
            item = items_E[e]
            q = items_ID[item]
            product = np.float32(0)
            for d in range(dim):
                product += (p[d] + sum_D[d]) * q[d]
            error = ratings_E[e] - (mean + p[dim] + bias_I[item] + product)
            p[dim] += rate * (error - bias_penalty * p[dim])
            bias_I[item] += rate * (error - bias_penalty * bias_I[item])
            for d in range(dim):
                before = p[d]
                moved_D[d] += error * q[d]
                p[d] += rate * (error * q[d] - penalty * before)
                q[d] += rate * (error * (before + sum_D[d]) - penalty * q[d])
            total += error * error
        for e in range(first, last):
            y = implicit_ID[items_E[e]]
            for d in range(dim):
                y[d] += rate * (share * moved_D[d] - implicit_penalty * y[d])
    return total / len(ratings_E)
