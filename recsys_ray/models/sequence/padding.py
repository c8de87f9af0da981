"""Histories as rectangles of item rows, padded on the left."""

from __future__ import annotations

import numpy as np

from recsys_ray.base.types import Histories, LongArray


def newest(histories: Histories, rows_B: LongArray, length: int, padding: int) -> LongArray:
    """(B, L) the ``length`` newest items of the rows, oldest first, ``padding`` before them.

    L is the longest that occurs among them, at least 1 and at most ``length``.
    """
    starts_B, stops_B = histories.offsets_B1[rows_B], histories.offsets_B1[rows_B + 1]
    width = int(np.clip((stops_B - starts_B).max(initial=1), 1, length))
    # Counted back from the end of each row; places before its start are of another row and become padding.
    places_BL = stops_B[:, None] + np.arange(-width, 0)
    real_BL = places_BL >= starts_B[:, None]
    items_BL = np.full(places_BL.shape, padding, np.int64)
    items_BL[real_BL] = histories.items_E[places_BL[real_BL]]
    return items_BL
