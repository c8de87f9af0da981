"""One search: blocks of queries through the scan, and what the scan can't settle through less and less rough passes.

B are the queries of a call, R those of a block, P the positions of the scan, J its columns.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys_ray.base.blas import one_blas_thread
from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import FloatArray, IntArray, ItemLists, LongArray
from recsys_ray.retrieval.exact.lanes import LANES
from recsys_ray.retrieval.exact.product import BitsArray, multiply
from recsys_ray.retrieval.exact.scan import (
    CROWDED,
    FINISHED,
    SCANNING,
    Lengths,
    Pool,
    rank_exactly,
    scan_tile,
    settle_rows,
)
from recsys_ray.retrieval.exact.scan_items import PreparedItems, measured, places
from recsys_ray.retrieval.exact.threads import num_workers, run_blocks
from recsys_ray.retrieval.topk import TopK, hidden_places

MAX_ROWS = 2048
TILE_SCORES = 1 << 21  # 2,048 queries x 1,024 items: enough rows for the product, short enough to be read from cache
MIN_TILE, MAX_TILE = 512, 8192
LARGEST_ROUGH_SCORE = 1e37  # above, float32 sums might overflow: such queries are ranked without a scan


@dataclass(slots=True)
class Scratch:
    """What one worker writes to, made when first needed."""

    num_bytes: int
    tiles: dict[np.dtype[Any], BitsArray] = field(default_factory=dict)
    pool: Pool | None = None

    def tile(self, dtype: np.dtype[Any], rows: int) -> BitsArray:
        """Room for MIN_TILE scores of each of these rows, and up to TILE_SCORES where that fits in half the bytes."""
        size = max(rows * MIN_TILE, min(TILE_SCORES, rows * MAX_TILE, self.num_bytes // 8))
        if dtype not in self.tiles or len(self.tiles[dtype]) < size:
            self.tiles[dtype] = np.empty(size, dtype)
        return self.tiles[dtype]


@dataclass(frozen=True, slots=True)
class Search:
    """Fills ``top`` for all queries; ``scans`` are the precisions to try in turn before the exact pass."""

    items_ID: FloatArray
    bias_I: FloatArray
    queries_BD: FloatArray
    exclude: ItemLists
    rows_P: IntArray
    """The allowed item rows, ascending."""
    scans: tuple[str, ...]
    prepared: Callable[[str], PreparedItems]
    too_rough: Callable[[str], None]
    """Told when a precision left many queries of a block undecided."""
    top: TopK

    def run(self, block_bytes: int) -> None:
        workers = num_workers()
        num_rows, k = self.top.rows_BK.shape
        row_bytes = 4 * MIN_TILE + 12 * _capacity(k) + 16 * self.queries_BD.shape[1]
        most = max(1, min(MAX_ROWS, block_bytes // workers // row_bytes))
        blocks = -(-num_rows // (most * workers)) * workers
        if self.scans:
            self.prepared(self.scans[0])
        with one_blas_thread() if self.scans else nullcontext():
            run_blocks(num_rows, -(-num_rows // blocks), lambda: Scratch(block_bytes // workers), self._block)

    def _block(self, scratch: Scratch, start: int, stop: int) -> None:
        rows_R = np.arange(start, stop)
        for name in self.scans:
            left_R = self._scan(name, scratch, rows_R)
            rows_R = rows_R[left_R]
            if not len(rows_R):
                return
        self._exact_pass(rows_R)

    def _scan(self, name: str, scratch: Scratch, rows_R: LongArray) -> LongArray:
        """Settle what this precision can settle; the places in ``rows_R`` of what it can't."""
        items, k = self.prepared(name), self.top.rows_BK.shape[1]
        queries_RD = self.queries_BD[rows_R]
        bits_RJ, lengths, _ = measured(queries_RD, items.num_columns, items.precision)
        bits_RJ[:, self.queries_BD.shape[1] :] = np.float32(1.0).view(np.int32) >> items.precision.shift
        exclude = self.exclude.take(rows_R)
        hidden_E = hidden_places(exclude, 0, len(rows_R), items.place_I)
        pool = _fresh_pool(scratch, len(rows_R), k)
        reach_R = lengths.given_R * items.tail_length_P[0] + items.tail_bias_size_P[0]
        hopeless_R = (lengths.given_R == 0.0) | (reach_R > LARGEST_ROUGH_SCORE)
        pool.state_R[hopeless_R] = CROWDED
        tile = scratch.tile(items.matrix_PJ.dtype, len(rows_R))
        _scan_tiles(items, bits_RJ, tile, pool, lengths, exclude.offsets_B1, hidden_E)
        found = TopK.nothing(len(rows_R), k)
        settle_rows(pool, queries_RD, self.items_ID, self.bias_I, items.order_P, found.rows_BK, found.scores_BK)
        self.top.rows_BK[rows_R], self.top.scores_BK[rows_R] = found.rows_BK, found.scores_BK
        left_R = np.flatnonzero(pool.state_R != FINISHED)
        if 4 * (len(left_R) - np.count_nonzero(hopeless_R)) > len(rows_R) >= 64:
            self.too_rough(name)
        return left_R

    def _exact_pass(self, rows_R: LongArray) -> None:
        """Rank queries over the exact scores of all allowed items."""
        exclude = self.exclude.take(rows_R)
        hidden_E = hidden_places(exclude, 0, len(rows_R), places(self.rows_P, len(self.items_ID)))
        scores_P = np.empty(len(self.rows_P), np.float32)
        keys = np.empty(2 * self.top.rows_BK.shape[1] + LANES, np.int64)
        for place, row in enumerate(rows_R):
            self.top.rows_BK[row], self.top.scores_BK[row] = -1, -np.inf
            sound = rank_exactly(
                self.queries_BD[row],
                self.items_ID,
                self.bias_I,
                self.rows_P,
                hidden_E[exclude.offsets_B1[place] : exclude.offsets_B1[place + 1]],
                scores_P,
                keys,
                self.top.rows_BK[row],
                self.top.scores_BK[row],
            )
            if not sound:
                raise ModelError(f"query {row}: a score is beyond float32; scale the query or item vectors down")


def _scan_tiles(
    items: PreparedItems,
    queries_RJ: BitsArray,
    tile: BitsArray,
    pool: Pool,
    lengths: Lengths,
    offsets_R1: LongArray,
    hidden_E: IntArray,
) -> None:
    """Multiply tile by tile, and leave out queries that are finished once they are many enough to matter."""
    active_R = np.flatnonzero(pool.state_R == SCANNING)
    if len(active_R) < len(queries_RJ):
        queries_RJ = queries_RJ[active_R]
    position, padded = 0, len(items.matrix_PJ)
    while len(active_R) and position < padded:
        rows = len(active_R)
        width = min(len(tile) // rows // LANES * LANES, MAX_TILE)
        span = items.span(position, width)
        bits_RT = tile[: rows * span.width].reshape(rows, span.width)
        multiply(queries_RJ, items.matrix_PJ[position : position + span.width], bits_RT)
        alive = scan_tile(bits_RT, active_R, span, items.precision, lengths, pool, offsets_R1, hidden_E)
        if 4 * alive < 3 * rows:
            kept_R = pool.state_R[active_R] == SCANNING
            active_R, queries_RJ = active_R[kept_R], queries_RJ[kept_R]
        position += span.width


def _capacity(k: int) -> int:
    """Candidates kept for a query: room for many that the scan can't tell apart, before a finer pass is cheaper."""
    return 4 * k + 128


def _fresh_pool(scratch: Scratch, rows: int, k: int) -> Pool:
    if scratch.pool is None or len(scratch.pool.state_R) < rows:
        size, capacity = rows, _capacity(k)
        scratch.pool = Pool(
            np.empty(size, np.uint8),
            np.empty(size, np.float32),
            np.empty(size, np.int64),
            np.empty(size, np.int64),
            np.empty(size, np.int64),
            np.empty((size, capacity), np.int32),
            np.empty((size, capacity), np.float32),
            np.empty((size, capacity), np.float32),
            np.empty(capacity, np.int64),
            k,
        )
    pool = Pool._make([*(part[:rows] for part in scratch.pool[:-2]), *scratch.pool[-2:]])
    pool.state_R[:] = SCANNING
    pool.threshold_R[:] = -np.inf
    pool.count_R[:] = 0
    pool.limit_R[:] = 2 * k + 16
    pool.cursor_R[:] = 0
    return pool
