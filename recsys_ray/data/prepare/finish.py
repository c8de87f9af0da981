"""Last pass: a shard with k-core and split applied becomes its final file, and is counted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.provenance import Stamp, stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import ByteArray, FloatArray, IntArray, LongArray
from recsys_ray.data.prepare.shard import (
    ATTRIBUTES,
    FUTURE,
    LOW,
    OLD,
    OUTSIDE,
    USERS,
    Core,
    Shard,
    load_grouped,
    part_file,
)
from recsys_ray.data.prepare.staging import Staged
from recsys_ray.data.prepare.user_table import attributes_of, users_of_shard
from recsys_ray.data.split import SplitPlan

NUM_PARTS = len(schema.PARTS)
SEEN_FOR = ("outside_time_window", "below_min_rating", "in_future", "beyond_newest_per_user", "unrated")
T = TypeVar("T", int, float)
LARGEST_SCALE = 100
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class FinishJob:
    directory: Location
    user_type: pa.DataType
    core: Core
    plan: SplitPlan
    new_rows_I: IntArray
    """Rows in the final vocabulary by rows in the one before k-core."""
    normalize: str
    """What becomes of ratings, as ``filters.normalize`` says."""
    user_chunks: list[Staged]
    """The table of users; empty without one."""


@dataclass(slots=True)
class Totals:
    """Counts of one shard or of many; S parts in the order of ``schema.PARTS``."""

    users_per_shard: list[int] = field(default_factory=list)
    files: dict[str, Stamp] = field(default_factory=dict)
    """Size and checksum of what was written, by its name in the directory."""
    positives_S: LongArray = field(default_factory=lambda: np.zeros(NUM_PARTS, np.int64))
    seen_only_S: LongArray = field(default_factory=lambda: np.zeros(NUM_PARTS, np.int64))
    seen_for: LongArray = field(default_factory=lambda: np.zeros(len(SEEN_FOR), np.int64))
    """The same by reason, in the order of SEEN_FOR."""
    ratings: list[list[float]] | None = field(default_factory=list)
    """Ratings that teach or are targets, as given, and how often there is each; None where they are too many for a
    scale."""
    rating_range: tuple[float, float] | None = None
    """Lowest and highest of all ratings that were read, as given."""
    products_SS: LongArray = field(default_factory=lambda: np.zeros((NUM_PARTS, NUM_PARTS), np.int64))
    """Sum over users of (positives in one part) x (positives in the other)."""
    lengths: LongArray = field(default_factory=lambda: np.zeros(1, np.int64))
    """Users by number of positives."""
    time_range: tuple[int, int] | None = None

    def add(self, other: Totals) -> None:
        self.users_per_shard += other.users_per_shard
        self.files |= other.files
        self.positives_S += other.positives_S
        self.seen_only_S += other.seen_only_S
        self.seen_for += other.seen_for
        known = self.ratings is not None and other.ratings is not None
        self.ratings = _scale([*(self.ratings or ()), *(other.ratings or ())]) if known else None
        self.rating_range = _widest(self.rating_range, other.rating_range)
        self.products_SS += other.products_SS
        longer, shorter = sorted((self.lengths, other.lengths), key=len, reverse=True)
        self.lengths = longer.copy()
        self.lengths[: len(shorter)] += shorter
        self.time_range = _widest(self.time_range, other.time_range)

    def to_json(self) -> dict[str, Any]:
        def by_part(counts_S: LongArray) -> dict[str, int]:
            named = {name: int(counts_S[code]) for name, code in schema.PARTS.items()}
            return {name: count for name, count in named.items() if count or name != "shown"}

        cumulative = np.cumsum(self.lengths)
        ranks = [min(int(q * cumulative[-1]), int(cumulative[-1]) - 1) for q in QUANTILES]
        return {
            "num_users": sum(self.users_per_shard),
            "users_per_shard": self.users_per_shard,
            "files": self.files,
            "users_without_history": int(self.lengths[0]),
            "num_interactions": int(self.positives_S.sum()),
            "interactions": by_part(self.positives_S),
            "num_seen_only": int(self.seen_only_S.sum()),
            "seen_only": by_part(self.seen_only_S),
            "ratings": self.ratings,
            "rating_range": None if self.rating_range is None else list(self.rating_range),
            "pair_products": self.products_SS.tolist(),
            "history_length_quantiles": {
                f"{q:g}": int(np.searchsorted(cumulative, rank, side="right"))
                for q, rank in zip(QUANTILES, ranks, strict=True)
            },
            "timestamp_range": None if self.time_range is None else list(self.time_range),
        }


def _widest(one: tuple[T, T] | None, two: tuple[T, T] | None) -> tuple[T, T] | None:
    if one is None or two is None:
        return one or two
    return min(one[0], two[0]), max(one[1], two[1])


def _scale(counted: list[list[float]]) -> list[list[float]] | None:
    """(value, count) with each value once, ascending."""
    values, places = np.unique([value for value, _ in counted], return_inverse=True)
    counts = np.bincount(places, [count for _, count in counted], minlength=len(values))
    return np.column_stack([values, counts]).tolist() if len(values) <= LARGEST_SCALE else None


def _by_own_measure(shard: Shard, *, divide: bool) -> FloatArray:
    """(E,) ratings less the mean of each user's training events, divided by their deviation where there is one. A user
    without any has the mean of 0."""
    train_E = (shard.parts_E & np.uint8(schema.PART_MASK)) == schema.TRAIN
    rows_E, ratings_E = shard.rows_E, shard.ratings_E.astype(np.float64)
    size, some_E = len(shard.user_ids), rows_E[train_E]
    count_B = np.maximum(np.bincount(some_E, minlength=size), 1)
    mean_B = np.bincount(some_E, ratings_E[train_E], minlength=size) / count_B
    apart_E = ratings_E - mean_B[rows_E]
    if divide:
        spread_B = np.sqrt(np.bincount(some_E, apart_E[train_E] ** 2, minlength=size) / count_B)
        apart_E /= np.where(spread_B > 1e-6, spread_B, 1)[rows_E]
    return np.asarray(apart_E, np.float32)


def _reasons(parts_E: ByteArray) -> LongArray:
    """How many events are only seen, by SEEN_FOR."""
    reasons = [(parts_E & flag) > 0 for flag in (OUTSIDE, LOW, FUTURE, OLD)]
    reasons_E = np.select(reasons, list(range(len(reasons))), len(SEEN_FOR) - 1)
    return np.bincount(reasons_E, minlength=len(SEEN_FOR))


def finish_shard(shard: int, job: FinishJob) -> Totals:
    left = load_grouped(job.directory, shard, job.user_type, job.core)
    parts_E = job.plan.parts_of(left)
    seen_only_E = left.parts_E & np.uint8(schema.SEEN_ONLY)
    final = replace(left, items_E=job.new_rows_I[left.items_E], parts_E=parts_E | seen_only_E)
    if job.normalize != "none":
        final = replace(final, ratings_E=_by_own_measure(final, divide=job.normalize == "z_score"))
    written = (job.directory / USERS / part_file(shard)).write_parquet(final.to_table())
    files = {f"{USERS}/{part_file(shard)}": stamp(written)}
    if job.user_chunks:
        table = users_of_shard(job.directory, job.user_chunks, shard, job.user_type)
        written = (job.directory / ATTRIBUTES / part_file(shard)).write_parquet(attributes_of(table, final.user_ids))
        files[f"{ATTRIBUTES}/{part_file(shard)}"] = stamp(written)
    positive = final.positive_E
    values, counts = np.unique(left.ratings_E[positive], return_counts=True)
    per_part_SB = np.stack([final.per_row(positive & (parts_E == code)) for code in range(NUM_PARTS)])
    rated = left.ratings_E[np.isfinite(left.ratings_E)]
    times = final.timestamps_E[(left.parts_E & (OUTSIDE | FUTURE)) == 0]
    return Totals(
        users_per_shard=[len(final.user_ids)],
        files=files,
        positives_S=per_part_SB.sum(axis=1),
        seen_only_S=np.bincount(parts_E[~positive], minlength=NUM_PARTS),
        seen_for=_reasons(left.parts_E[~positive]),
        ratings=_scale(np.column_stack([values.astype(np.float64), counts]).tolist()),
        rating_range=(float(rated.min()), float(rated.max())) if len(rated) else None,
        products_SS=per_part_SB @ per_part_SB.T,
        lengths=np.bincount(per_part_SB.sum(axis=0), minlength=1),
        time_range=(int(times.min()), int(times.max())) if len(times) else None,
    )
