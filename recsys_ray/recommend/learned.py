"""What rules learn from the times of the training data: what is popular lately, and what at which part of the day.

Both are counted over all histories of a bundle when first asked for, and kept beside it in ``rules/``.

Parts of the week count from 0: night (0 to 6 o'clock), morning, afternoon, evening of working days, then of Saturday
and Sunday. J are these parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.errors import ConfigError, StorageError
from recsys_ray.base.provenance import fingerprint
from recsys_ray.base.types import BoolArray, FloatArray, Histories, ItemLists, LongArray
from recsys_ray.data.features import MILLISECONDS_PER_DAY
from recsys_ray.recommend.bundle import MANIFEST, Bundle
from recsys_ray.recommend.config import TimeOfDaySettings, TrendingSettings
from recsys_ray.retrieval import ExactIndex, TopK

PARTS = 8
HOURS_PER_PART = 6


@dataclass(frozen=True, slots=True)
class Trending:
    """The items of the last days of the data, by the share of all users who had to do with them then."""

    index: ExactIndex
    recent_I: BoolArray
    """Items with an interaction in the window."""


def read_trending(bundle: Bundle, settings: TrendingSettings, what: str) -> Trending:
    """``what`` needs it. Raises ConfigError where the data has no times."""
    window = int(settings.window_days * MILLISECONDS_PER_DAY)

    def counted() -> LongArray:
        last = max((int(found.timestamps_E.max(initial=0)) for found in _each(bundle)), default=0)
        counts_I = np.zeros(bundle.num_items, np.int64)
        if last:
            for found in _each(bundle):
                recent_E = found.items_E[found.timestamps_E > last - window]
                counts_I += np.bincount(recent_E, minlength=bundle.num_items)
        return counts_I

    counts_I = _kept(bundle, ["trending", window], counted)
    if not counts_I.any():
        raise ConfigError(f"{what}: the data has no times to tell what is trending; set data.columns.timestamp")
    shares_I = (counts_I / max(1, int(bundle.manifest["num_users"]))).astype(np.float32)
    return Trending(ExactIndex(np.zeros((bundle.num_items, 0), np.float32), np.minimum(shares_I, 1)), counts_I > 0)


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """How much more often than usual the groups of an item are chosen in each part of the week."""

    settings: TimeOfDaySettings
    lifts_IJ: FloatArray
    """Mean over the groups of an item of the logarithm; 0 is as usual."""

    def part(self, at: int) -> int:
        """The part of the week that a moment (UTC milliseconds) lies in."""
        local = datetime.fromtimestamp(at / 1000, ZoneInfo(self.settings.timezone))
        return local.hour // HOURS_PER_PART + (PARTS // 2 if local.weekday() >= 5 else 0)

    def applied(self, found: TopK, part: int) -> TopK:
        """The candidates in the order of ``score + weight * spread * lift``, spread being the distance between the best
        and the worst score of the request. Where no lift is known, order and scores stay."""
        present_BK = found.rows_BK >= 0
        best_B = np.where(present_BK, found.scores_BK, -np.inf).max(axis=1, initial=-np.inf)
        worst_B = np.where(present_BK, found.scores_BK, np.inf).min(axis=1, initial=np.inf)
        spread_B = np.where(best_B > worst_B, best_B - worst_B, 0).astype(np.float32)
        lifts_BK = np.where(present_BK, self.lifts_IJ[found.rows_BK, part], 0)
        added_BK = np.float32(self.settings.weight) * spread_B[:, None] * lifts_BK
        scores_BK = np.where(present_BK, found.scores_BK + added_BK, -np.inf).astype(np.float32)
        order_BK = np.lexsort((found.rows_BK, -scores_BK))
        rows_BK = np.take_along_axis(found.rows_BK, order_BK, axis=1)
        return TopK(rows_BK, np.take_along_axis(scores_BK, order_BK, axis=1))


def read_time_of_day(bundle: Bundle, settings: TimeOfDaySettings) -> TimeOfDay:
    """Raises ConfigError where the catalogue has no such groups, or the data no times."""
    groups, num_groups = _groups(bundle, settings.by)

    def counted() -> LongArray:
        counts_IJ = np.zeros((bundle.num_items, PARTS), np.int64)
        for histories in _each(bundle):
            timed = histories.only(histories.timestamps_E != 0)
            keys_E = timed.items_E.astype(np.int64) * PARTS + parts_of_week(timed.timestamps_E, settings.timezone)
            counts_IJ += np.bincount(keys_E, minlength=counts_IJ.size).reshape(counts_IJ.shape)
        counts_GJ = np.zeros((num_groups, PARTS), np.int64)
        np.add.at(counts_GJ, groups.items_E, counts_IJ[groups.rows_E])
        return counts_GJ.ravel()

    counts_GJ = _kept(bundle, ["time", settings.by, settings.timezone], counted).reshape(num_groups, PARTS)
    if not counts_GJ.any():
        raise ConfigError("recommend.time_of_day: the data has no times to learn from; set data.columns.timestamp")
    lifts_GJ = shrunk_lifts(counts_GJ, settings.shrink)
    sums_IJ = np.zeros((bundle.num_items, PARTS))
    np.add.at(sums_IJ, groups.rows_E, lifts_GJ[groups.items_E])
    return TimeOfDay(settings, (sums_IJ / np.maximum(1, groups.lengths_B)[:, None]).astype(np.float32))


def shrunk_lifts(counts_GJ: LongArray, shrink: float) -> FloatArray:
    """(G, J) ``log((count + shrink) / (expected + shrink))``, expected being what the part would have of the group if
    the group were as popular in it as over the whole week: near 0 where both are small beside ``shrink``."""
    totals_J, shares_G = counts_GJ.sum(axis=0), counts_GJ.sum(axis=1) / max(1, counts_GJ.sum())
    expected_GJ = shares_G[:, None] * totals_J
    return np.asarray(np.log((counts_GJ + shrink) / (expected_GJ + shrink)), np.float32)


def parts_of_week(timestamps_E: LongArray, timezone: str) -> LongArray:
    """(E,) the part of the week of each moment, as ``TimeOfDay.part``."""
    local = pa.array(timestamps_E).cast(pa.timestamp("ms", timezone))
    hours_E = pc.hour(local).to_numpy(zero_copy_only=False)
    is_weekend_E = pc.day_of_week(local).to_numpy(zero_copy_only=False) >= 5
    return np.asarray(hours_E // HOURS_PER_PART + np.where(is_weekend_E, PARTS // 2, 0), np.int64)


def _groups(bundle: Bundle, by: str) -> tuple[ItemLists, int]:
    """The groups of every item, and how many there are."""
    genres, names = bundle.genres
    if by == "genres":
        if not names:
            raise ConfigError("recommend.time_of_day: the catalogue has no genres; set by to a column of texts")
        return genres, len(names)
    if by not in bundle.items.schema.names or not pa.types.is_string(bundle.items.schema.field(by).type):
        raise ConfigError(f"recommend.time_of_day.by={by}: no such column of texts; name it in data.item_columns.keep")
    encoded = bundle.items.column(by).combine_chunks().dictionary_encode()
    codes_I = encoded.indices.fill_null(-1).to_numpy()
    lists = [[code] if code >= 0 else [] for code in codes_I.tolist()]
    return ItemLists.from_lists(lists), len(encoded.dictionary)


def _each(bundle: Bundle) -> Iterator[Histories]:
    """The histories of one shard after the other."""
    return (bundle.requests(shard).histories for shard in range(bundle.num_shards))


def _kept(bundle: Bundle, key: list[object], counted: Callable[[], LongArray]) -> LongArray:
    """The numbers that were counted before for this key, else counted now and kept, where the bundle can keep them."""
    file = bundle.location / "rules" / f"{key[0]}-{fingerprint(key)[:12]}.parquet"
    is_saved = (bundle.location / MANIFEST).exists()
    if is_saved and file.exists():
        with suppress(StorageError, KeyError):  # damaged: counted again
            return np.asarray(file.read_parquet().column("count").to_numpy(), np.int64)
    counts_N = counted()
    if is_saved:
        with suppress(StorageError):  # where a bundle can't be written to, every process counts for itself
            file.write_parquet(pa.table({"count": counts_N}))
    return counts_N
