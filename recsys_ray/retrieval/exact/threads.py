"""Blocks of rows side by side: one thread per processor, each running its own small matrix products.

Two thread pools (that of BLAS or torch, and a compiler's) that take turns on the same tile wait for each other longer
than they work, and a tile is fastest where it was just written. So a worker owns its block from the product to the last
candidate.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from recsys_ray.retrieval.exact.product import loaded_torch

Scratch = TypeVar("Scratch")

MAX_WORKERS = 16  # beyond that the interpreter lock between two tiles costs more than a worker brings
_LOCK = threading.Lock()
_POOLS: dict[tuple[int, int, bool], ThreadPoolExecutor] = {}


def num_workers() -> int:
    """The threads this process may use: the smaller of numba's setting and torch's, where torch is loaded."""
    import numba

    torch = loaded_torch()
    threads = MAX_WORKERS if torch is None else torch.get_num_threads()
    return int(min(threads, numba.get_num_threads(), MAX_WORKERS))


def run_blocks(
    num_rows: int, rows_per_block: int, new_scratch: Callable[[], Scratch], work: Callable[[Scratch, int, int], None]
) -> None:
    """``work(scratch, start, stop)`` for all blocks of rows; a scratch is made per worker, not per block."""
    starts = iter(range(0, num_rows, max(rows_per_block, 1)))

    def take_blocks(_: int) -> None:
        scratch: Scratch | None = None
        while True:
            with _LOCK:
                start = next(starts, None)
            if start is None:
                return
            if scratch is None:
                scratch = new_scratch()
            work(scratch, start, min(start + rows_per_block, num_rows))

    workers = min(num_workers(), -(-num_rows // max(rows_per_block, 1)))
    if workers <= 1:
        take_blocks(0)
    else:
        list(_pool(workers).map(take_blocks, range(workers)))


def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads whose torch operations do not spread further; the caller's own setting stays as it is."""
    torch = loaded_torch()
    with _LOCK:
        key = (os.getpid(), workers, torch is not None)
        if key in _POOLS:
            return _POOLS[key]
        if torch is None:
            _POOLS[key] = ThreadPoolExecutor(workers, "exact-search")
        else:
            threads = torch.get_num_threads()
            together = threading.Barrier(workers)
            pool = ThreadPoolExecutor(workers, "exact-search", initializer=torch.set_num_threads, initargs=(1,))
            # torch reads its process-wide setting when a thread first asks, so each asks before it is put back.
            list(pool.map(lambda _: (together.wait(), torch.get_num_threads()), range(workers)))
            torch.set_num_threads(threads)
            _POOLS[key] = pool
        return _POOLS[key]
