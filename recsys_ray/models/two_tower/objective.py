"""The losses of two towers over one batch.

P are the targets of all workers, R the queries of this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from recsys_ray.training.losses import (
    HIDDEN,
    binary_cross_entropy,
    bpr,
    cosine_contrastive,
    direct_au,
    hardest,
    info_nce,
    log_expected,
    ranking_softmax,
)

if TYPE_CHECKING:
    from recsys_ray.models.two_tower.config import TwoTowerConfig


@dataclass(frozen=True, slots=True)
class Compared:
    """What a loss looks at. Under cosine similarity all vectors are of length 1."""

    queries_RD: Tensor
    own_R: Tensor
    """The target of each query, by its place among all targets."""
    targets_PD: Tensor
    items_P: Tensor
    users_P: Tensor
    ratings_P: Tensor
    """Standardised; read by losses on ratings alone."""
    negatives_MD: Tensor
    items_M: Tensor
    mine_RM: Tensor | None
    """Which negatives the query's user has, where the hardest of the others are to be chosen."""
    expected_M: Tensor | None
    """Log of how often each negative was to be expected."""


def objective(
    compared: Compared,
    config: TwoTowerConfig,
    counts_I: Tensor,
    rating_line: Tensor | None,
    gather: Callable[[Tensor], Tensor],
) -> Tensor:
    """The mean loss over the queries. ``rating_line`` are slope and intercept from a similarity to a rating; ``gather``
    gives the rows of all workers."""
    if config.loss == "info_nce":
        return _in_batch(compared, config, counts_I)
    if config.loss == "direct_au":
        targets_RD = compared.targets_PD[compared.own_R]
        return direct_au(compared.queries_RD, targets_RD, config.uniformity_weight, gather)
    scaled = config.similarity == "cosine" and config.loss != "cosine_contrastive"
    queries_RD = compared.queries_RD / (config.temperature if scaled else 1.0)
    positive_R = (queries_RD * compared.targets_PD[compared.own_R]).sum(dim=1)
    if config.loss == "mse":
        return _rating_error(positive_R, compared, rating_line)
    negative_RM = queries_RD @ compared.negatives_MD.T
    if compared.mine_RM is not None:
        negative_RM = hardest(negative_RM, config.negatives, compared.mine_RM)
        same_RM, expected_M = torch.zeros_like(negative_RM, dtype=torch.bool), None
    else:
        same_RM = compared.items_M == compared.items_P[compared.own_R, None]
        expected_M = compared.expected_M if config.correct_popularity else None
    negative_RM = negative_RM.masked_fill(same_RM, HIDDEN)
    if config.loss == "cosine_contrastive":
        return cosine_contrastive(positive_R, negative_RM, config.margin, config.negative_weight)
    if config.loss == "bce":
        return binary_cross_entropy(positive_R, negative_RM)
    if config.loss not in ("bpr", "mse_bpr"):
        corrected_RM = negative_RM if expected_M is None else negative_RM - expected_M
        users_R = compared.users_P[compared.own_R]
        return ranking_softmax(positive_R, corrected_RM, users_R, len(counts_I), config)
    ranking = bpr(positive_R, negative_RM)
    if config.loss == "bpr":
        return ranking
    share = config.mse_share
    return share * _rating_error(positive_R, compared, rating_line) + (1 - share) * ranking


def _in_batch(compared: Compared, config: TwoTowerConfig, counts_I: Tensor) -> Tensor:
    """InfoNCE against the targets of all others; what the query's own user has is no negative."""
    items_P, users_P, own_R = compared.items_P, compared.users_P, compared.own_R
    hidden_RP = (items_P == items_P[own_R, None]) | (users_P == users_P[own_R, None])
    hidden_RP = hidden_RP.scatter(1, own_R[:, None], False)
    expected_P = log_expected(counts_I[items_P] / counts_I.sum(), len(items_P)) if config.correct_popularity else None
    return info_nce(compared.queries_RD, compared.targets_PD, config.temperature, own_R, hidden_RP, expected_P)


def _rating_error(similarity_R: Tensor, compared: Compared, rating_line: Tensor | None) -> Tensor:
    assert rating_line is not None
    predicted_R = torch.addcmul(rating_line[1], rating_line[0], similarity_R)
    return functional.mse_loss(predicted_R, compared.ratings_P[compared.own_R])
