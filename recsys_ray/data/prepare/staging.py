"""First pass: every chunk read, checked, marked by row, and written out with its rows sorted into shards by user.

A chunk's file holds one record batch per shard, and the driver is told where each lies, so that the second pass reads
just these bytes of each file. Rows keep their order inside a shard: chunk number and place decide between equal
timestamps.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError, StorageError
from recsys_ray.base.ragged import offsets
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, ByteArray, LongArray
from recsys_ray.data.config import FilterSettings, utc_milliseconds
from recsys_ray.data.prepare.files import Chunk
from recsys_ray.data.prepare.keys import hash_ids
from recsys_ray.data.prepare.shard import FUTURE, LOW, OUTSIDE, chunk_file, forget_report
from recsys_ray.data.prepare.times import DAY, UNITS, span
from recsys_ray.data.sources.base import USER_ONLY, Source

COMPACT_ABOVE = 4_000_000


@dataclass(frozen=True, slots=True)
class StageJob:
    source: Source
    directory: Location
    num_shards: int
    filters: FilterSettings
    now: int
    """When the work began, in UTC milliseconds: one moment for all chunks."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A chunk's file as the second pass needs it; S shards."""

    schema: pa.Schema
    """A chunk without rows may have ids of any type."""
    offsets_S1: LongArray
    """The batch of shard s is the bytes ``offsets[s]:offsets[s + 1]``; there are none where it has no rows."""
    checksums_S: LongArray
    """CRC-32 of each batch."""


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """What the driver learns from a chunk: types with an example each, distinct items, counts."""

    path: str
    staged: Staged
    users: pa.Array
    """At most one id, of the chunk's type; none when there is no row."""
    any_item: pa.Array
    """The same of the items."""
    items: pa.Array
    """Distinct items inside the time window."""
    counts: LongArray
    read: int
    outside_window: int
    seen_only: int
    left_out: dict[str, int]
    """Rows that the source left out, by reason."""
    bad_example: str | None
    times: tuple[int, int] | None
    """First and last of all that was read."""
    time_unit: str | None
    """What numeric times were told to be in."""
    in_future: int


def stage_chunk(block: tuple[int, Chunk], job: StageJob) -> ChunkReport:
    index, chunk = block
    rows = job.source.read(chunk)
    table = rows.events
    num_read = table.num_rows - int(pc.sum(pc.equal(table.column("part"), USER_ONLY)).as_py() or 0)
    times = span(table.column("timestamp").to_numpy())
    table, outside_E, low_E = _mark_seen_only(table, job.filters)
    table, in_future = _mark_future(table, job)
    items = pc.value_counts(table.column("item_id").filter(pa.array(~outside_E)).drop_null().combine_chunks())
    data, staged = by_shard(table, job.num_shards)
    chunk_file(job.directory, index).write_bytes(data)
    return ChunkReport(
        path=chunk.path,
        staged=staged,
        users=table.column("user_id").slice(0, 1).combine_chunks(),
        any_item=table.column("item_id").drop_null().slice(0, 1).combine_chunks(),
        items=items.field("values"),
        counts=items.field("counts").to_numpy(zero_copy_only=False),
        read=num_read,
        outside_window=int(outside_E.sum()),
        seen_only=int(low_E.sum()),
        left_out=rows.left_out,
        bad_example=rows.example,
        times=times,
        time_unit=rows.time_unit,
        in_future=in_future,
    )


def _mark_seen_only(table: pa.Table, filters: FilterSettings) -> tuple[pa.Table, BoolArray, BoolArray]:
    """Events outside the time window or below min_rating as SEEN_ONLY; (E,) which are outside, and which are low and
    inside."""
    times_E, parts_E = table.column("timestamp").to_numpy(), table.column("part").to_numpy()
    inside_E = np.ones(len(times_E), np.bool_)
    if filters.start is not None:
        inside_E &= times_E >= utc_milliseconds(filters.start)
    if filters.end is not None:
        inside_E &= times_E < utc_milliseconds(filters.end)
    is_event_E = parts_E != USER_ONLY
    outside_E, low_E = ~inside_E & is_event_E, np.zeros(len(parts_E), np.bool_)
    if filters.min_rating is not None:
        low_E = (table.column("rating").to_numpy() < np.float32(filters.min_rating)) & is_event_E & inside_E
    parts_E = np.where(outside_E, parts_E | schema.SEEN_ONLY | OUTSIDE, parts_E)
    parts_E = np.where(low_E, parts_E | schema.SEEN_ONLY | LOW, parts_E).astype(np.uint8)
    return _with_parts(table, parts_E), outside_E, low_E


def _mark_future(table: pa.Table, job: StageJob) -> tuple[pa.Table, int]:
    """Interactions a day and more ahead of the clock, which teach nothing."""
    later_E = table.column("timestamp").to_numpy() > job.now + DAY
    if job.filters.future == "keep" or not later_E.any():
        return table, int(later_E.sum())
    parts_E = table.column("part").to_numpy()
    return _with_parts(table, np.where(later_E, parts_E | schema.SEEN_ONLY | FUTURE, parts_E)), int(later_E.sum())


def _with_parts(table: pa.Table, parts_E: ByteArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index("part"), "part", pa.array(parts_E.astype(np.uint8)))


def by_shard(table: pa.Table, num_shards: int) -> tuple[memoryview, Staged]:
    """Record batches, shard after shard, rows in their order; and where each is."""
    shards = (hash_ids(table.column("user_id").combine_chunks()) % np.uint64(num_shards)).astype(np.uint16)
    table = table.take(pa.array(np.argsort(shards, kind="stable"))).combine_chunks()
    edges = offsets(np.bincount(shards, minlength=num_shards)).tolist()
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        # The schema is written before the first batch: an empty one takes it out of the way.
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=table.schema))
        starts = []
        for start, end in pairwise(edges):
            starts.append(sink.tell())
            if end > start:
                columns = [table.column(name).slice(start, end - start).combine_chunks() for name in table.column_names]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=table.schema))
        starts.append(sink.tell())
    data = memoryview(sink.getvalue())
    checksums = [zlib.crc32(data[start:stop]) for start, stop in pairwise(starts)]
    return data, Staged(table.schema, np.array(starts, np.int64), np.array(checksums, np.int64))


def read_staged(file: Location, staged: Staged, shard: int) -> pa.Table:
    """The rows of one shard from one chunk's file."""
    start, stop = staged.offsets_S1[shard : shard + 2].tolist()
    if start == stop:
        return staged.schema.empty_table()
    try:
        data = file.read_range(start, stop)
        if zlib.crc32(data) != staged.checksums_S[shard]:
            raise StorageError(f"{file}: is not as it was written, its checksum differs")
    except StorageError as error:
        forget_report(file)
        raise StorageError(f"{error}; run the same command again, which reads this chunk anew") from error
    return pa.Table.from_batches([pa.ipc.read_record_batch(pa.py_buffer(data), staged.schema)])


class StageTotal:
    """Folds chunk reports; holds the distinct items with their counts, and insists on one type per id column."""

    def __init__(self) -> None:
        self.read = self.outside_window = self.seen_only = 0
        self._types: dict[str, tuple[pa.DataType, str]] = {}
        self._items: list[pa.Array] = []
        self._counts: list[LongArray] = []
        self.chunks: list[Staged] = []
        self.left_out: Counter[str] = Counter()
        self.bad_example: str | None = None
        self.times: tuple[int, int] | None = None
        self.in_future = 0
        self._unit: tuple[str, str] | None = None

    def add(self, report: ChunkReport) -> None:
        self.chunks.append(report.staged)
        self.read += report.read
        self.outside_window += report.outside_window
        self.seen_only += report.seen_only
        self.left_out.update(report.left_out)
        self.bad_example = self.bad_example or report.bad_example
        self.in_future += report.in_future
        ranges = [found for found in (self.times, report.times) if found is not None]
        self.times = (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None
        self._insist_on_unit(report)
        self._insist("user", report.users, report.path)
        self._insist("item", report.any_item, report.path)
        if len(report.items):
            self._items.append(report.items)
            self._counts.append(report.counts)
        if sum(map(len, self._items)) > COMPACT_ABOVE:
            self._compact()

    def id_type(self, name: str) -> pa.DataType | None:
        return self._types[name][0] if name in self._types else None

    def items(self) -> tuple[pa.Array, LongArray]:
        """Distinct items and how many interactions each has."""
        self._compact()
        return (self._items[0], self._counts[0]) if self._items else (pa.array([], pa.int64()), np.zeros(0, np.int64))

    def _insist(self, name: str, ids: pa.Array, path: str) -> None:
        if len(ids) == 0:
            return
        expected, first_path = self._types.setdefault(name, (ids.type, path))
        if ids.type != expected:
            raise DataError(
                f"{path}: {name} id {ids[0].as_py()!r} is no {_kind(expected)}, but the ids before it are "
                f"(in {first_path}); set data.id_type=string"
            )

    def _insist_on_unit(self, report: ChunkReport) -> None:
        if report.time_unit is None:
            return
        self._unit = self._unit or (report.time_unit, report.path)
        expected, first_path = self._unit
        if report.time_unit != expected:
            raise DataError(
                f"{report.path}: times look like {UNITS[report.time_unit]}, those before like {UNITS[expected]} "
                f"(in {first_path}); convert one of them, or set data.timestamp_unit"
            )

    def _compact(self) -> None:
        if len(self._items) < 2:
            return
        encoded = pa.concat_arrays(self._items).dictionary_encode()
        counts = np.zeros(len(encoded.dictionary), np.int64)
        np.add.at(counts, encoded.indices.to_numpy(zero_copy_only=False), np.concatenate(self._counts))
        self._items, self._counts = [encoded.dictionary], [counts]


def _kind(id_type: pa.DataType) -> str:
    return "integer" if id_type == pa.int64() else "string"
