"""Many small ridge regressions at once, solved exactly: the inner loop of ALS and of every fold-in; and the rotation
that gives them all a diagonal penalty.

All loops that matter are inner products of adjacent memory whose length is a multiple of LANES, which compilers turn
into vector instructions without a remainder. One thread works out a row, in an order that depends on that row alone:
a result doesn't change by a bit with the batch it is computed in, nor with the number of threads.

J is the length of an inner product, or D in whole LANES; N rows of any kind, those of a system too; S parts of a sum.
Systems end in TILE spare rows, so that the last tile needs no bounds.
"""

from __future__ import annotations

import math

import numpy as np

from recsys_ray.base.blas import one_blas_thread
from recsys_ray.base.kernels import njit, prange
from recsys_ray.base.types import FloatArray, IntArray, LongArray
from recsys_ray.models.linalg.sparse import read_only, threads_for

LANES = 16
TILE = 4
CHUNK = 64  # events of a long history that are added up together
PARTS = 32  # of a Gram matrix: as many threads can work on it, in an order that doesn't depend on how many do


@njit(cache=True)
def _whole_lanes(length):  # type: ignore[no-untyped-def]
    return (length + LANES - 1) // LANES * LANES


@njit(cache=True, fastmath=True)
def _add_gram(rows_NJ, size, system_NN) -> None:  # type: ignore[no-untyped-def]
    """``system += rows @ rows.T``, lower triangle, in tiles of 2 x 4 inner products held in registers."""
    for i in range(0, size, 2):
        a0, a1 = rows_NJ[i], rows_NJ[i + 1]
        for j in range(0, i + 2, TILE):
            b0, b1, b2, b3 = rows_NJ[j], rows_NJ[j + 1], rows_NJ[j + 2], rows_NJ[j + 3]
            t00 = t01 = t02 = t03 = t10 = t11 = t12 = t13 = np.float32(0)
            for k in range(rows_NJ.shape[1]):
                x0, x1 = a0[k], a1[k]
                y0, y1, y2, y3 = b0[k], b1[k], b2[k], b3[k]
                t00 += x0 * y0
                t01 += x0 * y1
                t02 += x0 * y2
                t03 += x0 * y3
                t10 += x1 * y0
                t11 += x1 * y1
                t12 += x1 * y2
                t13 += x1 * y3
            s0, s1 = system_NN[i], system_NN[i + 1]
            s0[j] += t00
            s0[j + 1] += t01
            s0[j + 2] += t02
            s0[j + 3] += t03
            s1[j] += t10
            s1[j + 1] += t11
            s1[j + 2] += t12
            s1[j + 3] += t13


@njit(cache=True, fastmath=True)
def _cholesky_solve(system_NN, solution_N, size) -> None:  # type: ignore[no-untyped-def]
    """``system @ solution = solution`` in place; reads the lower triangle, leaves the inverse pivots on its diagonal.

    The factor is kept apart, strictly below the diagonal and zero elsewhere: inner products may then run over whole
    lanes. The right side is one more row of the matrix, and comes out of the factorization already substituted forward.
    """
    system_NN[size, :size] = solution_N
    lower_NJ = np.zeros((size + TILE, _whole_lanes(size)), np.float32)
    for j in range(size):
        pivot_J = lower_NJ[j]
        width = _whole_lanes(j)
        total = np.float32(0)
        for k in range(width):
            total += pivot_J[k] * pivot_J[k]
        inverse = np.float32(1) / math.sqrt(system_NN[j, j] - total)
        system_NN[j, j] = inverse
        for i in range(j + 1, size + 1, TILE):
            l0, l1, l2, l3 = lower_NJ[i], lower_NJ[i + 1], lower_NJ[i + 2], lower_NJ[i + 3]
            t0 = t1 = t2 = t3 = np.float32(0)
            for k in range(width):
                value = pivot_J[k]
                t0 += value * l0[k]
                t1 += value * l1[k]
                t2 += value * l2[k]
                t3 += value * l3[k]
            l0[j] = (system_NN[i, j] - t0) * inverse
            l1[j] = (system_NN[i + 1, j] - t1) * inverse
            l2[j] = (system_NN[i + 2, j] - t2) * inverse
            l3[j] = (system_NN[i + 3, j] - t3) * inverse
    rest_J = lower_NJ[size]
    for i in range(size - 1, -1, -1):
        value, row_J = rest_J[i] * system_NN[i, i], lower_NJ[i]
        solution_N[i] = value
        for k in range(_whole_lanes(i)):
            rest_J[k] -= value * row_J[k]


@njit(cache=True, fastmath=True)
def _solve_short(items_H, weights_H, targets_H, factors_ID, penalty_D, out_D) -> None:  # type: ignore[no-untyped-def]
    """Fewer events than dimensions: an (H, H) system, ``x = P^-1 Y' z`` with ``(W^-1 + Y P^-1 Y') z = t``."""
    size, dim = len(items_H), len(penalty_D)
    root_D = np.float32(1) / np.sqrt(penalty_D)
    rows_HJ = np.zeros((size + TILE, _whole_lanes(dim)), np.float32)
    system_HH = np.zeros((size + TILE, size + TILE), np.float32)
    solution_H = np.empty(size, np.float32)
    for h in range(size):
        factor_D, row_J = factors_ID[items_H[h]], rows_HJ[h]
        for d in range(dim):
            row_J[d] = factor_D[d] * root_D[d]
        system_HH[h, h] = np.float32(1) / weights_H[h]
        solution_H[h] = targets_H[h]
    _add_gram(rows_HJ, size, system_HH)
    _cholesky_solve(system_HH, solution_H, size)
    out_D[:] = 0
    for h in range(size):
        row_J, value = rows_HJ[h], solution_H[h]
        for d in range(dim):
            out_D[d] += value * row_J[d]
    for d in range(dim):
        out_D[d] *= root_D[d]


@njit(cache=True, fastmath=True)
def _solve_long(items_H, weights_H, targets_H, factors_ID, penalty_D, out_D) -> None:  # type: ignore[no-untyped-def]
    """At least as many events as dimensions: the normal equations ``(P + Y' W Y) x = Y' W t``, (D, D)."""
    dim = len(penalty_D)
    system_DD = np.zeros((dim + TILE, dim + TILE), np.float32)
    rows_DJ = np.zeros((dim + TILE, CHUNK), np.float32)
    for d in range(dim):
        system_DD[d, d] = penalty_D[d]
        out_D[d] = 0
    for first in range(0, len(items_H), CHUNK):
        count = min(CHUNK, len(items_H) - first)
        if count < CHUNK:
            rows_DJ[:] = 0
        for k in range(count):
            factor_D, weight = factors_ID[items_H[first + k]], weights_H[first + k]
            root, right = math.sqrt(weight), weight * targets_H[first + k]
            for d in range(dim):
                rows_DJ[d, k] = root * factor_D[d]
                out_D[d] += right * factor_D[d]
        _add_gram(rows_DJ, dim, system_DD)
    _cholesky_solve(system_DD, out_D, dim)


@njit(cache=True, parallel=True)
def _solve_rows(  # type: ignore[no-untyped-def]
    order_B, offsets_B1, items_E, weights_E, targets_E, factors_ID, penalty_D, ridge_B, out_BD
) -> None:
    for position in prange(len(order_B)):
        b = order_B[position]
        first, last = offsets_B1[b], offsets_B1[b + 1]
        items_H, weights_H, targets_H = items_E[first:last], weights_E[first:last], targets_E[first:last]
        penalty_row_D = penalty_D + ridge_B[b]
        if len(items_H) == 0:
            out_BD[b] = 0
        elif len(items_H) < len(penalty_D):
            _solve_short(items_H, weights_H, targets_H, factors_ID, penalty_row_D, out_BD[b])
        else:
            _solve_long(items_H, weights_H, targets_H, factors_ID, penalty_row_D, out_BD[b])


def solve_rows(
    offsets_B1: LongArray,
    items_E: IntArray,
    weights_E: FloatArray,
    targets_E: FloatArray,
    factors_ID: FloatArray,
    penalty_D: FloatArray,
    ridge_B: FloatArray,
) -> FloatArray:
    """(B, D): for every row b the exact minimum over x of

    ``sum over e of weights[e] * (targets[e] - x . factors[items[e]])^2 + sum over d of (penalty[d] + ridge[b]) *
    x[d]^2``

    with positive weights and ridges. Rows without events are zero. With H events a row costs H^2 D + H^3 / 3
    operations when H < D, else H D^2 + D^3 / 3. The penalty being diagonal is what makes the short form possible; a
    full Gram matrix becomes diagonal by rotating ``factors`` into its eigenvectors.
    """
    out_BD = np.empty((len(offsets_B1) - 1, factors_ID.shape[1]), np.float32)
    # Each thread gets one range of positions: dealing the rows out by length gives every range the same mix of short
    # and long.
    by_length = np.argsort(np.diff(offsets_B1), kind="stable")
    order_B = np.concatenate([by_length[start::64] for start in range(64)])
    arrays = (offsets_B1, items_E, weights_E, targets_E, factors_ID, penalty_D, ridge_B)
    with threads_for(16.0 * out_BD.shape[1] * len(items_E)):
        _solve_rows(order_B, *read_only(*arrays), out_BD)
    return out_BD


@njit(inline="always")
def _add_tile(weights_44, from_NJ, start, last, to_NJ, place):  # type: ignore[no-untyped-def]
    """Four rows of ``to`` get ``weights`` times four rows of ``from``; behind the last row, that one again."""
    n0, n1, n2, n3 = start, min(start + 1, last), min(start + 2, last), min(start + 3, last)
    a0, a1, a2, a3 = weights_44[0, 0], weights_44[0, 1], weights_44[0, 2], weights_44[0, 3]
    b0, b1, b2, b3 = weights_44[1, 0], weights_44[1, 1], weights_44[1, 2], weights_44[1, 3]
    c0, c1, c2, c3 = weights_44[2, 0], weights_44[2, 1], weights_44[2, 2], weights_44[2, 3]
    d0, d1, d2, d3 = weights_44[3, 0], weights_44[3, 1], weights_44[3, 2], weights_44[3, 3]
    for k in range(from_NJ.shape[1]):
        x0, x1, x2, x3 = from_NJ[n0, k], from_NJ[n1, k], from_NJ[n2, k], from_NJ[n3, k]
        to_NJ[place, k] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
        to_NJ[place + 1, k] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
        to_NJ[place + 2, k] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
        to_NJ[place + 3, k] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@njit(cache=True, fastmath=True)
def _rotate_part(first, stop, rows_NJ, axes_JJ, out_NJ) -> None:  # type: ignore[no-untyped-def]
    size, last = len(axes_JJ), len(rows_NJ) - 1
    weights_44, sums_4K = np.empty((TILE, TILE), np.float32), np.empty((TILE, size), np.float32)
    for n in range(first, stop, TILE):
        sums_4K[:] = 0
        for i in range(0, size, TILE):
            for row in range(TILE):
                for k in range(TILE):
                    weights_44[row, k] = rows_NJ[min(n + row, last), i + k]
            _add_tile(weights_44, axes_JJ, i, size, sums_4K, 0)
        out_NJ[n : n + TILE] = sums_4K


@njit(cache=True, fastmath=True)
def _gram_part(first, stop, rows_NJ, weights_N, out_JJ) -> None:  # type: ignore[no-untyped-def]
    last, size = stop - 1, len(out_JJ)
    weights_44, sums_JJ = np.empty((TILE, TILE), np.float32), np.zeros((size, size), np.float32)
    for n in range(first, stop, TILE):
        for i in range(0, size, TILE):
            for row in range(TILE):
                weight = weights_N[n + row] if n + row <= last else np.float32(0)
                for k in range(TILE):
                    weights_44[k, row] = weight * rows_NJ[min(n + row, last), i + k]
            _add_tile(weights_44, rows_NJ, n, last, sums_JJ, i)
    out_JJ[:] = sums_JJ


@njit(cache=True, parallel=True)
def _rotate(rows_NJ, axes_JJ, out_NJ) -> None:  # type: ignore[no-untyped-def]
    """``out`` is in whole TILEs; what it has more than ``rows`` repeats the last one."""
    tiles = len(out_NJ) // TILE
    for part in prange(PARTS):
        first, stop = tiles * part // PARTS * TILE, tiles * (part + 1) // PARTS * TILE
        _rotate_part(first, stop, rows_NJ, axes_JJ, out_NJ)


@njit(cache=True, parallel=True)
def _gram(rows_NJ, weights_N, out_SJJ) -> None:  # type: ignore[no-untyped-def]
    """``out[p]`` becomes the p-th part of the sum, over contiguous rows."""
    count = len(rows_NJ)
    for part in prange(PARTS):
        _gram_part(count * part // PARTS, count * (part + 1) // PARTS, rows_NJ, weights_N, out_SJJ[part])


def whole_lanes(rows_ND: FloatArray) -> FloatArray:
    """(N, J) with zero columns behind; the array itself where D is a multiple of LANES."""
    more = -rows_ND.shape[1] % LANES
    return np.pad(rows_ND, ((0, 0), (0, more))) if more else rows_ND


def principal_axes(rows_ND: FloatArray, weights_N: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The eigenvectors of ``rows' diag(weights) rows``, (D, D) by columns, and its eigenvalues (D,).

    Rotated into these axes, rows have a diagonal weighted Gram matrix. N D^2 operations.
    """
    count, dim = rows_ND.shape
    rows_NJ = whole_lanes(rows_ND)
    parts_SJJ = np.empty((PARTS, rows_NJ.shape[1], rows_NJ.shape[1]), np.float32)
    with threads_for(float(count) * dim**2):
        _gram(*read_only(rows_NJ, weights_N), parts_SJJ)
    gram_DD = parts_SJJ.sum(axis=0, dtype=np.float64)[:dim, :dim]
    # Threads of BLAS would keep waiting for more, on the cores that the loops here need.
    with one_blas_thread():
        values_D, axes_DD = np.linalg.eigh(gram_DD)
    return axes_DD.astype(np.float32), np.maximum(values_D, 0).astype(np.float32)


def rotate(rows_ND: FloatArray, axes_DD: FloatArray) -> FloatArray:
    """(N, D) ``rows @ axes``."""
    count, dim = rows_ND.shape
    rows_NJ = whole_lanes(rows_ND)
    axes_JJ = np.zeros((rows_NJ.shape[1], rows_NJ.shape[1]), np.float32)
    axes_JJ[:dim, :dim] = axes_DD
    out_NJ = np.empty((-(-count // TILE) * TILE, rows_NJ.shape[1]), np.float32)
    with threads_for(float(count) * dim**2):
        _rotate(*read_only(rows_NJ, axes_JJ), out_NJ)
    return np.ascontiguousarray(out_NJ[:count, :dim])
