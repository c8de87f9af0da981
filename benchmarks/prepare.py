"""Preparing data: rows per second against pandas, and the bytes that a shard reads of an object store.

    python benchmarks/prepare.py [--rows 1000000] [--shards 64 512] [--repeats 3]

Synthetic events as CSV. Then, in turns, by one process:

- pandas: read, repeats dropped, k-core of 2, the last event of each user held out, a row of lists per user to Parquet;
- ours: ``prepare`` with the same rules into one shard, checksums included.

``ratio_rows_per_second`` compares the medians. Then the events are prepared in chunks into many shards on a mock S3
server; ``ratio_bytes_<shards>`` is what the shards would read of all chunk files if each read them whole, over what
they read.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from recsys_ray.base.storage import Location
from recsys_ray.data.prepare import tables
from recsys_ray.data.prepare.driver import open_source, prepare
from recsys_ray.data.sources.config import DataConfig

sys.path.append(str(Path(__file__).parents[1]))
from tests.mock_s3 import mock_s3

CHUNKS = 16
FILTERS = {"duplicates": "last", "k_core_users": 2, "k_core_items": 2}
COLUMNS = {"user_id": "user_id", "item_id": "item_id", "rating": "rating", "timestamp": "timestamp"}


def write_events(path: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    users = (rng.pareto(1.5, rows) * rows / 60).astype(np.int64) % (rows // 10)
    items = (rng.pareto(1.2, rows) * 50).astype(np.int64) % 50_000
    times = rng.integers(1_500_000_000, 1_600_000_000, rows)
    ratings = rng.integers(1, 6, rows)
    pd.DataFrame({"user_id": users, "item_id": items, "rating": ratings, "timestamp": times}).to_csv(path, index=False)


def settings_of(path: Path, shards: int) -> Any:
    values = {"source": "table", "path": str(path), "columns": COLUMNS, "shards": shards, "filters": FILTERS}
    return TypeAdapter(DataConfig).validate_python(values | {"split": {"kind": "leave_last_out", "valid": False}})


def by_pandas(path: Path, folder: Path) -> int:
    events = pd.read_csv(path).sort_values(["user_id", "timestamp"], kind="stable")
    events = events.drop_duplicates(["user_id", "item_id"], keep="last")
    while True:
        counts = [events.groupby(name)["rating"].transform("size") for name in ("user_id", "item_id")]
        kept = (counts[0] >= 2) & (counts[1] >= 2)
        if kept.all():
            break
        events = events[kept]
    last = ~events.duplicated("user_id", keep="last")
    lists = events.assign(is_test=last).groupby("user_id").agg(list)
    lists.to_parquet(folder / "users.parquet", compression="zstd")
    return len(events)


def by_ours(path: Path, folder: Path) -> int:
    prepared = prepare(open_source(settings_of(path, 1)), Location.of(folder / "out"))
    return int(prepared.manifest["num_interactions"])


def seconds_of(work: Callable[[Path, Path], int], path: Path) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        found = work(path, Path(name))
        return time.perf_counter() - started, found


def bytes_read(path: Path, shards: int) -> tuple[int, int]:
    """(bytes that the shards read of the chunk files, size of these files), on a mock S3 server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    read = written = 0
    get, put, ranges = Location.read_range, Location.write_bytes, tables.byte_ranges
    size = -(-path.stat().st_size // CHUNKS)

    def counted_get(self: Location, start: int, stop: int) -> bytes:
        nonlocal read
        data = get(self, start, stop)
        read += len(data) if self.name.endswith(".arrow") else 0
        return data

    def counted_put(self: Location, data: bytes | memoryview) -> None:
        nonlocal written
        written += len(data) if self.name.endswith(".arrow") else 0
        put(self, data)

    with (
        mock_s3("bench"),
        patch.object(Location, "read_range", counted_get),
        patch.object(Location, "write_bytes", counted_put),
        patch.object(tables, "byte_ranges", lambda file, start=0, part=0: ranges(file, start, part, size)),
    ):
        prepare(open_source(settings_of(path, shards)), Location.of("s3://bench/out"))
    return read, written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, nargs="*", default=[64, 512])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "events.csv"
        write_events(path, 20_000, arguments.seed)
        seconds_of(by_ours, path)  # kernels and imports
        write_events(path, arguments.rows, arguments.seed)
        theirs, ours, kept = [], [], set()
        for _ in range(arguments.repeats):
            for work, times in ((by_pandas, theirs), (by_ours, ours)):
                seconds, left = seconds_of(work, path)
                times.append(seconds)
                kept.add(left)
        assert len(kept) == 1, f"different interactions are left: {kept}"
        seconds = statistics.median(ours)
        result: dict[str, Any] = {
            "rows": arguments.rows,
            "kept": kept.pop(),
            "rows_per_second": arguments.rows / seconds,
        }
        result["ratio_rows_per_second"] = round(statistics.median(theirs) / seconds, 3)
        write_events(path, min(arguments.rows, 200_000), arguments.seed)
        for shards in arguments.shards:
            read, written = bytes_read(path, shards)
            result[f"bytes_per_shard_{shards}"] = read // shards
            result[f"ratio_bytes_{shards}"] = round(shards * written / read, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
