"""What prepared data holds, counted shard by shard: sums that add up in any order, then one description of all.

Times are UTC. E are the interactions of a shard, those below ``min_rating`` included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import schema
from recsys_ray.base.storage import Location
from recsys_ray.base.types import LongArray, MapBlocks, map_blocks_here
from recsys_ray.data.prepare.shard import Shard
from recsys_ray.data.prepared import Prepared

MOST_RATINGS = 50
"""Different ratings that are counted one by one; more are put into as many bins."""
HOUR, DAY = 3_600_000, 86_400_000
BUCKETS = 12
"""Users and items of 1, 2 to 3, 4 to 7, ... interactions."""
SHORT = 5
"""Users and items with fewer interactions are called cold."""


@dataclass(frozen=True)
class Explored:
    """Sums over some of the shards: arrays by name that add up, and counts by value."""

    sums: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    counts: Mapping[str, Counter[Any]] = field(default_factory=dict)
    times: tuple[int, int] | None = None
    """First and last time that is not 0, in milliseconds."""

    def merge(self, other: Explored) -> Explored:
        """The sums over both."""
        sums = dict(self.sums)
        for name, array in other.sums.items():
            sums[name] = sums[name] + array if name in sums else array
        names = dict.fromkeys([*self.counts, *other.counts])
        nothing: Counter[Any] = Counter()
        counts = {name: self.counts.get(name, nothing) + other.counts.get(name, nothing) for name in names}
        times = [times for times in (self.times, other.times) if times is not None]
        both = (min(low for low, _ in times), max(high for _, high in times)) if times else None
        return Explored(sums, counts, both)


def explore(prepared: Prepared, map_blocks: MapBlocks = map_blocks_here) -> Explored:
    """All shards together, each read once."""
    total = Explored()
    for part in map_blocks(_explore_shard, range(prepared.num_shards), str(prepared.location), "report: count"):
        total = total.merge(part)
    return total


def density(prepared: Prepared, item_counts_I: LongArray, map_blocks: MapBlocks = map_blocks_here) -> LongArray:
    """(BUCKETS, BUCKETS) interactions of users with so many by items with so many; doubling from bucket to bucket."""
    shared = (str(prepared.location), bucket(item_counts_I))
    return np.asarray(sum(map_blocks(_density_shard, range(prepared.num_shards), shared, "report: density")), np.int64)


def bucket(counts: LongArray) -> LongArray:
    """Of a count its place among 1, 2 to 3, 4 to 7, ...; the last takes all that is above."""
    return np.minimum(np.log2(np.maximum(counts, 1)).astype(np.int64), BUCKETS - 1)


@lru_cache(maxsize=1)  # a worker looks at many shards of the same data
def _opened(location: str) -> Prepared:
    return Prepared.open(Location(location))


def _density_shard(shard: int, shared: tuple[str, LongArray]) -> LongArray:
    location, buckets_I = shared
    users = Shard.from_table(_opened(location).shard(shard))
    cells_E = bucket(users.lengths_B)[users.rows_E] * BUCKETS + buckets_I[users.items_E]
    return np.bincount(cells_E, minlength=BUCKETS * BUCKETS).reshape(BUCKETS, BUCKETS)


def _explore_shard(shard: int, location: str) -> Explored:
    prepared = _opened(location)
    users, num_items = Shard.from_table(prepared.shard(shard)), prepared.num_items
    ratings_E, timed_E = users.ratings_E.astype(np.float64), users.timestamps_E != 0
    times_E = users.timestamps_E[timed_E]
    some_B = users.lengths_B > 0
    sums_B = np.bincount(users.rows_E, ratings_E, minlength=len(users))
    first_B = users.timestamps_E[users.offsets_B1[:-1][some_B]]  # the oldest comes first
    sums = {
        "users": np.array(len(users)),
        "interactions": np.array(len(ratings_E)),
        "rating_sum": np.array(ratings_E.sum()),
        "rating_squares": np.array(ratings_E @ ratings_E),
        "untimed": np.array((~timed_E).sum()),
        "below_threshold": np.array((~users.positive_E).sum()),
        "item_counts": np.bincount(users.items_E, minlength=num_items),
        "item_ratings": np.bincount(users.items_E, ratings_E, minlength=num_items),
        "hours": np.bincount(times_E // HOUR % 24, minlength=24),
        "weekdays": np.bincount((times_E // DAY + 3) % 7, minlength=7),  # 1970-01-01 was a Thursday; 0 is Monday
        **_across_parts(users),
    }
    counts = {
        "ratings": Counter(np.round(ratings_E, 2).tolist()),
        "user_means": Counter(np.round(sums_B[some_B] / users.lengths_B[some_B], 1).tolist()),
        "lengths": Counter(users.lengths_B.tolist()),
        "months": Counter(_months(times_E)),
        "new_users": Counter(_months(first_B[first_B != 0])),
        "names": Counter(_plain_names(users.user_ids)),
    }
    return Explored(sums, counts, (int(times_E.min()), int(times_E.max())) if len(times_E) else None)


def _across_parts(users: Shard) -> dict[str, npt.NDArray[Any]]:
    """What of the held-out parts is known from the training part, or should not be."""
    parts_E = users.parts_E & np.uint8(schema.PART_MASK)
    train_E, test_E = parts_E == schema.TRAIN, parts_E == schema.PARTS["test"]
    held_E = (parts_E != schema.TRAIN) & users.positive_E
    pairs_E = users.rows_E.astype(np.int64) << 32 | users.items_E
    lowest, highest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    newest_B, oldest_B = np.full(len(users), lowest), np.full(len(users), highest)
    np.maximum.at(newest_B, users.rows_E[train_E], users.timestamps_E[train_E])
    np.minimum.at(oldest_B, users.rows_E[test_E], users.timestamps_E[test_E])
    both_B = (newest_B != lowest) & (oldest_B != highest) & (newest_B != 0)
    earlier_E = test_E & (users.timestamps_E < newest_B[users.rows_E]) & both_B[users.rows_E]
    return {
        "held_out": np.array(held_E.sum()),
        "leaked": np.array(np.isin(pairs_E[held_E], pairs_E[train_E]).sum()),
        "parts": np.bincount(parts_E[users.positive_E], minlength=len(schema.PARTS)),
        "tested_users": np.array(both_B.sum()),
        "tied_users": np.array((both_B & (newest_B == oldest_B)).sum()),
        "tested": np.array((test_E & both_B[users.rows_E]).sum()),
        "tested_earlier": np.array(earlier_E.sum()),
    }


def _months(times: LongArray) -> list[int]:
    """Months since year 0."""
    months = times.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    return [int(month) for month in months + 1970 * 12]


def _plain_names(ids: pa.Array) -> list[str]:
    """Ids as somebody could mean them: without outer space, in one case, numbers without leading zeros."""
    if not pa.types.is_string(ids.type):
        return []
    return [str(name) for name in plain_names(ids).to_pylist()]


def plain_names(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The same for any column of text."""
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(ids))
    return pc.replace_substring_regex(lower, r"^0+(\d+)$", r"\1")
