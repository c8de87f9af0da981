"""The losses of two towers over one batch.

Shape suffixes: Q queries of this worker, P targets of all workers, M shared negatives, D dimension, I items.
"""

from __future__ import annotations

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
    info_nce,
    log_expected,
    sampled_softmax,
)

if TYPE_CHECKING:
    from recsys_ray.models.two_tower.config import TwoTowerConfig


@dataclass(frozen=True, slots=True)
class Compared:
    """What a loss looks at. Under cosine similarity all vectors are of length 1."""

    queries_QD: Tensor
    own_Q: Tensor
    """The target of each query, by its place among all targets."""
    targets_PD: Tensor
    items_P: Tensor
    users_P: Tensor
    ratings_P: Tensor
    """Standardised; read by losses on ratings alone."""
    negatives_MD: Tensor
    items_M: Tensor
    expected_M: Tensor | None
    """Log of how often each negative was to be expected."""


def objective(compared: Compared, config: TwoTowerConfig, counts_I: Tensor, rating_line: Tensor | None) -> Tensor:
    """The mean loss over the queries. ``rating_line`` are slope and intercept from a similarity to a rating."""
    if config.loss == "info_nce":
        return _in_batch(compared, config, counts_I)
    scaled = config.similarity == "cosine" and config.loss != "cosine_contrastive"
    queries_QD = compared.queries_QD / (config.temperature if scaled else 1.0)
    positive_Q = (queries_QD * compared.targets_PD[compared.own_Q]).sum(dim=1)
    if config.loss == "mse":
        return _rating_error(positive_Q, compared, rating_line)
    negative_QM = queries_QD @ compared.negatives_MD.T
    same_QM = compared.items_M == compared.items_P[compared.own_Q, None]
    if config.loss == "sampled_softmax":
        expected_M = compared.expected_M if config.correct_popularity else None
        return sampled_softmax(positive_Q, negative_QM, expected_M, same_QM)
    negative_QM = negative_QM.masked_fill(same_QM, HIDDEN)
    if config.loss == "cosine_contrastive":
        return cosine_contrastive(positive_Q, negative_QM, config.margin, config.negative_weight)
    if config.loss == "bce":
        return binary_cross_entropy(positive_Q, negative_QM)
    ranking = bpr(positive_Q, negative_QM)
    if config.loss == "bpr":
        return ranking
    share = config.mse_share
    return share * _rating_error(positive_Q, compared, rating_line) + (1 - share) * ranking


def _in_batch(compared: Compared, config: TwoTowerConfig, counts_I: Tensor) -> Tensor:
    """InfoNCE against the targets of all others; what the query's own user has is no negative."""
    items_P, users_P, own_Q = compared.items_P, compared.users_P, compared.own_Q
    hidden_QP = (items_P == items_P[own_Q, None]) | (users_P == users_P[own_Q, None])
    hidden_QP = hidden_QP.scatter(1, own_Q[:, None], False)
    expected_P = log_expected(counts_I[items_P] / counts_I.sum(), len(items_P)) if config.correct_popularity else None
    return info_nce(compared.queries_QD, compared.targets_PD, config.temperature, own_Q, hidden_QP, expected_P)


def _rating_error(similarity_Q: Tensor, compared: Compared, rating_line: Tensor | None) -> Tensor:
    assert rating_line is not None
    predicted_Q = torch.addcmul(rating_line[1], rating_line[0], similarity_Q)
    return functional.mse_loss(predicted_Q, compared.ratings_P[compared.own_Q])
