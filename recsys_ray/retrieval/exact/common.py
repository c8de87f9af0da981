"""One order for everybody: each list walks down it and skips what is hidden from it.

A score that is a bias alone ranks the items alike for all, so nothing is scored. Time: the items hidden from a list,
and those it passes; memory: a number an item.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys_ray.base.kernels import njit
from recsys_ray.base.types import FloatArray, IntArray, ItemLists
from recsys_ray.retrieval.topk import TopK


def walk_down(bias_I: FloatArray, rows_P: IntArray, exclude: ItemLists, top: TopK) -> None:
    """Fill ``top`` with the best of the item rows P that are not excluded: by bias, of equals the lower row."""
    order_P = rows_P[np.lexsort((rows_P, -bias_I[rows_P]))].astype(np.int32)
    marks_I = np.full(len(bias_I), -1, np.int64)
    _walk(order_P, bias_I, exclude.offsets_B1, exclude.items_E, marks_I, top.rows_BK, top.scores_BK)


@njit(cache=True, nogil=True)
def _walk(
    order_P: IntArray,
    bias_I: FloatArray,
    offsets_B1: npt.NDArray[np.int64],
    items_E: IntArray,
    marks_I: npt.NDArray[np.int64],
    rows_BK: IntArray,
    scores_BK: FloatArray,
) -> None:
    """``marks_I`` holds the last list that an item is hidden from."""
    for b in range(len(rows_BK)):
        for e in range(offsets_B1[b], offsets_B1[b + 1]):
            marks_I[items_E[e]] = b
        k = 0
        for place in range(len(order_P)):
            if k == rows_BK.shape[1]:
                break
            item = order_P[place]
            if marks_I[item] != b:
                rows_BK[b, k], scores_BK[b, k] = item, bias_I[item] + np.float32(0.0)
                k += 1
