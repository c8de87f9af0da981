"""Ranking losses over one positive and M negatives a row; every one returns the mean over rows, lower is better."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

HIDDEN = float("-inf")


def bpr(positive_B: Tensor, negative_BM: Tensor) -> Tensor:
    """Bayesian personalized ranking (Rendle et al., UAI 2009): -log sigmoid(positive - negative)."""
    return functional.softplus(negative_BM - positive_B[:, None]).mean()


def binary_cross_entropy(positive_B: Tensor, negative_BM: Tensor) -> Tensor:
    """The positive towards 1, every negative towards 0, summed over the row (Kang and McAuley 2018, with M = 1)."""
    return (functional.softplus(-positive_B) + functional.softplus(negative_BM).sum(dim=1)).mean()


def generalized_bce(positive_B: Tensor, negative_BM: Tensor, sampling_rate: float, calibration: float) -> Tensor:
    """gBCE (Petrov and Macdonald, RecSys 2023): BCE whose positive probability is raised to the power beta.

    ``sampling_rate`` a = negatives / (items - 1); ``calibration`` t in [0, 1]: 0 is plain BCE, 1 undoes the
    overconfidence of sampling wholly; beta = a (t (1 - 1 / a) + 1 / a).
    """
    beta = sampling_rate * (calibration * (1 - 1 / sampling_rate) + 1 / sampling_rate)
    return (beta * functional.softplus(-positive_B) + functional.softplus(negative_BM).sum(dim=1)).mean()


def cosine_contrastive(positive_B: Tensor, negative_BM: Tensor, margin: float, weight: float) -> Tensor:
    """CCL (Mao et al., "SimpleX", CIKM 2021) on cosines: 1 - positive, plus ``weight`` times the mean over the
    negatives of what each is above ``margin``; one below it costs nothing."""
    return (1 - positive_B + weight * functional.relu(negative_BM - margin).mean(dim=1)).mean()


def sampled_softmax(
    positive_B: Tensor, negative_BM: Tensor, log_expected_M: Tensor | None = None, hidden_BM: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the positive among itself and the negatives.

    ``log_expected_M`` is the log of how often each negative is expected in the sample (or (B, M)); it is taken off the
    negatives' scores alone, since the positive is there whatever was drawn (Bengio and Senecal 2008, with the
    positive outside the sample). ``hidden_BM`` are pairs that do not count: a negative that is the positive itself.
    """
    if log_expected_M is not None:
        negative_BM = negative_BM - log_expected_M
    if hidden_BM is not None:
        negative_BM = negative_BM.masked_fill(hidden_BM, HIDDEN)
    rest_B = torch.logsumexp(negative_BM, dim=1)
    return functional.softplus(rest_B - positive_B).mean()


def hardest(negative_BM: Tensor, count: int, hidden_BM: Tensor) -> Tensor:
    """(B, count) the best scores of each row, hidden pairs last, as -inf; which they are passes no gradient."""
    negative_BM = negative_BM.masked_fill(hidden_BM, HIDDEN)
    best_BN = torch.topk(negative_BM.detach(), min(count, negative_BM.shape[1]), dim=1).indices
    return negative_BM.gather(1, best_BN)


def full_cross_entropy(scores_BI: Tensor, targets_B: Tensor) -> Tensor:
    """Softmax over the whole catalogue."""
    return functional.cross_entropy(scores_BI, targets_B)


def info_nce(
    queries_BD: Tensor,
    keys_KD: Tensor,
    temperature: float,
    targets_B: Tensor | None = None,
    hidden_BK: Tensor | None = None,
    log_expected_K: Tensor | None = None,
) -> Tensor:
    """Row b of the queries belongs to key ``targets_B[b]`` (by default b); other keys are negatives (van den Oord et
    al. 2018).

    Cosine similarity over ``temperature``. ``hidden_BK`` are pairs that do not count. ``log_expected_K``, the log of
    how often each key is expected among the keys, is taken off all scores, positives too, which were drawn alike (Yi
    et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019).
    """
    scores_BK = functional.normalize(queries_BD, dim=1) @ functional.normalize(keys_KD, dim=1).T / temperature
    if log_expected_K is not None:
        scores_BK = scores_BK - log_expected_K
    if hidden_BK is not None:
        scores_BK = scores_BK.masked_fill(hidden_BK, HIDDEN)
    if targets_B is None:
        targets_B = torch.arange(len(queries_BD), device=scores_BK.device)
    return functional.cross_entropy(scores_BK, targets_B)


def log_expected(probability_M: Tensor, draws: int) -> Tensor:
    """log of the expected number of times an item of this probability is among ``draws``."""
    return torch.log(probability_M.clamp_min(torch.finfo(probability_M.dtype).tiny)) + math.log(draws)
