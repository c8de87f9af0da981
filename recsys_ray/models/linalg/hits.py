"""Where hits come in weighted sums of scores: what choosing weights looks at hundreds of times.

M are the members, B users, C candidates of each, K ranks.
"""

from __future__ import annotations

import numpy as np

from recsys_ray.base.kernels import njit
from recsys_ray.base.types import BoolArray, FloatArray, IntArray


@njit(cache=True)
def _mark(values_MBC, weights_M, rows_BC, hits_BC, found_BK):  # type: ignore[no-untyped-def]
    members, users, candidates = values_MBC.shape
    top = found_BK.shape[1]
    scores_C = np.empty(candidates, np.float32)
    for b in range(users):
        for c in range(candidates):
            total = np.float32(0)
            for m in range(members):
                total += weights_M[m] * values_MBC[m, b, c]
            scores_C[c] = total
        for hit in range(candidates):
            if not hits_BC[b, hit]:
                continue
            before = 0
            for c in range(candidates):
                if rows_BC[b, c] >= 0:
                    equal = scores_C[c] == scores_C[hit] and rows_BC[b, c] < rows_BC[b, hit]
                    before += scores_C[c] > scores_C[hit] or equal
                if before >= top:
                    break
            if before < top:
                found_BK[b, before] = True


def hits_by_rank(
    values_MBC: FloatArray, weights_M: FloatArray, rows_BC: IntArray, hits_BC: BoolArray, top: int
) -> BoolArray:
    """(B, K) whether rank k of a user's candidates, by the weighted sum, of equals the lower row, is a hit.

    A rank costs one look at all candidates of the user and only hits are looked for: no sorting.
    """
    found_BK = np.zeros((len(rows_BC), top), np.bool_)
    _mark(values_MBC, np.asarray(weights_M, np.float32), rows_BC, hits_BC, found_BK)
    return found_BK
