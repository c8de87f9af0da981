"""The same pipeline with input and output on an object store: a mock S3 server, reached through s3fs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys_ray.base.storage import Location
from tests.worlds import World, write_csv

pytestmark = pytest.mark.ray
COLUMNS = {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"}


def test_published_rows_are_the_same_as_on_a_disk(tmp_path: Path, ray_session: Any, s3: dict[str, str]) -> None:
    pairs = [(user, (user + step) % 12, step) for user in range(20) for step in range(5)]
    rows = [f"u{user},i{item},1.0,{step}" for user, item, step in pairs]
    source = write_csv(tmp_path / "events.csv", rows)
    Location.of("s3://recs/events.csv").write_bytes(source.read_bytes())
    tables = {}
    for output, path in ((str(tmp_path / "out"), str(source)), ("s3://recs/out", "s3://recs/events.csv")):
        split = {"kind": "leave_last_out"}
        world = World(
            tmp_path,
            output=output,
            data={"source": "table", "path": path, "columns": COLUMNS, "shards": 2, "split": split},
            model={"name": "item_cf"},  # whose sums do not depend on the number of threads
            recommend={"n": 3},
            evaluation={"k": [3], "bootstrap": 0, "baselines": []},
        )
        # Workers that are there already know nothing of the mock server; those of a command of its own do.
        result = world.run() if output.startswith("/") else world.process("run", variables=s3)
        root = Location.of(output) / "recommendations"
        run = root / (root / "LATEST").read_bytes().decode().strip()
        assert str(run) == result["recommend"]["path"]
        parts = [name for name in run.names() if name.startswith("part-")]
        tables[output] = [(run / name).read_parquet() for name in parts]
    on_disk, on_s3 = tables.values()
    assert sum(table.num_rows for table in on_s3) == 20 * 3
    assert all(left.equals(right) for left, right in zip(on_disk, on_s3, strict=True))
