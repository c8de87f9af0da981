"""The shuffle of prepare on an object store: a shard reads its own bytes of every chunk's file, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from recsys_ray.base.storage import Location
from recsys_ray.data.prepare import staging, tables
from recsys_ray.data.prepare.driver import open_source, prepare
from recsys_ray.data.prepare.grouping import group_shard
from recsys_ray.data.prepare.resume import Work
from tests.data_worlds import COLUMNS, histories, settings_of, write_csv

SHARDS, CHUNKS = 16, 6


class CountedReads:
    """Bytes that were read of files of staged chunks, and the sizes that these were written with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: Counter[str] = Counter()
        self.written: dict[str, int] = {}
        cat, pipe, opened = MemoryFileSystem.cat_file, MemoryFileSystem.pipe_file, MemoryFileSystem.open
        inside = []

        def cat_file(fs: Any, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
            inside.append(path)
            data: bytes = cat(fs, path, start=start, end=end, **options)
            inside.pop()
            self._count(path, len(data))
            return data

        def open_file(fs: Any, path: str, mode: str = "rb", **options: Any) -> Any:
            if mode == "rb" and not inside:  # an open file may be read ahead to its end
                self._count(path, fs.size(path))
            return opened(fs, path, mode, **options)

        def pipe_file(fs: Any, path: str, value: bytes, **options: Any) -> Any:
            if path.endswith(".arrow"):
                self.written[path] = len(value)
            return pipe(fs, path, value, **options)

        monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
        monkeypatch.setattr(MemoryFileSystem, "open", open_file)
        monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)

    def _count(self, path: str, size: int) -> None:
        if path.endswith(".arrow"):
            self.read[path] += size


@pytest.mark.slow
def test_a_shard_reads_its_share_of_the_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    events = [(int(u), int(i), 1.0, int(t)) for u, i, t in rng.integers(0, [2000, 500, 10**9], (40_000, 3))]
    file = write_csv(tmp_path / "events.csv", events)
    monkeypatch.setattr(tables, "byte_ranges", _in_chunks(tables.byte_ranges, -(-file.stat().st_size // CHUNKS)))
    values = {"source": "table", "path": str(file), "columns": COLUMNS, "shards": SHARDS}
    source = open_source(settings_of(**values, split={"kind": "none"}))
    reads, per_shard = CountedReads(monkeypatch), []

    def counted(fn: Callable[..., Any], blocks: Iterable[Any], shared: Any = None, label: Any = None) -> Iterator[Any]:
        for block in blocks:
            before = reads.read.total()
            yield fn(block, shared)
            if isinstance(shared, Work) and shared.function is group_shard:
                per_shard.append(reads.read.total() - before)

    there = prepare(source, Location.of("memory://shuffle/out"), map_blocks=counted)
    assert len(reads.written) == CHUNKS and len(per_shard) == SHARDS
    total = sum(reads.written.values())
    assert max(per_shard) < 1.25 * total / SHARDS
    assert all(0.9 * size < reads.read[path] <= size for path, size in reads.written.items())
    assert histories(there) == histories(prepare(source, Location.of(tmp_path / "out")))


def test_a_shard_without_rows_in_a_chunk_reads_nothing_of_it(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "events.csv", [(7, 1, 1.0, 1000), (7, 2, 1.0, 1001)])
    source = open_source(settings_of(source="table", path=str(file), columns=COLUMNS, shards=5))
    job = staging.StageJob(source, Location.of(tmp_path), 5, source.settings.filters, now=0)
    report = staging.stage_chunk((0, source.chunks()[0]), job)
    lengths = np.diff(report.staged.offsets_S1)
    assert np.count_nonzero(lengths) == 1
    full = int(lengths.argmax())
    path = staging.chunk_file(Location.of(tmp_path), 0)
    assert staging.read_staged(path, report.staged, full).column("item_id").to_pylist() == [1, 2]
    path.remove()
    for shard in set(range(5)) - {full}:
        assert staging.read_staged(path, report.staged, shard).num_rows == 0


def _in_chunks(byte_ranges: Callable[..., Any], size: int) -> Callable[..., Any]:
    def smaller(file: Location, start: int = 0, part: int = 0) -> Any:
        return byte_ranges(file, start, part, size)

    return smaller
