"""Second pass: one shard gathered from all chunks, items as vocabulary rows, users sorted, events in time order.

E are the rows of the shard, P the events that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import schema
from recsys_ray.base.ragged import offsets, places_in_rows
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, ByteArray, DoubleArray, FloatArray, IntArray, LongArray
from recsys_ray.data.prepare.shard import FUTURE, OLD, OUTSIDE, Shard, chunk_file, grouped_file
from recsys_ray.data.prepare.staging import Staged, read_staged
from recsys_ray.data.prepare.user_table import users_of_shard
from recsys_ray.data.sources.base import USER_ONLY, only_users

Pair = tuple[object, object]


@dataclass(frozen=True, slots=True)
class GroupJob:
    directory: Location
    chunks: list[Staged]
    user_type: pa.DataType
    vocabulary: pa.Array
    duplicates: str
    given_parts: bool
    """Whether the files' parts count, so that a pair in two of them is a conflict."""
    newest_per_user: int | None
    """Positives of a user that teach, at most."""
    user_chunks: list[Staged]
    """The table of users; empty without one."""
    interleaved: bool
    """Whether events of one time are in the order of their places in their parts, not of the files."""


@dataclass(frozen=True, slots=True)
class GroupReport:
    users: int
    unknown: int
    """Interactions with items outside the vocabulary, dropped."""
    gone: int
    """Such interactions outside the time window."""
    capped: int
    """Positives that are older than a user's newest ones, and only filtered as seen."""
    dropped: int
    """Rows of a pair that another row of it stands for."""
    kept: int
    """Rows that were written."""
    repeated: int
    repeated_pair: Pair | None
    conflicts: int
    """(user, item) pairs in more than one given part."""
    conflict_pair: Pair | None
    time_range: tuple[int, int] | None
    items: LongArray
    """Rows of items with positives, and how many each has."""
    counts: LongArray


def group_shard(shard: int, job: GroupJob) -> GroupReport:
    """Write the shard's histories, with item rows and the duplicates policy applied; report what was found."""
    # E rows: events and rows that only name a user, in the order of the files.
    table = _gather(shard, job)
    user_rows_E, user_ids = _user_rows(table.column("user_id").combine_chunks())
    item_rows_E, unknown_E = _item_rows(table.column("item_id").combine_chunks(), job.vocabulary)
    parts_E = table.column("part").to_numpy()
    is_event_E = parts_E != USER_ONLY
    # P rows: events on known items, then by user and time.
    kept = np.flatnonzero(is_event_E & ~unknown_E)
    times_E = table.column("timestamp").to_numpy()
    ties = [_places(user_rows_E[kept], parts_E[kept])] if job.interleaved else []
    kept = kept[np.lexsort((*ties, times_E[kept], user_rows_E[kept]))]  # stable: ties stay in the order of the files
    rows, items, parts = user_rows_E[kept], item_rows_E[kept], parts_E[kept]

    # One number for a (user, item) pair.
    keys = rows * np.int64(max(1, len(job.vocabulary))) + items
    ratings, outside = table.column("rating").to_numpy()[kept], (parts & OUTSIDE) != 0
    stays, repeated_at = _repeats(keys, ratings, outside, job.duplicates)
    if job.duplicates == "sum":
        ratings, parts = _summed(keys, ratings, outside, parts)
    conflicts_at = np.flatnonzero(~outside)[_conflicts(keys[~outside], parts[~outside])]
    if not job.given_parts:
        conflicts_at = conflicts_at[:0]
    result = Shard(
        user_ids=user_ids,
        offsets_B1=offsets(np.bincount(rows, minlength=len(user_ids))),
        items_E=items,
        ratings_E=ratings,
        timestamps_E=times_E[kept],
        parts_E=parts,
    ).only(stays)
    capped = 0
    if job.newest_per_user is not None:
        result, capped = _newest(result, job.newest_per_user)
    grouped_file(job.directory, shard).write_parquet(result.to_table(), compression="lz4", use_dictionary=False)

    def pair(at: LongArray) -> Pair | None:
        return (user_ids[rows[at[0]]].as_py(), job.vocabulary[items[at[0]]].as_py()) if len(at) else None

    times = result.timestamps_E[(result.parts_E & (OUTSIDE | FUTURE)) == 0]
    positive = np.bincount(result.items_E[result.positive_E])
    unknown = parts_E[unknown_E & is_event_E]
    return GroupReport(
        users=len(user_ids),
        unknown=int(((unknown & OUTSIDE) == 0).sum()),
        gone=int(((unknown & OUTSIDE) != 0).sum()),
        capped=capped,
        dropped=int((~stays).sum()),
        kept=len(result.items_E),
        repeated=len(repeated_at),
        repeated_pair=pair(repeated_at),
        conflicts=len(conflicts_at),
        conflict_pair=pair(conflicts_at),
        time_range=(int(times.min()), int(times.max())) if len(times) else None,
        items=np.flatnonzero(positive),
        counts=positive[positive > 0],
    )


def _summed(keys: LongArray, ratings: FloatArray, outside: BoolArray, parts: ByteArray) -> tuple[FloatArray, ByteArray]:
    """Each pair's sum, at every event of it: the one that stays has it, and teaches if any of them did."""
    _, pairs = np.unique(keys, return_inverse=True)
    sums = np.bincount(pairs, np.where(outside, 0, ratings))[pairs].astype(np.float32)
    teaches = np.bincount(pairs, (parts & schema.SEEN_ONLY) == 0)[pairs] > 0
    return sums, np.where(teaches & ~outside, parts & np.uint8(schema.PART_MASK), parts)


def _newest(shard: Shard, most: int) -> tuple[Shard, int]:
    """The shard in which only the newest positives of a user teach, and how many others do no longer."""
    positive = shard.positive_E
    so_far = offsets(positive)[1:]  # positives up to each event, of all users
    last_B = so_far[shard.offsets_B1[1:] - 1] if len(so_far) else so_far
    behind_E = last_B[shard.rows_E] - so_far  # positives of the same user behind it
    old = positive & (behind_E >= most)
    parts_E = np.where(old, shard.parts_E | schema.SEEN_ONLY | OLD, shard.parts_E).astype(np.uint8)
    return replace(shard, parts_E=parts_E), int(old.sum())


def _gather(shard: int, job: GroupJob) -> pa.Table:
    """The shard's rows of all chunks, one after the other; a chunk without rows may have ids of any type."""
    fields = [*schema.interactions(job.user_type, job.vocabulary.type), pa.field("part", pa.uint8())]
    tables = (read_staged(chunk_file(job.directory, chunk), staged, shard) for chunk, staged in enumerate(job.chunks))
    gathered = [table.cast(pa.schema(fields)) for table in tables]
    if job.user_chunks:
        users = users_of_shard(job.directory, job.user_chunks, shard, job.user_type).column("user_id").combine_chunks()
        gathered.append(only_users(users, job.vocabulary.type))
    return pa.concat_tables(gathered)


def _user_rows(user_ids_E: pa.Array) -> tuple[LongArray, pa.Array]:
    """The row of every event's user among the distinct users, which are sorted."""
    encoded = user_ids_E.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    # Codes are numbered as users are first met; code order[r] is the user that comes r-th by id.
    row_of_code = np.empty(len(order), np.int64)
    row_of_code[order] = np.arange(len(order))
    return row_of_code[encoded.indices.to_numpy(zero_copy_only=False)], encoded.dictionary.take(pa.array(order))


def _item_rows(item_ids_E: pa.Array, vocabulary: pa.Array) -> tuple[IntArray, BoolArray]:
    """Rows of the vocabulary, -1 and True where an item is not in it."""
    rows = pc.index_in(item_ids_E, value_set=vocabulary)
    unknown_E = rows.is_null().to_numpy(zero_copy_only=False)
    return rows.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32), unknown_E


def _places(user_rows_P: LongArray, parts_P: ByteArray) -> DoubleArray:
    """Where in its user's events of the same part an event is, from 0 to 1; P events."""
    keys_P = user_rows_P * 256 + parts_P
    # Sorted by (user, part) each group is one run, inside it in the order of the files.
    order = np.argsort(keys_P, kind="stable")
    counts = np.unique(keys_P, return_counts=True)[1]
    places_P = np.empty(len(keys_P))
    places_P[order] = (places_in_rows(counts) + 0.5) / np.repeat(counts, counts)
    return places_P


def _repeats(keys: LongArray, ratings: FloatArray, outside: BoolArray, policy: str) -> tuple[BoolArray, LongArray]:
    """What stays of events in time order, and where inside the window the second, third ... of equal keys are.

    Those outside never stand for a pair that is inside as well; of the others the last stays.
    """
    inside_at, outside_at = np.flatnonzero(~outside), np.flatnonzero(outside)
    stays = np.ones(len(keys), bool)
    stays[inside_at], again = _repeats_inside(keys[inside_at], ratings[inside_at], policy)
    left, _ = _repeats_inside(keys[outside_at], ratings[outside_at], "last")
    stays[outside_at] = left & ~np.isin(keys[outside_at], keys[inside_at])
    return stays, inside_at[again]


def _repeats_inside(keys: LongArray, ratings: FloatArray, policy: str) -> tuple[BoolArray, LongArray]:
    # Sorted by key, equal keys follow each other in time; again[i]: the i-th of them has the key of the one before.
    order = np.argsort(keys, kind="stable")
    again = np.zeros(len(keys), bool)
    again[1:] = keys[order[1:]] == keys[order[:-1]]
    stays = np.ones(len(keys), bool)
    if policy == "first":
        stays[order[again]] = False
    elif policy in ("last", "sum"):
        stays[order[:-1][again[1:]]] = False  # the one before a repeat
    elif policy == "max":
        best = np.lexsort((ratings, keys))  # stable: of equal ratings the last in time comes last
        stays[best[:-1][keys[best[1:]] == keys[best[:-1]]]] = False
    return stays, np.sort(order[again])


def _conflicts(keys: LongArray, parts: ByteArray) -> LongArray:
    """Where equal keys are in different parts: one position per pair."""
    # A pair's number once for each part that it is in; in more than one part it comes more than once.
    split_keys = np.unique(keys * 4 + (parts & schema.PART_MASK)) // 4
    pairs, times = np.unique(split_keys, return_counts=True)
    # Every event of such a pair, and of each pair the first.
    found = np.flatnonzero(np.isin(keys, pairs[times > 1]))
    _, first = np.unique(keys[found], return_index=True)
    return found[np.sort(first)]
