"""k-core: users and items with too few positives removed together, until neither removes more (Seidman 1983).

What is left is the largest set in which every user has ``k_users`` positives and every item ``k_items``; it does not
depend on the order of removal. The driver holds one flag per item, a shard holds its users.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, LongArray, MapBlocks
from recsys_ray.data.prepare.shard import Core, load_grouped


@dataclass(frozen=True, slots=True)
class CountJob:
    directory: Location
    user_type: pa.DataType
    core: Core


def count_shard(shard: int, job: CountJob) -> tuple[int, LongArray, LongArray]:
    """Living users of a shard; items with positives from them, and how many."""
    left = load_grouped(job.directory, shard, job.user_type, job.core)
    counts = np.bincount(left.items_E[left.positive_E])
    return len(left.user_ids), np.flatnonzero(counts), counts[counts > 0]


def find_core(
    directory: Location,
    user_type: pa.DataType,
    num_shards: int,
    counts_I: LongArray,
    minimum: tuple[int, int],
    run: tuple[MapBlocks, Callable[[str], None]],
) -> tuple[Core, LongArray]:
    """The core and its positives per item. ``counts_I``: positives before; ``minimum``: per user, per item.

    Raises:
        DataError: nothing is left.
    """
    (k_users, k_items), (map_blocks, progress) = minimum, run
    core = Core(k_users, np.ones(len(counts_I), bool) if k_items == 0 else counts_I >= k_items)
    if k_users == 0 and (k_items == 0 or core.alive_I.all()):
        return core, counts_I
    for pass_number in itertools.count(1):
        job = CountJob(directory, user_type, core)
        num_users, counts_I = 0, np.zeros(len(counts_I), np.int64)
        for users, items, counts in map_blocks(count_shard, range(num_shards), job, "prepare: k-core"):
            num_users += users
            counts_I[items] += counts
        alive_I: BoolArray = core.alive_I & (counts_I >= k_items)
        progress(f"prepare: k-core pass {pass_number}: {num_users:,} users, {int(alive_I.sum()):,} items left")
        if num_users == 0 or not alive_I.any():
            raise DataError(
                f"data.filters.k_core_users={k_users} and k_core_items={k_items} leave no interactions; set them lower"
            )
        if (alive_I == core.alive_I).all():
            return core, counts_I
        core = Core(k_users, alive_I)
    raise AssertionError("every pass but the last removes an item")
