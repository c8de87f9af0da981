"""Ranking metrics of single users, and metrics of what all lists show together.

B are users with at least one target each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recsys_ray.base.types import BoolArray, DoubleArray, LongArray


def recall(hits_BK: BoolArray, targets_B: LongArray, k: int) -> DoubleArray:
    """Hits over the number of targets (the convention of LightGCN and its followers).

    With more than k targets a perfect list stays below 1; the variant of the autoencoder papers, which divides by
    min(k, targets), would not. The two are not comparable.
    """
    return _hits(hits_BK, k) / targets_B


def precision(hits_BK: BoolArray, targets_B: LongArray, k: int) -> DoubleArray:
    """Hits over k, also where the list is shorter than k."""
    return _hits(hits_BK, k) / k


def hit_rate(hits_BK: BoolArray, targets_B: LongArray, k: int) -> DoubleArray:
    """1 when at least one target is shown."""
    return np.minimum(_hits(hits_BK, k), 1.0)


def ndcg(hits_BK: BoolArray, targets_B: LongArray, k: int) -> DoubleArray:
    """Discounted gain of the hits, 1 / log2(rank + 1) each, over that of an ideal list of min(targets, k) hits.

    Jarvelin and Kekalainen (2002) with binary relevance.
    """
    gains_K = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(gains_K)])
    return np.asarray(hits_BK[:, :k] @ gains_K / ideal[np.minimum(targets_B, k)], np.float64)


def average_precision(hits_BK: BoolArray, targets_B: LongArray, k: int) -> DoubleArray:
    """Precision at the rank of every hit, summed, over min(targets, k). Its mean over users is MAP@k."""
    hits = hits_BK[:, :k]
    precisions_BK = np.cumsum(hits, axis=1) / np.arange(1, k + 1)
    return np.asarray((precisions_BK * hits).sum(axis=1) / np.minimum(targets_B, k), np.float64)


def reciprocal_rank(hits_BK: BoolArray, targets_B: LongArray, k: int) -> DoubleArray:
    """1 / rank of the first hit, 0 without one. Its mean over users is MRR@k."""
    hits = hits_BK[:, :k]
    return np.where(hits.any(axis=1), 1.0 / (1 + hits.argmax(axis=1)), 0.0)


def _hits(hits_BK: BoolArray, k: int) -> DoubleArray:
    return np.asarray(hits_BK[:, :k].sum(axis=1), np.float64)


RANKING: dict[str, Callable[[BoolArray, LongArray, int], DoubleArray]] = {
    "recall": recall,
    "ndcg": ndcg,
    "precision": precision,
    "hit_rate": hit_rate,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def coverage(exposure_I: npt.NDArray[np.integer]) -> float:
    """Share of the catalogue that at least one user is shown. ``exposure_I``: how many users see each item."""
    return float(np.count_nonzero(exposure_I) / len(exposure_I))


def gini(exposure_I: npt.NDArray[np.integer]) -> float:
    """Inequality of exposure over the whole catalogue: 0 when all items are shown equally often, (I - 1) / I when one
    item takes every place. NaN when nothing is shown."""
    exposures = np.sort(exposure_I).astype(np.float64)
    places = len(exposures)
    if not exposures.any():
        return float("nan")
    ranks = 2.0 * np.arange(1, places + 1) - places - 1
    return float(ranks @ exposures / (places * exposures.sum()))


def head_items(counts_I: LongArray, share: float) -> BoolArray:
    """(I,) the fewest items that together hold at least ``share`` of all interactions; equal counts by item row."""
    order = np.argsort(-counts_I, kind="stable")
    before = np.cumsum(counts_I[order]) - counts_I[order]
    head_I = np.zeros(len(counts_I), np.bool_)
    head_I[order[before < share * counts_I.sum()]] = True
    return head_I & (counts_I > 0)
