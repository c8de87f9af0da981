"""Histories as rectangles of item rows, padded on the left."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys_ray.base.types import BoolArray, Histories, LongArray


def newest(histories: Histories, rows_B: LongArray, length: int, padding: int) -> LongArray:
    """(B, L) the ``length`` newest items of the rows, oldest first, ``padding`` before them.

    L is the longest that occurs among them, at least 1 and at most ``length``.
    """
    return _newest(histories, histories.items_E, rows_B, length, padding)


def newest_times(histories: Histories, rows_B: LongArray, length: int) -> LongArray:
    """(B, L) when these events were, 0 before them."""
    return _newest(histories, histories.timestamps_E, rows_B, length, 0)


def _newest(
    histories: Histories, values_E: npt.NDArray[np.integer], rows_B: LongArray, length: int, padding: int
) -> LongArray:
    starts_B, stops_B = histories.offsets_B1[rows_B], histories.offsets_B1[rows_B + 1]
    width = int(np.clip((stops_B - starts_B).max(initial=1), 1, length))
    # Counted back from the end of each row; places before its start are of another row and become padding.
    places_BL = stops_B[:, None] + np.arange(-width, 0)
    real_BL: BoolArray = places_BL >= starts_B[:, None]
    values_BL = np.full(places_BL.shape, padding, np.int64)
    values_BL[real_BL] = values_E[places_BL[real_BL]]
    return values_BL
