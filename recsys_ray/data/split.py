"""Which interaction is train, validation or test. A rule sees one shard; what concerns all, it is given.

Interactions that teach nothing (SEEN_ONLY) are never held out from anybody; which part they get decides only
from when on they are filtered as seen: random and the last of a user below, temporal by their time, cold items by item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.ragged import offsets, places_in_rows
from recsys_ray.base.storage import Location
from recsys_ray.base.types import ByteArray, IntArray, LongArray, MapBlocks
from recsys_ray.data.config import (
    ColdItems,
    ColdUsers,
    GivenSplit,
    KFold,
    LastShare,
    LeaveLastOut,
    NoSplit,
    RandomSplit,
    SplitConfig,
    TemporalSplit,
    utc_milliseconds,
)
from recsys_ray.data.prepare.keys import Keys, hash_ids, mix
from recsys_ray.data.prepare.shard import Core, Shard, load_grouped

BINS = 2**16
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """A split with everything decided that concerns all shards. Items are rows of the vocabulary before k-core."""

    settings: SplitConfig
    seed: int
    item_keys_I: Keys | None = None
    """Hash of each item id, for the random split."""
    item_parts_I: ByteArray | None = None
    """Part of each item, for cold items."""
    valid_from: int = NEVER
    test_from: int = NEVER
    """UTC milliseconds of the temporal cuts."""

    def parts_of(self, shard: Shard) -> ByteArray:
        """A code of schema.PARTS for every interaction, without the SEEN_ONLY bit."""
        match self.settings:
            case NoSplit():
                return np.zeros(len(shard.items_E), np.uint8)
            case GivenSplit():
                return shard.parts_E & np.uint8(schema.PART_MASK)
            case RandomSplit():
                assert self.item_keys_I is not None
                return _random(shard, self.settings, self.item_keys_I, self.seed)
            case KFold():
                assert self.item_keys_I is not None
                return _fold(shard, self.settings, self.item_keys_I, self.seed)
            case LeaveLastOut():
                return _last(shard, *_leave_last_out(shard.per_row(shard.positive_E), self.settings))
            case LastShare():
                return _last(shard, *_held_out(shard.per_row(shard.positive_E), self.settings))
            case TemporalSplit():
                test = shard.timestamps_E >= self.test_from
                valid = (shard.timestamps_E >= self.valid_from) & ~test
                return np.where(test, schema.TEST, np.where(valid, schema.VALID, schema.TRAIN)).astype(np.uint8)
            case ColdItems():
                assert self.item_parts_I is not None
                return self.item_parts_I[shard.items_E]
            case ColdUsers():
                return _cold_users(shard, self.settings, self.seed)


def requested_parts(settings: SplitConfig) -> list[tuple[str, str]]:
    """Held-out parts a split must not leave empty, each with the setting that asks for it."""
    match settings:
        case NoSplit():
            return []
        case GivenSplit():
            return [("test", "the test file")]
        case KFold():
            return [("test", "split.folds, which is more than there are interactions for")]
        case LeaveLastOut():
            name = "split.min_history"
            return [("test", name), ("valid", name)] if settings.valid else [("test", name)]
        case TemporalSplit() if settings.test_from:
            return [("test", "split.test_from"), *([("valid", "split.valid_from")] if settings.valid_from else [])]
    ratios = settings
    test_ratio = ratios.ratio_of_test if isinstance(ratios, TemporalSplit) else ratios.test_ratio
    wanted = [("test", "split.test_ratio", test_ratio), ("valid", "split.valid_ratio", ratios.valid_ratio)]
    return [(part, name) for part, name, ratio in wanted if ratio > 0]


def _positive_keys(shard: Shard, item_keys_I: Keys, seed: int) -> tuple[LongArray, IntArray, Keys]:
    """The P positives, their users' rows, and a hash of (user, item) each."""
    positive = np.flatnonzero(shard.positive_E)
    rows = shard.rows_E[positive]
    user_keys = mix(hash_ids(shard.user_ids), seed)[rows]
    return positive, rows, mix(user_keys ^ item_keys_I[shard.items_E[positive]], seed)


def _fold(shard: Shard, settings: KFold, item_keys_I: Keys, seed: int) -> ByteArray:
    positive, _, keys = _positive_keys(shard, item_keys_I, seed)
    parts = np.zeros(len(shard.items_E), np.uint8)
    held = keys % np.uint64(settings.folds) == np.uint64(settings.fold or 0)
    parts[positive[held]] = schema.TEST
    return parts


def _random(shard: Shard, settings: RandomSplit, item_keys_I: Keys, seed: int) -> ByteArray:
    positive, rows, keys = _positive_keys(shard, item_keys_I, seed)
    # User by user in the order of the hash: the first of a user are test, the next validation.
    order = np.lexsort((keys, rows))
    counts_B = shard.per_row(shard.positive_E)
    position = places_in_rows(counts_B)
    test_B, valid_B = _held_out(counts_B, settings)
    rows = rows[order]
    held = np.where(position < test_B[rows], schema.TEST, schema.VALID)
    parts = np.zeros(len(shard.items_E), np.uint8)
    parts[positive[order]] = np.where(position < (test_B + valid_B)[rows], held, schema.TRAIN)
    return parts


def _held_out(counts_B: LongArray, settings: RandomSplit | LastShare) -> tuple[LongArray, LongArray]:
    """How many positives of each user become test and validation; at least one is left."""
    most_B = np.maximum(counts_B - 1, 0)
    test_B = np.minimum(_rounded(counts_B * settings.test_ratio), most_B)
    return test_B, np.minimum(_rounded(counts_B * settings.valid_ratio), most_B - test_B)


def _rounded(values: npt.NDArray[Any]) -> LongArray:
    return np.floor(values + 0.5 + 1e-9).astype(np.int64)


def _leave_last_out(counts_B: LongArray, settings: LeaveLastOut) -> tuple[LongArray, LongArray]:
    """How many positives of each user become test and validation."""
    one_B = (counts_B >= settings.min_history).astype(np.int64)
    return one_B, one_B * settings.valid


def _last(shard: Shard, test_B: LongArray, valid_B: LongArray) -> ByteArray:
    """The last positives are test, those before them validation; fewer than there are positives.

    An event below the rating threshold takes the part of the positive before it, train when there is none.
    """
    positive, rows = shard.positive_E, shard.rows_E
    counts_B = shard.per_row(positive)
    so_far = offsets(positive)  # positives before each event, of all users
    before_B = so_far[shard.offsets_B1[:-1]]  # ... before the first event of each user
    nth = so_far[1:] - before_B[rows]  # of this or the last positive before, from 1; 0 when there is none
    test = nth > (counts_B - test_B)[rows]
    valid = nth > (counts_B - test_B - valid_B)[rows]
    return np.where(test, schema.TEST, np.where(valid, schema.VALID, schema.TRAIN)).astype(np.uint8)


def _cold_users(shard: Shard, settings: ColdUsers, seed: int) -> ByteArray:
    """Users by the place of their hash between 0 and 1: the first share is test, the next validation. Of theirs the
    oldest positives are shown, and what lies between; users with nothing to hold out teach."""
    place_B = mix(hash_ids(shard.user_ids), seed).astype(np.float64) / 2.0**64
    counts_B = shard.per_row(shard.positive_E)
    test_B = (place_B < settings.test_ratio) & (counts_B > 0)
    valid_B = ~test_B & (place_B < settings.test_ratio + settings.valid_ratio) & (counts_B > 0)
    held_B = np.where(test_B | valid_B, counts_B - _rounded(counts_B * settings.shown), 0)
    held_B = np.where(test_B | valid_B, np.maximum(held_B, 1), 0)
    last_E = _last(shard, held_B, np.zeros_like(held_B)) == schema.TEST
    rows_E = shard.rows_E
    part_B = np.where(test_B, schema.TEST, np.where(valid_B, schema.VALID, schema.TRAIN))
    return np.where((test_B | valid_B)[rows_E] & ~last_E, schema.SHOWN, part_B[rows_E]).astype(np.uint8)


def cold_item_parts(settings: ColdItems, vocabulary: pa.Array, counts_I: LongArray, seed: int) -> ByteArray:
    """Items with positives in the order of a hash: the first share is test, the next validation, the rest train."""
    candidates = np.flatnonzero(counts_I)
    order = candidates[np.argsort(mix(hash_ids(vocabulary), seed)[candidates], kind="stable")]
    num_test = int(_rounded(np.array(len(order) * settings.test_ratio)))
    num_valid = int(_rounded(np.array(len(order) * settings.valid_ratio)))
    parts = np.zeros(len(vocabulary), np.uint8)
    parts[order[:num_test]] = schema.TEST
    parts[order[num_test : num_test + num_valid]] = schema.VALID
    return parts


@dataclass(frozen=True, slots=True)
class TimesJob:
    directory: Location
    user_type: pa.DataType
    core: Core
    first: int
    width: int
    """Milliseconds of a bin; bin b starts at ``first + b * width``."""


def count_times(shard: int, job: TimesJob) -> tuple[int, LongArray]:
    """Positives before the bins, and in each of them."""
    left = load_grouped(job.directory, shard, job.user_type, job.core)
    bins = (left.timestamps_E[left.positive_E] - job.first) // job.width
    inside = bins[(bins >= 0) & (bins < BINS)]
    return int((bins < 0).sum()), np.bincount(inside, minlength=BINS)


def time_of_rank(
    rank: int, within: tuple[int, int], job: tuple[Location, pa.DataType, Core, int], map_blocks: MapBlocks
) -> int:
    """The timestamp of positive number ``rank`` (from 0) in time order: a histogram narrowed to one millisecond."""
    directory, user_type, core, num_shards = job
    first, last = within
    while True:
        width = -(-(last - first + 1) // BINS)
        times_job = TimesJob(directory, user_type, core, first, width)
        before, counts = 0, np.zeros(BINS, np.int64)
        for earlier, inside in map_blocks(count_times, range(num_shards), times_job, "prepare: time quantile"):
            before += earlier
            counts += inside
        chosen = int(np.searchsorted(before + np.cumsum(counts), rank, side="right"))
        first, last = first + chosen * width, first + (chosen + 1) * width - 1
        if width == 1:
            return first


def explicit_cuts(settings: TemporalSplit) -> tuple[int, int]:
    """(valid_from, test_from) of a split by date."""
    assert settings.test_from is not None
    return (
        utc_milliseconds(settings.valid_from) if settings.valid_from else NEVER,
        utc_milliseconds(settings.test_from),
    )


def held_out_ranks(settings: TemporalSplit, count: int) -> tuple[int, int]:
    """Numbers of the first validation and the first test positive, of ``count`` in time order."""
    valid = count * (1 - settings.ratio_of_test - settings.valid_ratio)
    return int(np.floor(valid + 1e-9)), int(np.floor(count * (1 - settings.ratio_of_test) + 1e-9))
