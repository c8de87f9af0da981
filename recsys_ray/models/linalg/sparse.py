"""The inner loops of the linear models: sums of sparse and dense rows, and the largest entries of a row.

Every output row is worked out by one thread, in an order that depends on that row's input alone: a result doesn't
change by a bit with the batch it is computed in, nor with the number of threads.

Z are the stored non-zeros of W. A ragged array is a pair (offsets_B1, values_E); row r is
``offsets[r]:offsets[r + 1]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_ray.base.kernels import njit, prange
from recsys_ray.base.types import FloatArray, IntArray, LongArray

WORK_PER_THREAD = 1 << 16  # multiply-adds below which waking another thread takes longer than the work
TILE = 4096  # columns of a dense output row that stay in the first-level cache while a history is added up


@dataclass(frozen=True, slots=True)
class SparseRows:
    """A sparse float32 matrix by rows: row r has ``columns`` and ``values`` at ``offsets[r]:offsets[r + 1]``.

    Unlike scipy's it never converts, checks or copies what it is given, which may be a memory map of many gigabytes,
    and allows more than 2^31 entries with 32-bit columns.
    """

    offsets: LongArray
    columns: IntArray
    values: FloatArray


def read_only(*arrays: npt.NDArray[Any]) -> Any:
    """Plain read-only views. Fitted arrays and memory maps then look alike to numba, and a kernel is compiled once."""
    views = [np.asarray(array).view() for array in arrays]
    for view in views:
        view.flags.writeable = False
    return views


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """Compiled loops inside take no more threads than ``work`` multiply-adds are worth: a single request takes one."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(int(max(1, min(before, work // WORK_PER_THREAD))))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def add_sparse_rows(rows: SparseRows, weights: SparseRows, out_BI: FloatArray) -> None:
    """``out += rows @ weights``; -inf in ``out`` counts as nothing yet.

    Filled with -inf before, ``out`` keeps -inf exactly where no stored entry of ``weights`` was met.
    """
    arrays = (rows.offsets, rows.columns, rows.values, weights.offsets, weights.columns, weights.values)
    with threads_for(len(rows.columns) * len(weights.columns) / max(len(weights.offsets) - 1, 1)):
        _add_sparse_rows(*read_only(*arrays), out_BI)


def add_dense_rows(rows: SparseRows, weights_IJ: FloatArray, out_BJ: FloatArray) -> None:
    """``out += rows @ weights``, bound by reading the weights: a tile of ``out`` stays in cache for a whole history."""
    with threads_for(len(rows.columns) * weights_IJ.shape[1]):
        _add_dense_rows(*read_only(rows.offsets, rows.columns, rows.values, weights_IJ), out_BJ)


@njit(cache=True, parallel=True)
def _add_sparse_rows(  # type: ignore[no-untyped-def]
    offsets_B1, items_E, values_E, offsets_I1, columns_Z, values_Z, out_BI
) -> None:
    for b in prange(out_BI.shape[0]):
        out = out_BI[b]
        for e in range(offsets_B1[b], offsets_B1[b + 1]):
            item, value = items_E[e], values_E[e]
            for n in range(offsets_I1[item], offsets_I1[item + 1]):
                column = columns_Z[n]
                before = out[column]
                out[column] = value * values_Z[n] + (np.float32(0.0) if before == -np.inf else before)


@njit(cache=True, parallel=True)
def _add_dense_rows(offsets_B1, items_E, values_E, weights_IJ, out_BJ) -> None:  # type: ignore[no-untyped-def]
    num_columns = out_BJ.shape[1]
    for b in prange(out_BJ.shape[0]):
        for start in range(0, num_columns, TILE):
            stop = min(start + TILE, num_columns)
            out = out_BJ[b, start:stop]
            for e in range(offsets_B1[b], offsets_B1[b + 1]):
                value = values_E[e]
                row = weights_IJ[items_E[e], start:stop]
                for column in range(stop - start):
                    out[column] += value * row[column]


@njit(cache=True, parallel=True)
def count_largest(dense_BI, limit, counts_B) -> None:  # type: ignore[no-untyped-def]
    """How many non-zeros of every row are kept: all of them, or the ``limit`` largest."""
    for b in prange(dense_BI.shape[0]):
        count = 0
        for column in range(dense_BI.shape[1]):
            if dense_BI[b, column] != 0:
                count += 1
        counts_B[b] = min(count, limit)


@njit(cache=True, parallel=True)
def keep_largest(dense_BI, offsets_B1, columns_Z, values_Z) -> None:  # type: ignore[no-untyped-def]
    """The largest non-zeros of every row, as many as the offsets have room for, in column order.

    Of equal values at the border the lower columns are kept.
    """
    for b in prange(dense_BI.shape[0]):
        row = dense_BI[b]
        room = offsets_B1[b + 1] - offsets_B1[b]
        if room == 0:
            continue
        present = row[row != 0]
        threshold = -np.inf
        ties = 0
        if room < len(present):
            threshold = np.partition(present, len(present) - room)[len(present) - room]
            ties = room - np.sum(present > threshold)
        place = offsets_B1[b]
        for column in range(len(row)):
            value = row[column]
            if value == 0 or value < threshold:
                continue
            if value == threshold:
                if ties == 0:
                    continue
                ties -= 1
            columns_Z[place] = column
            values_Z[place] = value
            place += 1
