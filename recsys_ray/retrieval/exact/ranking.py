"""The one tie rule: score descending, then item row ascending. Compiled, serial, without the interpreter lock.

A score and an item row make one 64-bit key that is smaller for what ranks higher; keys never tie, so whatever selects
or sorts keys gives one answer. R are the rows of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_ray.base.kernels import njit
from recsys_ray.base.types import BoolArray, FloatArray, IntArray, LongArray
from recsys_ray.retrieval.exact.lanes import LANES, lanes_at_least, lowest_bit

Array = npt.NDArray[Any]
NOT_AN_ITEM = int(np.iinfo(np.int32).max)

compiled = njit(cache=True, nogil=True, error_model="numpy")


@compiled
def ordered(score: Any) -> Any:
    """The bits of a float32 as an integer that orders like the float."""
    bits = np.float32(score).view(np.int32)
    return np.int64(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@compiled
def rank_key(score: Any, item: Any) -> Any:
    """An int64 that is smaller for what ranks higher; -0.0 and 0.0 are the same score."""
    return (~ordered(np.float32(score) + np.float32(0.0)) << 32) | np.int64(item)


@compiled
def key_item(key: Any) -> Any:
    return np.int32(key & 0x7FFFFFFF)


@compiled
def key_score(key: Any) -> Any:
    bits = np.int32(~(key >> 32))
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


@compiled
def lane_bound(bound: Any, shift: Any) -> Any:
    """(flip, bound) for ``lanes_at_least`` that pass every stored score not below the ``ordered`` float32 given.

    ``shift`` says how scores are stored: 0 float32, 16 bfloat16, the upper half of a float32. The bound is then
    rounded down.
    """
    sign, ones = 0x80000000, 0xFFFFFFFF
    if shift:
        bound = (bound >> 16) - (1 if bound < 0 else 0)
        sign, ones = 0x8000, 0xFFFF
    if bound > 0:
        return np.uint32(sign), np.uint32(bound ^ sign)
    raw = (min(bound, -1) ^ (ones ^ sign)) & ones
    return np.uint32(ones), np.uint32(raw ^ ones)


@compiled
def stored_score(bits: Any, shift: Any) -> Any:
    """The float64 value of a stored score."""
    return np.float64(np.int32(np.int64(bits) << shift).view(np.float32))


@compiled
def smallest_first(keys: LongArray, count: int, k: int) -> None:
    """Move the k smallest of ``keys[:count]`` to the front, the k-th to place k - 1 (Hoare's FIND)."""
    low, high, target = 0, count - 1, k - 1
    while low < high:
        first, middle, last = keys[low], keys[(low + high) // 2], keys[high]
        pivot = max(min(first, middle), min(max(first, middle), last))
        i, j = low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while pivot < keys[j]:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            return


@compiled
def sort_lists(offsets_R1: LongArray, items_E: IntArray, place_I: IntArray, sorted_E: IntArray) -> None:
    """Every list as places, ascending; items without a place (-1) go last, as NOT_AN_ITEM."""
    base = offsets_R1[0]
    for row in range(len(offsets_R1) - 1):
        start, stop = offsets_R1[row] - base, offsets_R1[row + 1] - base
        for event in range(start, stop):
            place = place_I[items_E[base + event]]
            sorted_E[event] = place if place >= 0 else NOT_AN_ITEM
        sorted_E[start:stop].sort()


@compiled
def skip_to(hidden_E: IntArray, cursor: int, place: int) -> int:
    """The first entry of an ascending list, from ``cursor`` on, that is not before ``place``."""
    while cursor < len(hidden_E) and hidden_E[cursor] < place:
        cursor += 1
    return cursor


@compiled
def all_below_infinity(scores_I: FloatArray) -> bool:
    sound = True
    for i in range(len(scores_I)):
        sound &= scores_I[i] < np.inf
    return sound


@compiled
def _lanes_above(scores_I: FloatArray, bits_I: IntArray, start: int, flip: Any, bound: Any) -> Any:
    """``lanes_at_least``, and where fewer than LANES scores are left, all of those that are not -inf."""
    if start + LANES <= len(scores_I):
        return lanes_at_least(bits_I, start, flip, bound)
    mask = np.uint64(0)
    for item in range(start, len(scores_I)):
        if scores_I[item] > -np.inf:
            mask |= np.uint64(1) << np.uint64(item - start)
    return mask


@compiled
def rank_row(
    scores_I: FloatArray, bits_I: IntArray, hidden_E: IntArray, allowed_I: BoolArray, k: int, keys: LongArray
) -> int:
    """The keys of the k best of one row of finished scores, ranked, to the front of ``keys``; how many there are.

    ``bits_I`` are the same scores as int32; -inf, hidden and not allowed items are left out. ``hidden_E`` ascends, an
    empty ``allowed_I`` allows everything. ``keys`` holds more than k: it fills, is cut to the best k, fills again.
    """
    flip, bound = lane_bound(ordered(-np.inf) + 1, 0)
    count = cursor = 0
    for start in range(0, len(scores_I), LANES):
        mask = _lanes_above(scores_I, bits_I, start, flip, bound)
        while mask != np.uint64(0):
            item = start + lowest_bit(mask)
            mask &= mask - np.uint64(1)
            cursor = skip_to(hidden_E, cursor, item)
            is_hidden = cursor < len(hidden_E) and hidden_E[cursor] == item
            if is_hidden or (len(allowed_I) > 0 and not allowed_I[item]):
                continue
            keys[count] = rank_key(scores_I[item], item)
            count += 1
            if count == len(keys):
                smallest_first(keys, count, k)
                count = k
                flip, bound = lane_bound(ordered(key_score(keys[k - 1])) + 1, 0)
    if count > k:
        smallest_first(keys, count, k)
        count = k
    keys[:count].sort()
    return count


@compiled
def rank_rows(
    scores_RI: FloatArray,
    bits_RI: IntArray,
    offsets_R1: LongArray,
    hidden_E: IntArray,
    allowed_I: BoolArray,
    keys: LongArray,
    items_RK: IntArray,
    scores_RK: FloatArray,
) -> int:
    """``rank_row`` for a block; the first row that holds NaN or +inf, or -1."""
    k = items_RK.shape[1]
    for row in range(len(scores_RI)):
        if not all_below_infinity(scores_RI[row]):
            return row
        hidden = hidden_E[offsets_R1[row] - offsets_R1[0] : offsets_R1[row + 1] - offsets_R1[0]]
        count = rank_row(scores_RI[row], bits_RI[row], hidden, allowed_I, k, keys)
        write_ranks(keys, count, items_RK[row], scores_RK[row])
    return -1


@compiled
def write_ranks(keys: LongArray, count: int, items_K: IntArray, scores_K: FloatArray) -> None:
    """The first ``count`` keys as items and scores; what is left of the arrays stays as it was."""
    for rank in range(count):
        items_K[rank] = key_item(keys[rank])
        scores_K[rank] = key_score(keys[rank])
