"""Many small ridge regressions at once, solved exactly: the inner loop of ALS and of every fold-in.

All loops that matter are inner products of adjacent memory whose length is a multiple of LANES, which compilers turn
into vector instructions without a remainder. One thread works out a row, in an order that depends on that row alone:
a result doesn't change by a bit with the batch it is computed in, nor with the number of threads.

Shape suffixes: B rows of a batch, I items, D dimension, E interactions of the batch, H interactions of one row, S
size of a system, K length of an inner product. Matrices end in TILE spare rows, so that the last tile needs no
bounds.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from recsys_ray.contracts import FloatArray, IntArray, LongArray
from recsys_ray.models.kernels import read_only, threads_for

LANES = 16
TILE = 4
CHUNK = 64  # events of a long history that are added up together


@njit(cache=True)
def _whole_lanes(length):  # type: ignore[no-untyped-def]
    return (length + LANES - 1) // LANES * LANES


@njit(cache=True, fastmath=True)
def _add_gram(rows_SK, size, system_SS) -> None:  # type: ignore[no-untyped-def]
    """``system += rows @ rows.T``, lower triangle, in tiles of 2 x 4 inner products held in registers."""
    for i in range(0, size, 2):
        a0, a1 = rows_SK[i], rows_SK[i + 1]
        for j in range(0, i + 2, TILE):
            b0, b1, b2, b3 = rows_SK[j], rows_SK[j + 1], rows_SK[j + 2], rows_SK[j + 3]
            t00 = t01 = t02 = t03 = t10 = t11 = t12 = t13 = np.float32(0)
            for k in range(rows_SK.shape[1]):
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
            s0, s1 = system_SS[i], system_SS[i + 1]
            s0[j] += t00
            s0[j + 1] += t01
            s0[j + 2] += t02
            s0[j + 3] += t03
            s1[j] += t10
            s1[j + 1] += t11
            s1[j + 2] += t12
            s1[j + 3] += t13


@njit(cache=True, fastmath=True)
def _cholesky_solve(system_SS, solution_S, size) -> None:  # type: ignore[no-untyped-def]
    """``system @ solution = solution`` in place; reads the lower triangle, leaves the inverse pivots on its diagonal.

    The factor is kept apart, strictly below the diagonal and zero elsewhere: inner products may then run over whole
    lanes. The right side is one more row of the matrix, and comes out of the factorization already substituted forward.
    """
    system_SS[size, :size] = solution_S
    lower_SK = np.zeros((size + TILE, _whole_lanes(size)), np.float32)
    for j in range(size):
        pivot_K = lower_SK[j]
        width = _whole_lanes(j)
        total = np.float32(0)
        for k in range(width):
            total += pivot_K[k] * pivot_K[k]
        inverse = np.float32(1) / math.sqrt(system_SS[j, j] - total)
        system_SS[j, j] = inverse
        for i in range(j + 1, size + 1, TILE):
            l0, l1, l2, l3 = lower_SK[i], lower_SK[i + 1], lower_SK[i + 2], lower_SK[i + 3]
            t0 = t1 = t2 = t3 = np.float32(0)
            for k in range(width):
                value = pivot_K[k]
                t0 += value * l0[k]
                t1 += value * l1[k]
                t2 += value * l2[k]
                t3 += value * l3[k]
            l0[j] = (system_SS[i, j] - t0) * inverse
            l1[j] = (system_SS[i + 1, j] - t1) * inverse
            l2[j] = (system_SS[i + 2, j] - t2) * inverse
            l3[j] = (system_SS[i + 3, j] - t3) * inverse
    rest_K = lower_SK[size]
    for i in range(size - 1, -1, -1):
        value, row_K = rest_K[i] * system_SS[i, i], lower_SK[i]
        solution_S[i] = value
        for k in range(_whole_lanes(i)):
            rest_K[k] -= value * row_K[k]


@njit(cache=True, fastmath=True)
def _solve_short(items_H, weights_H, targets_H, factors_ID, penalty_D, out_D) -> None:  # type: ignore[no-untyped-def]
    """Fewer events than dimensions: an (H, H) system, ``x = P^-1 Y' z`` with ``(W^-1 + Y P^-1 Y') z = t``."""
    size, dim = len(items_H), len(penalty_D)
    root_D = np.float32(1) / np.sqrt(penalty_D)
    rows_HK = np.zeros((size + TILE, _whole_lanes(dim)), np.float32)
    system_HH = np.zeros((size + TILE, size + TILE), np.float32)
    solution_H = np.empty(size, np.float32)
    for h in range(size):
        factor_D, row_K = factors_ID[items_H[h]], rows_HK[h]
        for d in range(dim):
            row_K[d] = factor_D[d] * root_D[d]
        system_HH[h, h] = np.float32(1) / weights_H[h]
        solution_H[h] = targets_H[h]
    _add_gram(rows_HK, size, system_HH)
    _cholesky_solve(system_HH, solution_H, size)
    out_D[:] = 0
    for h in range(size):
        row_K, value = rows_HK[h], solution_H[h]
        for d in range(dim):
            out_D[d] += value * row_K[d]
    for d in range(dim):
        out_D[d] *= root_D[d]


@njit(cache=True, fastmath=True)
def _solve_long(items_H, weights_H, targets_H, factors_ID, penalty_D, out_D) -> None:  # type: ignore[no-untyped-def]
    """At least as many events as dimensions: the normal equations ``(P + Y' W Y) x = Y' W t``, (D, D)."""
    dim = len(penalty_D)
    system_DD = np.zeros((dim + TILE, dim + TILE), np.float32)
    rows_DK = np.zeros((dim + TILE, CHUNK), np.float32)
    for d in range(dim):
        system_DD[d, d] = penalty_D[d]
        out_D[d] = 0
    for first in range(0, len(items_H), CHUNK):
        count = min(CHUNK, len(items_H) - first)
        if count < CHUNK:
            rows_DK[:] = 0
        for k in range(count):
            factor_D, weight = factors_ID[items_H[first + k]], weights_H[first + k]
            root, right = math.sqrt(weight), weight * targets_H[first + k]
            for d in range(dim):
                rows_DK[d, k] = root * factor_D[d]
                out_D[d] += right * factor_D[d]
        _add_gram(rows_DK, dim, system_DD)
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
        _solve_rows(order_B, *read_only(*arrays), out_BD)  # type: ignore[call-arg]
    return out_BD
