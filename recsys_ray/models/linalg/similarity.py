"""Sparse item-item matrices, built in blocks of rows so that memory stays bounded, on as many machines as there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_ray.base.ragged import offsets
from recsys_ray.base.types import Counts, FitContext, FloatArray, IntArray, LongArray, MemoryEstimate
from recsys_ray.models.linalg.sparse import (
    SparseRows,
    add_sparse_rows,
    count_largest,
    keep_largest,
    threads_for,
)

if TYPE_CHECKING:
    import scipy.sparse as sp

BLOCK_BYTES = 64 << 20  # of dense rows that a worker holds at a time


@dataclass(frozen=True, slots=True)
class ItemProduct:
    """The item-item matrix ``left @ right``, finished row by row."""

    left_IU: SparseRows
    right_UI: SparseRows
    norms_I: FloatArray | None = None
    """When given, entry (i, j) is divided by ``norms[i] * norms[j] + shrinkage``."""
    shrinkage: float = 0.0
    neighbors: int | None = None
    """Keep so many largest entries of a row; of equals, the lower items. None keeps all."""
    keep_diagonal: bool = False


def multiply(product: ItemProduct, num_items: int, context: FitContext, label: str) -> SparseRows:
    """(I, I) the finished matrix. Time: one addition per pair of items in a user's history."""
    return by_rows(multiply_block, product, num_items, context, label)


def by_rows(
    fn: Callable[[tuple[int, int], Any], tuple[LongArray, IntArray, FloatArray]],
    shared: Any,
    num_items: int,
    context: FitContext,
    label: str,
) -> SparseRows:
    """(I, I) a matrix that ``fn((start, stop), shared)`` gives some rows of: entries per row, columns, values."""
    rows = max(1, min(BLOCK_BYTES // (4 * num_items), -(-num_items // context.num_blocks)))
    blocks = [(start, min(start + rows, num_items)) for start in range(0, num_items, rows)]
    parts = list(context.map_blocks(fn, blocks, shared=shared, label=label))
    counts_I = np.concatenate([part[0] for part in parts])
    return SparseRows(
        offsets(counts_I),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
    )


def multiply_block(block: tuple[int, int], product: ItemProduct) -> tuple[LongArray, IntArray, FloatArray]:
    """Rows start:stop of the matrix as (entries per row, columns, values)."""
    start, stop = block
    left = product.left_IU
    num_items = len(left.offsets) - 1
    dense_RI = np.zeros((stop - start, num_items), np.float32)
    add_sparse_rows(SparseRows(left.offsets[start : stop + 1], left.columns, left.values), product.right_UI, dense_RI)
    if product.norms_I is not None:
        divisor_RI = product.norms_I[start:stop, None] * product.norms_I[None, :] + np.float32(product.shrinkage)
        # Without interactions a norm, and with it a divisor, can be 0: so is the entry, and it stays 0.
        np.divide(dense_RI, divisor_RI, out=dense_RI, where=divisor_RI > 0)
    if not product.keep_diagonal:
        dense_RI[np.arange(stop - start), np.arange(start, stop)] = 0
    return largest_of_rows(dense_RI, num_items if product.neighbors is None else product.neighbors)


def largest_of_rows(dense_RI: FloatArray, limit: int) -> tuple[LongArray, IntArray, FloatArray]:
    """The non-zeros of every row, at most the ``limit`` largest, as (entries per row, columns, values)."""
    counts_R = np.zeros(len(dense_RI), np.int64)
    with threads_for(dense_RI.size):
        count_largest(dense_RI, limit, counts_R)
    offsets_R1 = offsets(counts_R)
    columns_Z = np.empty(offsets_R1[-1], np.int32)
    values_Z = np.empty(offsets_R1[-1], np.float32)
    with threads_for(dense_RI.size):
        keep_largest(dense_RI, offsets_R1, columns_Z, values_Z)
    return counts_R, columns_Z, values_Z


def scaled(matrix: sp.csr_matrix, rows: FloatArray | None = None, columns: FloatArray | None = None) -> SparseRows:
    """``diag(rows) @ matrix @ diag(columns)``."""
    values = matrix.data
    if rows is not None:
        values = values * np.repeat(rows, np.diff(matrix.indptr))
    if columns is not None:
        values = values * columns[matrix.indices]
    return SparseRows(matrix.indptr.astype(np.int64), matrix.indices, values.astype(np.float32))


def product_memory(counts: Counts, neighbors: int | None, advice: str) -> MemoryEstimate:
    """Peak of ``multiply``: the matrix in parts and in one piece, 8 bytes an entry, and the interactions both ways."""
    entries = min(counts.num_pairs, counts.num_items**2)
    if neighbors is not None:
        entries = min(entries, counts.num_items * neighbors)
    return MemoryEstimate(2 * 8 * entries + 32 * counts.num_interactions + 3 * BLOCK_BYTES, advice)
