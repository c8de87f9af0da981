"""Ranking losses over one positive and M negatives a row; every one returns the mean over rows, lower is better."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from recsys_ray.training.config import CHUNK_BYTES

HIDDEN = float("-inf")


class Ranking(Protocol):
    """What the settings of a model say of its softmax."""

    @property
    def loss(self) -> str: ...

    @property
    def bilateral_ratio(self) -> float: ...

    @property
    def top_k(self) -> int: ...

    @property
    def top_k_temperature(self) -> float: ...


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


def bilateral_softmax(
    positive_B: Tensor, negative_BM: Tensor, ratio: float, users_B: Tensor, others: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """BSL (Wu et al., "BSL: Understanding and Improving Softmax Loss for Recommendation", ICDE 2024): a softmax on both
    sides, over the positives of a user as over the negatives.

    With t1, t2 the temperatures of positives and negatives, ``ratio`` = t2 / t1 and scores already divided by t2, the
    loss of row b is  - log mean over the rows of its user of exp(ratio * positive)  +  ratio * log sum exp(negative).
    ``others`` are the positive scores and users of all rows where these are only some of them.
    """
    scores_A, users_A = (positive_B, users_B) if others is None else others
    known, groups_A = torch.unique(users_A, return_inverse=True)
    scores_A = ratio * scores_A
    # The best of each user is taken out of the exponents, and put back outside the logarithm.
    best = scores_A.new_full((len(known),), HIDDEN).scatter_reduce(0, groups_A, scores_A.detach(), "amax")
    sums = torch.zeros_like(best).index_add(0, groups_A, torch.exp(scores_A - best[groups_A]))
    counts = torch.bincount(groups_A, minlength=len(known))
    means = best + torch.log(sums / counts)
    rest_B = torch.logsumexp(negative_BM, dim=1)
    return (ratio * rest_B - means[torch.searchsorted(known, users_B)]).mean()


def softmax_at_k(positive_B: Tensor, negative_BM: Tensor, top_k: int, num_items: int, temperature: float) -> Tensor:
    """SL@K (Yang et al., "Breaking the Top-K Barrier: Advancing Top-K Ranking Metrics Optimization in Recommender
    Systems", KDD 2025): the softmax of a pair weighs sigmoid((positive - b) / temperature), b being the score at place
    K of the row's list. Of M sampled negatives, b is the one at place K * M / I. The weight passes no gradient.
    """
    count = negative_BM.shape[1]
    place = min(count, max(1, round(top_k * count / max(num_items, 1))))
    border_B = torch.topk(negative_BM.detach(), place, dim=1).values[:, -1]
    weight_B = torch.sigmoid((positive_B.detach() - border_B) / temperature)
    return (weight_B * functional.softplus(torch.logsumexp(negative_BM, dim=1) - positive_B)).mean()


def ranking_softmax(
    positive_B: Tensor,
    negative_BM: Tensor,
    users_B: Tensor,
    num_items: int,
    settings: Ranking,
    others: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The softmax that the settings name, over negatives that are corrected and hidden already."""
    if settings.loss == "bilateral_softmax":
        return bilateral_softmax(positive_B, negative_BM, settings.bilateral_ratio, users_B, others)
    if settings.loss == "softmax_at_k":
        return softmax_at_k(positive_B, negative_BM, settings.top_k, num_items, settings.top_k_temperature)
    return sampled_softmax(positive_B, negative_BM)


def direct_au(
    queries_BD: Tensor, items_BD: Tensor, weight: float, gather: Callable[[Tensor], Tensor] = lambda rows: rows
) -> Tensor:
    """Alignment and uniformity (Wang et al., "Towards Representation Alignment and Uniformity in Collaborative
    Filtering", KDD 2022), without negatives: the squared distance of a pair, plus ``weight`` times how near queries and
    items are to others of their kind, all on the unit sphere. ``gather`` gives the rows of all workers."""
    queries_BD, items_BD = functional.normalize(queries_BD, dim=1), functional.normalize(items_BD, dim=1)
    alignment = (queries_BD - items_BD).square().sum(dim=1).mean()
    return alignment + weight * (_nearness(gather(queries_BD)) + _nearness(gather(items_BD))) / 2


def _nearness(rows_BD: Tensor) -> Tensor:
    """log mean over all pairs of exp(-2 |x - y|^2), of rows of length 1."""
    size = len(rows_BD)
    if size < 2:
        return rows_BD.sum() * 0
    # Of rows of length 1, |x - y|^2 = 2 - 2 x . y; a row is no pair with itself.
    exponents_BB = (4 * (rows_BD @ rows_BD.T) - 4).fill_diagonal_(HIDDEN)
    return torch.logsumexp(exponents_BB.flatten(), dim=0) - math.log(size * (size - 1))


def hardest(negative_BM: Tensor, count: int, hidden_BM: Tensor) -> Tensor:
    """(B, count) the best scores of each row, hidden pairs last, as -inf; which they are passes no gradient."""
    negative_BM = negative_BM.masked_fill(hidden_BM, HIDDEN)
    best_BN = torch.topk(negative_BM.detach(), min(count, negative_BM.shape[1]), dim=1).indices
    return negative_BM.gather(1, best_BN)


def softmax_over_all(states_BD: Tensor, items_ID: Tensor, targets_B: Tensor) -> Tensor:
    """Cross-entropy of the targets among the whole catalogue, scores being inner products.

    The scores of all rows are never held: those of some rows at a time are made, turned into their gradient, and
    multiplied into those of states and items, so that the backward pass has nothing left to compute.
    """
    return _SoftmaxOverAll.apply(states_BD, items_ID, targets_B)  # type: ignore[no-any-return]


class _SoftmaxOverAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states_BD: Tensor, items_ID: Tensor, targets_B: Tensor) -> Tensor:
        size, num_items = len(states_BD), len(items_ID)
        wanted = any(ctx.needs_input_grad)
        states_grad_BD, items_grad_ID = torch.zeros_like(states_BD), torch.zeros_like(items_ID)
        total = states_BD.new_zeros((), dtype=torch.float32)
        for start in range(0, size, max(1, CHUNK_BYTES // (4 * num_items))):
            rows = slice(start, start + max(1, CHUNK_BYTES // (4 * num_items)))
            targets = targets_B[rows, None]
            scores = (states_BD[rows] @ items_ID.T).float()
            sums = torch.logsumexp(scores, dim=1, keepdim=True)
            total += (sums - scores.gather(1, targets)).sum()
            if wanted:
                gradient = scores.sub_(sums).exp_()
                gradient.scatter_add_(1, targets, gradient.new_full(targets.shape, -1.0))
                gradient = gradient.to(states_BD.dtype)
                states_grad_BD[rows] = gradient @ items_ID.to(states_BD.dtype)
                items_grad_ID += gradient.T @ states_BD[rows]
        ctx.save_for_backward(states_grad_BD / size, items_grad_ID / size)
        return total / size

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        states_grad_BD, items_grad_ID = ctx.saved_tensors
        return gradients[0] * states_grad_BD, gradients[0] * items_grad_ID, None


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
