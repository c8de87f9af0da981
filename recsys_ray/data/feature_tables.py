"""Features of users, items and interactions as tables, shard by shard: what the models compute, for other programs.

    users/part-*.parquet          a user a row: activity, ratings, recency, top genres, what the table of users says
    items.parquet                 an item a row: the catalogue, popularity, ratings and their trend
    interactions/part-*.parquet   an event a row: the rating by the user's own measure, weekday, hour, part of the split

Users and items are described by the events of ``parts`` alone, so that nothing of a held-out part is in them. E are the
events of a shard, B its users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.provenance import Stamp, stamp
from recsys_ray.base.ragged import list_array, offsets
from recsys_ray.base.storage import Location
from recsys_ray.base.types import DoubleArray, FloatArray, Histories, IntArray, LongArray
from recsys_ray.data.config import FeatureSettings
from recsys_ray.data.features import MILLISECONDS_PER_DAY, HistorySums, catalogue_features
from recsys_ray.data.genres import item_genres
from recsys_ray.data.prepare.shard import Shard, part_file
from recsys_ray.data.prepared import Prepared

USERS, ITEMS, INTERACTIONS = "users", "items.parquet", "interactions"
DAYS_PER_YEAR = 365.25
THURSDAY = 3
"""The weekday, Monday being 0, of 1 January 1970."""


@dataclass(frozen=True, slots=True)
class FeatureJob:
    """What a shard's features are made from and where they go."""

    prepared: str
    output: str
    settings: FeatureSettings


@dataclass(frozen=True, slots=True)
class ItemSums:
    """Sums over events by item, which shards add up."""

    sums_SI: DoubleArray
    """(6, I) as ``_sums`` gives them."""
    files: dict[str, Stamp]
    """What the shard wrote."""

    def __add__(self, other: ItemSums) -> ItemSums:
        return ItemSums(self.sums_SI + other.sums_SI, self.files | other.files)


def write_shard(shard: int, job: FeatureJob) -> ItemSums:
    """Users and interactions of a shard; what it adds to the items."""
    (prepared, genres_IG, names), output = _opened(job.prepared), Location(job.output)
    requests = prepared.requests(shard, tuple(job.settings.parts))
    now = newest(prepared)
    users = user_features(requests.histories, genres_IG, names, now, job.settings.top_genres)
    table = pa.table({"user_id": requests.user_ids} | users)
    if (attributes := requests.attributes) is not None:
        for column in attributes.column_names:
            name = f"{column}_given" if column in table.column_names else column
            table = table.append_column(name, attributes.column(column))
    events = interaction_features(Shard.from_table(prepared.shard(shard)), users, prepared.items)
    files = {}
    for folder, rows in ((USERS, table), (INTERACTIONS, events)):
        name = f"{folder}/{part_file(shard)}"
        files[name] = stamp((output / name).write_parquet(rows))
    return ItemSums(item_sums(requests.histories, prepared.num_items, now), files)


@lru_cache(maxsize=1)  # a worker describes many shards of the same data
def _opened(location: str) -> tuple[Prepared, FloatArray, list[str]]:
    """Prepared data, the genres of its items, and the names of these."""
    prepared = Prepared.open(Location(location))
    return prepared, catalogue_features(prepared.items).genres_IG, sorted(item_genres(prepared.items)[1])


def newest(prepared: Prepared) -> float:
    """The moment from which recency counts back: that of the newest event of all."""
    return float((prepared.manifest["timestamp_range"] or [0, 0])[1])


def user_features(
    histories: Histories, genres_IG: FloatArray, genre_names: Sequence[str], now: float, top: int
) -> dict[str, Any]:
    """Columns of B users: count, rating_mean, rating_std, rating_range, per_month, recency_days, rating_trend (change a
    year), top_genres; null where a history says nothing."""
    sums = HistorySums.of(histories, genres_IG)
    numbers = sums.numbers(now)
    some_B = histories.lengths_B > 0
    columns: dict[str, Any] = {"count": pa.array(histories.lengths_B)}
    for name, values_B in numbers.items():
        if name != "count":
            columns[name] = pa.array(values_B.astype(np.float32), mask=~some_B)
    trend_B = _slope(*_sums(histories.rows_E, len(histories), histories, now))
    columns["rating_trend"] = pa.array(trend_B.astype(np.float32), mask=~np.isfinite(trend_B))
    columns["top_genres"] = _top_genres(sums.genres_BG, genre_names, top)
    return columns


def item_sums(histories: Histories, num_items: int, now: float) -> DoubleArray:
    """(6, I) what ``item_table`` is made from; of several shards they are added."""
    return _sums(histories.items_E, num_items, histories, now)


def item_table(items: pa.Table, sums_SI: DoubleArray) -> pa.Table:
    """The catalogue with count, log_popularity, rating_mean, rating_std and rating_trend (change a year)."""
    count_I, rating_I, square_I = sums_SI[:3]
    some_I, any_I = np.maximum(count_I, 1), count_I > 0
    mean_I = rating_I / some_I
    variance_I = np.maximum(square_I / some_I - mean_I**2, 0)
    variance_I = np.where(variance_I > 1e-9 * mean_I**2, variance_I, 0)
    trend_I = _slope(*sums_SI)
    added = {
        "count": pa.array(count_I.astype(np.int64)),
        "log_popularity": pa.array(np.log1p(count_I).astype(np.float32)),
        "rating_mean": pa.array(mean_I.astype(np.float32), mask=~any_I),
        "rating_std": pa.array(np.sqrt(variance_I).astype(np.float32), mask=~any_I),
        "rating_trend": pa.array(trend_I.astype(np.float32), mask=~np.isfinite(trend_I)),
    }
    for name, column in added.items():
        items = items.append_column(f"{name}_learned" if name in items.column_names else name, column)
    return items


def interaction_features(shard: Shard, users: dict[str, Any], items: pa.Table) -> pa.Table:
    """A row an event, user by user, oldest first: ids, rating, timestamp, rating_z (by the mean and deviation of the
    user, 0 where all ratings are alike), weekday (Monday is 0), hour (UTC), part, and whether it may teach."""
    rows_E = shard.rows_E
    mean_B, std_B = (users[name].to_numpy(zero_copy_only=False) for name in ("rating_mean", "rating_std"))
    spread_E, apart_E = std_B[rows_E], shard.ratings_E - mean_B[rows_E]
    z_E = np.where(spread_E > 0, apart_E / np.where(spread_E > 0, spread_E, 1), 0.0)
    unknown_E = np.isnan(mean_B[rows_E])
    has_time_E = shard.timestamps_E != 0
    days_E, rest_E = np.divmod(shard.timestamps_E, MILLISECONDS_PER_DAY)
    names = pa.array(list(schema.PARTS))
    return pa.table(
        {
            "user_id": shard.user_ids.take(pa.array(rows_E)),
            "item_id": items.column("item_id").combine_chunks().take(pa.array(shard.items_E)),
            "rating": pa.array(shard.ratings_E),
            "timestamp": pa.array(shard.timestamps_E),
            "rating_z": pa.array(z_E.astype(np.float32), mask=unknown_E),
            "weekday": pa.array(((days_E + THURSDAY) % 7).astype(np.int8), mask=~has_time_E),
            "hour": pa.array((rest_E // 3_600_000).astype(np.int8), mask=~has_time_E),
            "part": names.take(pa.array((shard.parts_E & np.uint8(schema.PART_MASK)).astype(np.int32))),
            "teaches": pa.array(shard.positive_E),
        }
    )


def _sums(keys_E: IntArray, size: int, histories: Histories, now: float) -> DoubleArray:
    """(6, size) over the events of equal keys: how many, ratings, their squares, years, years x ratings, years^2."""
    ratings_E = histories.ratings_E.astype(np.float64)
    years_E = (histories.timestamps_E - now) / MILLISECONDS_PER_DAY / DAYS_PER_YEAR
    parts = (np.ones_like(ratings_E), ratings_E, ratings_E**2, years_E, years_E * ratings_E, years_E**2)
    return np.stack([np.bincount(keys_E, part_E, minlength=size) for part_E in parts])


def _slope(
    count: DoubleArray,
    rating: DoubleArray,
    _: DoubleArray,
    year: DoubleArray,
    product: DoubleArray,
    square: DoubleArray,
) -> DoubleArray:
    """Least squares from sums; NaN where the times do not differ."""
    some = np.maximum(count, 1)
    variance = square - year**2 / some
    covariance = product - year * rating / some
    told = (count > 1) & (variance > 1e-9 * np.maximum(square, 1e-12))
    return np.where(told, covariance / np.where(told, variance, 1), np.nan)


def _top_genres(counts_BG: FloatArray, names: Sequence[str], top: int) -> pa.Array:
    """The genres had most, of equals the first by alphabet."""
    order_BT = np.argsort(-counts_BG, axis=1, kind="stable")[:, :top]
    there_BT = np.take_along_axis(counts_BG, order_BT, axis=1) > 0
    lengths_B: LongArray = there_BT.sum(axis=1)
    return list_array(offsets(lengths_B), pa.array(names, pa.string()).take(pa.array(order_BT[there_BT])))
