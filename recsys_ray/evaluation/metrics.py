"""Ranking metrics of single users, and metrics of what all lists show together.

B are users with at least one target each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recsys_ray.base import ragged
from recsys_ray.base.types import BoolArray, DoubleArray, FloatArray, ItemLists, LongArray


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


def f1(hits_BK: BoolArray, targets_B: LongArray, k: int) -> DoubleArray:
    """Harmonic mean of precision and recall at k: 2 hits / (k + targets), 0 without a hit."""
    return 2.0 * _hits(hits_BK, k) / (k + targets_B)


def ratio(over_B: DoubleArray, under_B: DoubleArray) -> DoubleArray:
    """NaN where there is nothing to divide by."""
    ratio_B = np.full(len(under_B), np.nan)
    np.divide(over_B, under_B, out=ratio_B, where=under_B > 0)
    return ratio_B


def _hits(hits_BK: BoolArray, k: int) -> DoubleArray:
    return np.asarray(hits_BK[:, :k].sum(axis=1), np.float64)


RANKING: dict[str, Callable[[BoolArray, LongArray, int], DoubleArray]] = {
    "recall": recall,
    "ndcg": ndcg,
    "precision": precision,
    "f1": f1,
    "hit_rate": hit_rate,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def graded_ndcg(gains_BK: DoubleArray, targets: ItemLists, gains_E: DoubleArray, k: int) -> DoubleArray:
    """(B,) discounted gain of the list over that of the best list of k targets, a target gaining its rating.

    Jarvelin and Kekalainen (2002), gains as they are, not 2^gain. ``gains_BK``: what each rank gains, 0 where it is no
    target; ``gains_E``: what each of ``targets`` would. NaN where no target gains anything.
    """
    discounts_K = 1.0 / np.log2(np.arange(2, k + 2))
    # Targets list by list, the largest gain first; the first k of a list are its best list.
    order_E = np.lexsort((-gains_E, targets.rows_E))
    places_E = ragged.places_in_rows(targets.lengths_B)
    best_E = places_E < k
    weighed_E = gains_E[order_E][best_E] * discounts_K[places_E[best_E]]
    ideal_B = np.bincount(targets.rows_E[best_E], weighed_E, minlength=len(targets))
    found_B = gains_BK[:, :k] @ discounts_K[: gains_BK.shape[1]]
    return ratio(found_B, ideal_B.astype(np.float64))


def serendipity(hits_BK: BoolArray, items_BK: LongArray, popularity_ranks_I: LongArray, k: int) -> DoubleArray:
    """(B,) hits that popularity would not have put there: max(0, chance by rank - chance by popularity rank), over k.

    Murakami, Mori and Orihara (2008), with their primitive method being the order by training interactions; the chance
    of rank r among I items is (I + 1 - r) / I on both sides.
    """
    num_items = len(popularity_ranks_I)
    surprise_BK = (popularity_ranks_I[items_BK[:, :k]] - np.arange(1, hits_BK[:, :k].shape[1] + 1)) / num_items
    return np.asarray((np.maximum(surprise_BK, 0.0) * hits_BK[:, :k]).sum(axis=1) / k, np.float64)


def popularity_ranks(counts_I: LongArray) -> LongArray:
    """(I,) the rank of every item by interactions, from 1; of equal counts the lower item row first."""
    ranks_I = np.empty(len(counts_I), np.int64)
    ranks_I[np.argsort(-counts_I, kind="stable")] = np.arange(1, len(counts_I) + 1)
    return ranks_I


def intra_list_diversity(items_BK: LongArray, units_IG: DoubleArray, k: int) -> DoubleArray:
    """(B,) mean distance, 1 - cosine, of the pairs of items in the top k (Ziegler et al. 2005).

    ``units_IG``: a vector of length 1 an item, or of zeros: such items take no part. NaN with fewer than two others.
    """
    top_BK = items_BK[:, :k]
    units_BKG = np.where((top_BK >= 0)[:, :, None], units_IG[top_BK], 0.0)
    taking_B = units_BKG.any(axis=2).sum(axis=1).astype(np.float64)
    # The sum over all ordered pairs is the length of the sum squared, each item with itself counting 1.
    alike_B = (units_BKG.sum(axis=1) ** 2).sum(axis=1) - taking_B
    pairs_B = taking_B * (taking_B - 1.0)
    return 1.0 - ratio(alike_B, pairs_B)


def rated_precision(scores_E: FloatArray, liked_E: BoolArray, held_out: ItemLists, k: int) -> DoubleArray:
    """(B,) share of liked ones among the k best scored of a user's held-out, rated items; NaN with fewer than k.

    Nothing else competes, so it says little about a list of recommendations. ``scores_E``, ``liked_E``: of each entry
    of ``held_out``. Of equal scores the lower item row counts first, an item without a score (NaN) last.
    """
    order_E = np.lexsort((held_out.items_E, -np.nan_to_num(scores_E, nan=-np.inf), held_out.rows_E))
    top_E = ragged.places_in_rows(held_out.lengths_B) < k
    liked_B = np.bincount(held_out.rows_E[top_E], liked_E[order_E][top_E], minlength=len(held_out))
    return np.where(held_out.lengths_B >= k, liked_B / k, np.nan)


def auc(scores_I: FloatArray, target_I: BoolArray, candidate_I: BoolArray) -> float:
    """Chance that a target scores above another candidate, equal scores counting half; NaN without one of the two."""
    positives = scores_I[target_I & candidate_I]
    negatives = scores_I[~target_I & candidate_I]
    if not len(positives) or not len(negatives):
        return float("nan")
    below = (negatives < positives[:, None]).sum() + 0.5 * (negatives == positives[:, None]).sum()
    return float(below / (len(positives) * len(negatives)))


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
