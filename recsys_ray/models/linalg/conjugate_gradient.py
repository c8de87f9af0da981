"""Many small ridge regressions at once, improved from a start by a few steps: the inner loop of an epoch of ALS.

Source: Takács, Pilászy, Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback Collaborative
Filtering" (RecSys 2011). Where we depart: the penalty is diagonal (the factors were rotated to make it so), hence a
step costs nothing for the pairs nobody touched, and the diagonal of the whole system, which comes nearly free, is the
preconditioner; and a row takes as many steps as it gains by, not a fixed number.

One thread works out a row, in an order that depends on that row alone: a result doesn't change by a bit with the batch
it is computed in, nor with the number of threads. The helpers are inlined before they are compiled: a call would count
a reference to every array it is handed, which takes as long as a short row does.

J is D in whole LANES, H are the events of one row in whole TILEs. What is added to be whole is zero or weighs nothing.
"""

from __future__ import annotations

import numpy as np

from recsys_ray.base.kernels import njit, prange
from recsys_ray.base.types import FloatArray, IntArray, LongArray
from recsys_ray.models.linalg.least_squares import LANES, TILE, whole_lanes
from recsys_ray.models.linalg.sparse import read_only, threads_for

MAX_STEPS = 20
LEAST_GAIN = 0.01  # a step that lowers the loss by less, as a share of all steps of its row so far, is the last one
PARTS = 256  # contiguous rows of about equal work, for the threads to share
ROW_WORK = 8  # what a row takes beside its events, in events


@njit(inline="always")
def _add_normal(count, events_H, factors_IJ, of_targets, of_scores, row_J, out_J):  # type: ignore[no-untyped-def]
    """``out += Y' W (of_targets * t + of_scores * Y row)``, Y the factors of the items."""
    items_H, weights_H, targets_H = events_H
    for p in range(0, count, TILE):
        i0, i1, i2, i3 = items_H[p], items_H[p + 1], items_H[p + 2], items_H[p + 3]
        s0 = s1 = s2 = s3 = np.float32(0)
        for k in range(len(row_J)):
            value = row_J[k]
            s0 += value * factors_IJ[i0, k]
            s1 += value * factors_IJ[i1, k]
            s2 += value * factors_IJ[i2, k]
            s3 += value * factors_IJ[i3, k]
        v0 = weights_H[p] * (of_targets * targets_H[p] + of_scores * s0)
        v1 = weights_H[p + 1] * (of_targets * targets_H[p + 1] + of_scores * s1)
        v2 = weights_H[p + 2] * (of_targets * targets_H[p + 2] + of_scores * s2)
        v3 = weights_H[p + 3] * (of_targets * targets_H[p + 3] + of_scores * s3)
        for k in range(len(out_J)):
            low = v0 * factors_IJ[i0, k] + v1 * factors_IJ[i1, k]
            out_J[k] += low + v2 * factors_IJ[i2, k] + v3 * factors_IJ[i3, k]


@njit(inline="always")
def _add_squares(count, events_H, factors_IJ, out_J):  # type: ignore[no-untyped-def]
    """``out += weights @ Y^2``, the diagonal of ``Y' W Y``."""
    items_H, weights_H, _ = events_H
    for p in range(0, count, TILE):
        i0, i1, i2, i3 = items_H[p], items_H[p + 1], items_H[p + 2], items_H[p + 3]
        w0, w1, w2, w3 = weights_H[p], weights_H[p + 1], weights_H[p + 2], weights_H[p + 3]
        for k in range(len(out_J)):
            y0, y1, y2, y3 = factors_IJ[i0, k], factors_IJ[i1, k], factors_IJ[i2, k], factors_IJ[i3, k]
            out_J[k] += w0 * y0 * y0 + w1 * y1 * y1 + w2 * y2 * y2 + w3 * y3 * y3


@njit(inline="always")
def _start(count, events_H, system, row_J, room):  # type: ignore[no-untyped-def]
    """Fills residual ``Y' W (t - Y x) - P x``, inverse diagonal and first direction; the residual's squared length."""
    factors_IJ, penalty_J = system
    residual_J, inverse_J, direction_J, _ = room
    for k in range(len(row_J)):
        residual_J[k] = -penalty_J[k] * row_J[k]
        inverse_J[k] = penalty_J[k]
    _add_normal(count, events_H, factors_IJ, np.float32(1), np.float32(-1), row_J, residual_J)
    _add_squares(count, events_H, factors_IJ, inverse_J)
    squared = np.float32(0)
    for k in range(len(row_J)):
        inverse_J[k] = np.float32(1) / inverse_J[k]
        direction_J[k] = inverse_J[k] * residual_J[k]
        squared += residual_J[k] * direction_J[k]
    return squared


@njit(inline="always")
def _curvature(count, events_H, system, room):  # type: ignore[no-untyped-def]
    """Fills image ``(P + Y' W Y) direction``; returns ``direction . image``."""
    factors_IJ, penalty_J = system
    _, _, direction_J, image_J = room
    for k in range(len(image_J)):
        image_J[k] = penalty_J[k] * direction_J[k]
    _add_normal(count, events_H, factors_IJ, np.float32(0), np.float32(1), direction_J, image_J)
    total = np.float32(0)
    for k in range(len(image_J)):
        total += direction_J[k] * image_J[k]
    return total


@njit(inline="always")
def _improve(count, events_H, system, row_J, room):  # type: ignore[no-untyped-def]
    """All steps of one row, in place."""
    residual_J, inverse_J, direction_J, image_J = room
    squared = _start(count, events_H, system, row_J, room)
    gained = np.float32(0)
    for _ in range(MAX_STEPS):
        curvature = _curvature(count, events_H, system, room)
        if curvature <= 0:  # no direction is left: here the loss has no slope
            break
        length = squared / curvature
        gain = length * squared
        gained += gain
        before, squared = squared, np.float32(0)
        for k in range(len(row_J)):
            row_J[k] += length * direction_J[k]
            residual_J[k] -= length * image_J[k]
            squared += inverse_J[k] * residual_J[k] * residual_J[k]
        if gain <= np.float32(LEAST_GAIN) * gained:
            break
        turn = squared / before
        for k in range(len(row_J)):
            direction_J[k] = inverse_J[k] * residual_J[k] + turn * direction_J[k]


@njit(inline="always")
def _copy_events(first, count, events_E, events_H):  # type: ignore[no-untyped-def]
    """Copies one row's events and fills up the last TILE; how many they are then."""
    items_E, weights_E, targets_E = events_E
    items_H, weights_H, targets_H = events_H
    whole = (count + TILE - 1) // TILE * TILE
    for p in range(count):
        items_H[p], weights_H[p], targets_H[p] = items_E[first + p], weights_E[first + p], targets_E[first + p]
    for p in range(count, whole):
        items_H[p], weights_H[p], targets_H[p] = items_E[first], np.float32(0), np.float32(0)
    return whole


@njit(cache=True, fastmath=True)
def _improve_part(first, last, longest, offsets_B1, events_E, factors_IJ, penalty_J, ridge_B, rows_BJ) -> None:  # type: ignore[no-untyped-def]
    """Rows ``first:last`` in place, none of more than ``longest`` events."""
    size = len(penalty_J)
    floats_H, floats_J = np.empty((2, longest + TILE), np.float32), np.empty((6, size), np.float32)
    events_H = (np.empty(longest + TILE, np.int32), floats_H[0], floats_H[1])
    room = (floats_J[0], floats_J[1], floats_J[2], floats_J[3])
    penalty_row_J, row_J = floats_J[4], floats_J[5]
    for b in range(first, last):
        start, count = offsets_B1[b], offsets_B1[b + 1] - offsets_B1[b]
        for k in range(size):
            penalty_row_J[k] = penalty_J[k] + ridge_B[b]
            row_J[k] = rows_BJ[b, k] if count > 0 else np.float32(0)
        if count > 0:
            whole = _copy_events(start, count, events_E, events_H)
            _improve(whole, events_H, (factors_IJ, penalty_row_J), row_J, room)
        for k in range(size):
            rows_BJ[b, k] = row_J[k]


@njit(cache=True, parallel=True)
def _improve_parts(edges, longest, offsets_B1, events_E, factors_IJ, penalty_J, ridge_B, rows_BJ) -> None:  # type: ignore[no-untyped-def]
    """Part p has rows ``edges[p]:edges[p + 1]``."""
    for part in prange(len(edges) - 1):
        _improve_part(
            edges[part], edges[part + 1], longest, offsets_B1, events_E, factors_IJ, penalty_J, ridge_B, rows_BJ
        )


def improve_rows(
    offsets_B1: LongArray,
    items_E: IntArray,
    weights_E: FloatArray,
    targets_E: FloatArray,
    factors_ID: FloatArray,
    penalty_D: FloatArray,
    ridge_B: FloatArray,
    start_BD: FloatArray,
) -> FloatArray:
    """(B, D): for every row nearly the minimum that ``solve_rows`` finds, by conjugate gradients from ``start_BD``.

    No row is worse than its start; rows without events are zero. With H events a row costs 2 H D multiply-adds a step
    and 3 H D to begin with. From the rows of the epoch before two or three steps do; MAX_STEPS is the bound.
    """
    dim = factors_ID.shape[1]
    more = -dim % LANES
    factors_IJ, rows_BJ = whole_lanes(factors_ID), np.array(whole_lanes(start_BD))
    penalty_J = np.pad(penalty_D, (0, more), constant_values=1)
    work = offsets_B1 + ROW_WORK * np.arange(len(offsets_B1))
    edges = np.searchsorted(work, np.linspace(0, work[-1], PARTS + 1))
    longest = int(np.diff(offsets_B1).max(initial=0))
    events_E = tuple(read_only(items_E, weights_E, targets_E))
    arrays = read_only(factors_IJ, penalty_J, ridge_B)
    with threads_for(8.0 * dim * len(items_E)):
        _improve_parts(edges, longest, offsets_B1, events_E, *arrays, rows_BJ)
    return np.ascontiguousarray(rows_BJ[:, :dim])
