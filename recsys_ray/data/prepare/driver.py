"""Raw interactions to prepared data: three passes of small functions over chunks and shards, driven from here.

    stage    every chunk: read, check, filter rows, sort into shards by user        -> staging/chunk-*.arrow
    group    every shard: gather, item rows, time order, duplicates                 -> staging/grouped-*.parquet
    (k-core, time quantiles, cold items: passes that only count)
    finish   every shard: k-core and split applied                                  -> users/part-*.parquet

then ``items.parquet``, and ``manifest.json`` last: a directory without it is not prepared data. Memory is bounded by a
chunk, a shard and the vocabulary, not by the number of interactions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.manifest import write_manifest
from recsys_ray.base.provenance import stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import LongArray, MapBlocks, map_blocks_here
from recsys_ray.data import split as splits
from recsys_ray.data.config import ColdItems, DataSettings, KFold, RandomSplit, TemporalSplit
from recsys_ray.data.prepare.finish import FinishJob, Totals, finish_shard
from recsys_ray.data.prepare.funnel import Funnel
from recsys_ray.data.prepare.grouping import GroupJob, GroupReport, group_shard
from recsys_ray.data.prepare.kcore import find_core
from recsys_ray.data.prepare.keys import hash_ids, vocabulary_sha256
from recsys_ray.data.prepare.resume import Report, Work, begin, complete, once, remove_strays
from recsys_ray.data.prepare.shard import ITEMS, MANIFEST, STAGING, Core
from recsys_ray.data.prepare.staging import ChunkReport, Staged, StageJob, StageTotal, stage_chunk
from recsys_ray.data.prepare.told import say_left_out, say_times, say_unknown
from recsys_ray.data.prepare.user_table import UserStageJob, check_user_type, stage_users
from recsys_ray.data.prepare.vocabulary import build_items
from recsys_ray.data.prepared import FORMAT, Prepared
from recsys_ray.data.rating_scale import rating_middle
from recsys_ray.data.sources import Source, open_source
from recsys_ray.data.sources.base import notes_of
from recsys_ray.data.sources.users import HasUsers

__all__ = ["FORMAT", "open_source", "prepare"]

ROWS_PER_SHARD, FEWEST_SHARDS, MOST_SHARDS = 200_000, 8, 2048
ONE_SHARD_BELOW = 20_000
MANY = 0.1
"""Share of interactions with unknown items that is worth a warning."""


@dataclass(frozen=True, slots=True)
class _Run:
    source: Source
    directory: Location
    seed: int
    num_shards: int
    map_blocks: MapBlocks
    progress: Callable[[str], None]

    @property
    def settings(self) -> DataSettings:
        return self.source.settings

    def once(
        self,
        function: Callable[[Any, Any], Any],
        report: type[Report],
        blocks: Iterable[Any],
        job: Any,
        named: tuple[str, str],
    ) -> Iterator[Report]:
        """``map_blocks`` over numbered blocks; what an interrupted attempt has done is not done again. ``named``: its
        files, and what is said of it."""
        return self.map_blocks(once, blocks, Work(function, job, report, self.directory, named[0]), named[1])


@dataclass(slots=True)
class _Grouped:
    """All group reports together."""

    users: int
    unknown: int
    gone: int
    """Outside the time window, of items that nothing inside is known of."""
    repeated: int
    dropped: int
    kept: int
    """Rows before k-core."""
    counts_I: LongArray
    time_range: tuple[int, int]


def prepare(
    source: Source,
    location: Location,
    *,
    seed: int = 0,
    map_blocks: MapBlocks = map_blocks_here,
    progress: Callable[[str], None] = lambda message: None,
) -> Prepared:
    """Prepare ``source`` into the directory ``location``; what is complete there is kept, what is not starts over.

    The result depends on the source, its settings and ``seed``, not on how the work is mapped; the split does not
    depend on the number of shards either.

    Raises:
        DataError: the input breaks its contract, or filters and split leave nothing.
        StorageError: a file can't be read or written.
    """
    settings = source.settings
    fingerprint = {"settings": settings.model_dump(mode="json"), "source": source.fingerprint(), "seed": seed}
    if (found := complete(location, fingerprint)) is not None:
        progress("prepare: nothing changed, kept as it is")
        return found
    num_shards = settings.shards or num_shards_for(source.estimated_rows())
    run = _Run(source, location, seed, num_shards, map_blocks, progress)
    begin(location, {"format": FORMAT, "of": fingerprint, "shards": num_shards}, progress)

    staged = _stage(run)
    user_type, items = _vocabulary(run, staged)
    vocabulary = items.column("item_id").combine_chunks()
    user_chunks = _stage_users(run, user_type)
    grouped = _group(run, staged, user_type, vocabulary, user_chunks)
    minimum = (settings.filters.k_core_users, settings.filters.k_core_items)
    core, counts_I = find_core(location, user_type, num_shards, grouped.counts_I, minimum, (map_blocks, progress))
    plan = _plan(run, user_type, core, vocabulary, counts_I, grouped.time_range)
    totals = _finish(
        run,
        FinishJob(location, user_type, core, plan, _new_rows(core.alive_I), settings.filters.normalize, user_chunks),
    )
    items = items.filter(pa.array(core.alive_I))
    totals.files[ITEMS] = stamp((location / ITEMS).write_parquet(items))
    dropped = dict(staged.left_out) | {
        "outside_time_window": staged.outside_window,
        "unknown_items": grouped.unknown,
        "repeated": 0 if settings.filters.duplicates == "keep" else grouped.repeated,
        "k_core_users": grouped.users - sum(totals.users_per_shard),
        "k_core_items": int((~core.alive_I).sum()),
    }
    funnel = Funnel.of(staged, totals, grouped.gone, grouped.unknown, grouped.dropped, grouped.kept)
    facts = _facts(fingerprint, user_type, items, staged.read, dropped) | {"funnel": funnel.to_json()}
    if user_chunks:
        facts["user_columns"] = user_chunks[0].schema.names[1:]
    remove_strays(location, totals.files)
    facts["rating_middle"] = rating_middle(settings, totals.ratings)
    write_manifest(location / MANIFEST, facts | totals.to_json())
    location.remove([STAGING])
    for line in funnel.lines():
        progress(f"prepare: {line}")
    progress(f"prepare: {sum(totals.users_per_shard):,} users, {items.num_rows:,} items, {_by_part(totals)}")
    return Prepared.open(location)


def num_shards_for(rows: int) -> int:
    """One shard per 200,000 interactions, at least 8 (1 for tiny data), at most 2,048."""
    if rows < ONE_SHARD_BELOW:
        return 1
    return min(max(-(-rows // ROWS_PER_SHARD), FEWEST_SHARDS), MOST_SHARDS)


def _stage(run: _Run) -> StageTotal:
    chunks = run.source.chunks()
    run.progress(f"prepare: reading {len(chunks):,} chunks into {run.num_shards:,} shards")
    total = StageTotal()
    for note in notes_of(run.source):
        run.progress(f"prepare: {note}")
    job = StageJob(run.source, run.directory, run.num_shards, run.settings.filters, int(time.time() * 1000))
    for report in run.once(stage_chunk, ChunkReport, list(enumerate(chunks)), job, ("chunk", "prepare: read")):
        total.add(report)
    say_left_out(run.settings, total, run.progress)
    say_times(run.settings, total, run.progress)
    found, window, low = total.read, total.outside_window, total.seen_only
    run.progress(f"prepare: {found:,} interactions read, {window:,} outside the time window, {low:,} below min_rating")
    if found == 0:
        raise DataError(f"{getattr(run.settings, 'path', None) or 'data'}: holds no interactions; set data.path")
    if found == window:
        raise DataError("data.filters.start and end leave no interactions; widen the window")
    return total


def _vocabulary(run: _Run, staged: StageTotal) -> tuple[pa.DataType, pa.Table]:
    user_type, item_type = staged.id_type("user"), staged.id_type("item")
    assert user_type is not None and item_type is not None  # there are interactions
    interacted, counts = staged.items()
    return user_type, build_items(run.source.items(), interacted, counts, item_type, run.settings.unknown_items)


def _stage_users(run: _Run, user_type: pa.DataType) -> list[Staged]:
    """The table of users, sorted into shards; empty without one."""
    chunks = run.source.user_chunks() if isinstance(run.source, HasUsers) else []
    if not chunks:
        return []
    job = UserStageJob(cast(HasUsers, run.source), run.directory, run.num_shards)
    named = ("user-chunk", "prepare: read the users")
    staged = list(run.once(stage_users, Staged, list(enumerate(chunks)), job, named))
    check_user_type(staged, user_type)
    return staged


def _group(
    run: _Run, staged: StageTotal, user_type: pa.DataType, vocabulary: pa.Array, user_chunks: list[Staged]
) -> _Grouped:
    filters = run.settings.filters
    split = run.settings.split
    interleaved = split.kind == "given" and split.order == "interleaved"
    given = split.kind == "given"
    cap = filters.newest_per_user
    job = GroupJob(
        run.directory, staged.chunks, user_type, vocabulary, filters.duplicates, given, cap, user_chunks, interleaved
    )
    reports: list[GroupReport] = []
    counts_I = np.zeros(len(vocabulary), np.int64)
    for report in run.once(group_shard, GroupReport, range(run.num_shards), job, ("grouped", "prepare: group by user")):
        counts_I[report.items] += report.counts
        reports.append(report)
    repeated = sum(report.repeated for report in reports)
    if repeated and filters.duplicates == "error":
        pair = next(report.repeated_pair for report in reports if report.repeated_pair)
        raise DataError(
            f"{repeated:,} interactions repeat a (user, item) pair, for example {pair}; "
            "set data.filters.duplicates=last"
        )
    if capped := sum(report.capped for report in reports):
        run.progress(
            f"prepare: {capped:,} interactions are beyond filters.newest_per_user={cap}, filtered as seen alone"
        )
    conflicts = sum(report.conflicts for report in reports)
    if conflicts:
        pair = next(report.conflict_pair for report in reports if report.conflict_pair)
        raise DataError(
            f"{conflicts:,} (user, item) pairs are in more than one of the train, valid and test files, for example "
            f"{pair}; remove them from one"
        )
    ranges = [report.time_range for report in reports if report.time_range]
    if not ranges:
        raise DataError("no interactions are left after filters; all items are unknown, set data.unknown_items=add")
    unknown = sum(report.unknown for report in reports)
    say_unknown(run.settings, unknown, staged.read - staged.outside_window, run.progress)
    return _Grouped(
        users=sum(report.users for report in reports),
        unknown=unknown,
        gone=sum(report.gone for report in reports),
        repeated=repeated,
        dropped=sum(report.dropped for report in reports),
        kept=sum(report.kept for report in reports),
        counts_I=counts_I,
        time_range=(min(low for low, _ in ranges), max(high for _, high in ranges)),
    )


def _plan(
    run: _Run,
    user_type: pa.DataType,
    core: Core,
    vocabulary: pa.Array,
    counts_I: LongArray,
    time_range: tuple[int, int],
) -> splits.SplitPlan:
    """What the split must know of all data; the counting passes it takes."""
    settings, seed = run.settings.split, run.seed
    match settings:
        case RandomSplit() | KFold():
            return splits.SplitPlan(settings, seed, item_keys_I=hash_ids(vocabulary))
        case ColdItems():
            parts_I = splits.cold_item_parts(settings, vocabulary, counts_I, seed)
            return splits.SplitPlan(settings, seed, item_parts_I=parts_I)
        case TemporalSplit() if settings.test_from:
            valid_from, test_from = splits.explicit_cuts(settings)
            return splits.SplitPlan(settings, seed, valid_from=valid_from, test_from=test_from)
        case TemporalSplit():
            count = int(counts_I.sum())
            job = (run.directory, user_type, core, run.num_shards)
            ranks = splits.held_out_ranks(settings, count)
            cuts = {
                rank: splits.time_of_rank(rank, time_range, job, run.map_blocks) if rank < count else splits.NEVER
                for rank in set(ranks)
            }
            valid_from, test_from = (cuts[rank] for rank in ranks)
            return splits.SplitPlan(settings, seed, valid_from=valid_from, test_from=test_from)
        case _:
            return splits.SplitPlan(settings, seed)


def _finish(run: _Run, job: FinishJob) -> Totals:
    totals = Totals()
    for part in run.once(finish_shard, Totals, range(run.num_shards), job, ("part", "prepare: split and write")):
        totals.add(part)
    split = run.settings.split
    if totals.positives_S.sum() == 0:
        raise DataError("no positive interactions are left; lower data.filters.min_rating, or set it to null")
    if totals.positives_S[schema.TRAIN] == 0:
        raise DataError(f"data.split.kind={split.kind} leaves no training interactions ({_by_part(totals)})")
    for name, setting in splits.requested_parts(split):
        if totals.positives_S[schema.PARTS[name]] == 0:
            raise DataError(
                f"data.split.kind={split.kind} leaves no {name} interactions ({_by_part(totals)}); look at {setting}"
            )
    if lost := int(totals.lengths[0]):
        run.progress(f"prepare: {lost:,} users have no positive interaction; they will be answered by the fallback")
    return totals


def _new_rows(alive_I: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.where(alive_I, np.cumsum(alive_I) - 1, -1).astype(np.int32)


def _facts(
    fingerprint: dict[str, Any], user_type: pa.DataType, items: pa.Table, read: int, dropped: dict[str, int]
) -> dict[str, Any]:
    ids = items.column("item_id").combine_chunks()
    return {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "num_items": items.num_rows,
        "user_id_type": str(user_type),
        "item_id_type": str(ids.type),
        "vocabulary_sha256": vocabulary_sha256(ids),
        "interactions_read": read,
        "dropped": dropped,
    }


def _by_part(totals: Totals) -> str:
    counts = {name: int(totals.positives_S[code]) for name, code in schema.PARTS.items()}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name != "shown")
