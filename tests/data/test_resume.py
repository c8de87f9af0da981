"""An interrupted ``prepare`` goes on where it stopped, and ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ray.base.errors import RecsysError, StorageError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare import tables
from recsys_ray.data.prepare.driver import open_source, prepare
from recsys_ray.data.prepare.resume import Work, dumped, loaded
from recsys_ray.data.prepared import Prepared
from tests.data_worlds import COLUMNS, settings_of, write_csv

SHARDS = 3


class Killed(Exception):
    pass


class Hands:
    """Does the tasks here, notes which were really done, and stops after some of them."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.done = after, []

    def __call__(
        self, fn: Callable[..., Any], blocks: Iterable[Any], shared: Any = None, label: str | None = None
    ) -> Iterator[Any]:
        for block in blocks:
            if self.after is not None and len(self.done) >= self.after:
                raise Killed
            if isinstance(shared, Work):
                noted = Work(self._noted, (shared.name, shared), shared.report, shared.directory, shared.name)
                yield fn(block, noted)
            else:
                yield fn(block, shared)

    def _noted(self, block: Any, job: tuple[str, Work]) -> Any:
        name, work = job
        self.done.append(f"{name}-{block[0] if isinstance(block, tuple) else block}")
        return work.function(block, work.job)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Events in several chunks, users in several shards, a time split, k-core, repeats, low ratings."""
    rng = np.random.default_rng(0)
    rows = [(int(u), int(i), float(r), int(t)) for u, i, r, t in rng.integers(0, [30, 12, 5, 10**9], (400, 4))]
    file = write_csv(tmp_path / "events.csv", rows)
    ranges = tables.byte_ranges
    small = -(-file.stat().st_size // 4)
    monkeypatch.setattr(tables, "byte_ranges", lambda file, start=0, part=0: ranges(file, start, part, small))
    filters = {"duplicates": "last", "min_rating": 2.0, "k_core_users": 2, "k_core_items": 2}
    values: dict[str, Any] = {"source": "table", "path": str(file), "columns": COLUMNS, "shards": SHARDS}
    return open_source(settings_of(**values, filters=filters, split={"kind": "temporal"}))


def files_of(location: Location) -> dict[str, bytes]:
    return {name: (location / name).read_bytes() for name in location.files()}


def test_wherever_it_stops_it_goes_on_there_and_ends_the_same(source: Any, tmp_path: Path) -> None:
    hands = Hands()
    whole = files_of(prepare(source, Location.of(tmp_path / "whole"), map_blocks=hands).location)
    every = list(hands.done)
    assert len(every) == len(set(every)) == 4 + SHARDS + SHARDS
    for stop in range(len(every)):
        place, first, second = Location.of(tmp_path / f"out{stop}"), Hands(stop), Hands()
        with pytest.raises(Killed):
            prepare(source, place, map_blocks=first)
        assert not Prepared.is_at(place) and len(first.done) == stop
        said: list[str] = []
        prepare(source, place, map_blocks=second, progress=said.append)
        assert sorted(first.done + second.done) == sorted(every)
        assert files_of(place) == whole
        assert f"resuming, {stop} pieces" in said[0]


@pytest.mark.parametrize("name", ["chunk-00001.arrow", "grouped-00001.parquet"])
@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone"])
def test_what_was_damaged_in_between_is_noticed_and_done_again(
    source: Any, tmp_path: Path, name: str, damage: str
) -> None:
    whole = files_of(prepare(source, Location.of(tmp_path / "whole")).location)
    place = Location.of(tmp_path / "out")
    with pytest.raises(Killed):
        prepare(source, place, map_blocks=Hands(4 if name.startswith("chunk") else 4 + SHARDS))
    file = place / "staging" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.remove()
    if damage != "gone":
        file.write_bytes({"bit": bytes(data), "cut": bytes(data[:-7]), "empty": b""}[damage])
    lines = 0
    while lines < 3:
        try:
            prepare(source, place)
            break
        except StorageError as error:
            assert name in str(error) and "same command again" in str(error) and "\n" not in str(error)
            lines += 1
    assert lines == 1 and files_of(place) == whole


@pytest.mark.parametrize("name", ["_plan.json", "chunk-00000.report", "grouped-00000.report", "part-00000.report"])
def test_a_note_that_can_not_be_read_is_work_not_done(source: Any, tmp_path: Path, name: str) -> None:
    whole = files_of(prepare(source, Location.of(tmp_path / "whole")).location)
    place = Location.of(tmp_path / "out")
    with pytest.raises(Killed):
        prepare(source, place, map_blocks=Hands(4 + SHARDS + SHARDS - 1))
    file = place / "staging" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    prepare(source, place)
    assert files_of(place) == whole


def test_an_attempt_at_something_else_is_no_start(source: Any, tmp_path: Path) -> None:
    place, again = Location.of(tmp_path / "out"), Hands()
    with pytest.raises(Killed):
        prepare(source, place, map_blocks=Hands(5))
    prepare(source, place, seed=1, map_blocks=again)
    assert len(again.done) == 4 + SHARDS + SHARDS
    (place / "users" / "part-00001.parquet").write_bytes(b"damaged")
    assert files_of(prepare(source, place, seed=1).location) == files_of(
        prepare(source, Location.of(tmp_path / "other"), seed=1).location
    )


@dataclass(frozen=True)
class Inner:
    numbers: Any
    known: pa.Schema


@dataclass(frozen=True)
class Note:
    inner: Inner
    ids: pa.Array
    counts: dict[str, int]
    pair: tuple[Any, ...] | None
    example: str | None


arrays = st.one_of(
    st.lists(st.integers(-(2**60), 2**60), max_size=5).map(lambda values: np.array(values, np.int64)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda shape: np.full(shape, 0.1)),
)
ids = st.one_of(
    st.lists(st.integers(-9, 9), max_size=4).map(lambda values: pa.array(values, pa.int64())),
    st.lists(st.text(max_size=3), max_size=4).map(lambda values: pa.array(values, pa.string())),
)
pairs = st.none() | st.tuples(st.integers(), st.text())


@given(arrays, ids, st.dictionaries(st.text(max_size=3), st.integers()), pairs, st.none() | st.text())
def test_a_report_is_read_as_it_was_written(numbers: Any, ids: Any, counts: Any, pair: Any, example: Any) -> None:
    note = Note(Inner(numbers, pa.schema([("a", ids.type)])), ids, counts, pair, example)
    data = dumped(note)
    found = loaded(Note, data)
    np.testing.assert_array_equal(found.inner.numbers, numbers, strict=True)
    assert (found.inner.known, found.ids, found.counts, found.pair, found.example) == (
        (note.inner.known, ids, counts, pair, example)
    )
    broken = bytearray(data)
    broken[len(data) // 3] ^= 16
    with pytest.raises((ValueError, RecsysError)):
        loaded(Note, bytes(broken))
