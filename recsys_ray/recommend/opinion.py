"""Whether scores say anything: where all candidates of a request score alike, the order would be that of their rows.

Such a row has no spread: the best and the worst candidate are equal, or closer than the rounding of what the scores are
made of. It is no opinion, whichever model gave it, and the fallbacks answer. Only rows whose best candidates are that
close are looked at as a whole. A candidate that a model leaves out (-inf) is spread, and one candidate alone is a list.
"""

from __future__ import annotations

import numpy as np

from recsys_ray.base.types import BoolArray, FloatArray, Histories, ItemLists
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.retrieval import TopK

ROUNDING = np.float32(2.0**-20)
"""Of a score's size: eight times what one rounding to float32 costs, for sums of many."""


def without_spread(found: TopK, sizes_B: FloatArray | float) -> BoolArray:
    """(B,) lists of two items or more whose first and last score differ by no more than the rounding of ``sizes_B``."""
    counts_B = (found.rows_BK >= 0).sum(axis=1)
    best_B = found.scores_BK[:, 0]
    last_B = found.scores_BK[np.arange(len(found)), np.maximum(counts_B, 1) - 1]
    with np.errstate(invalid="ignore"):  # of -inf where a list is empty
        close_B = best_B - last_B <= ROUNDING * sizes_B
    return np.asarray(close_B & (counts_B > 1), np.bool_)


def silent_queries(
    bundle: Bundle, queries_BD: FloatArray, found: TopK, exclude: ItemLists, allowed_I: BoolArray
) -> BoolArray:
    """(B,) queries of the bundle's model that all candidates answer alike; ``found`` are the best of them."""
    longest, bias = bundle.score_sizes
    sizes_B = np.sqrt(np.einsum("bd,bd->b", queries_BD, queries_BD)) * np.float32(longest) + np.float32(bias)
    flat_B = without_spread(found, sizes_B)
    if len(rows := np.flatnonzero(flat_B)):
        worst = bundle.worst_index.search(-queries_BD[rows], 1, exclude.take(rows), allowed_I)
        flat_B[rows] = found.scores_BK[rows, 0] + worst.scores_BK[:, 0] <= ROUNDING * sizes_B[rows]
    return flat_B


def silent_scores(
    scores_BI: FloatArray, histories: Histories, found: TopK, exclude: ItemLists, allowed_I: BoolArray
) -> BoolArray:
    """(B,) rows of finished scores in which all candidates are alike; ``found`` are the best of them.

    How large the numbers are that scores are made of tell the user's own items.
    """
    rows_E = histories.rows_E
    sizes_B = np.abs(found.scores_BK[:, 0])
    own_E = np.abs(scores_BI[rows_E, histories.items_E])
    np.maximum.at(sizes_B, rows_E, np.where(np.isfinite(own_E), own_E, 0))
    flat_B = without_spread(found, sizes_B)
    for row in np.flatnonzero(flat_B).tolist():
        candidate_I = allowed_I.copy()
        candidate_I[exclude.row(row)] = False
        flat_B[row] = found.scores_BK[row, 0] - scores_BI[row, candidate_I].min() <= ROUNDING * sizes_B[row]
    return flat_B
