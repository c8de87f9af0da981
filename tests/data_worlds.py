"""Tiny inputs written to files, prepared, and read back with outside ids: what the data tests compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from recsys_ray.base import schema
from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.driver import open_source, prepare
from recsys_ray.data.prepared import Prepared
from recsys_ray.data.sources.config import DataConfig

DATASETS = Path("../shared/datasets")
NAMES = {code: name for name, code in schema.PARTS.items()}
Event = tuple[Any, Any, float, int]


def settings_of(**values: Any) -> DataSettings:
    return TypeAdapter(DataConfig).validate_python(values)


def dataset(name: str) -> str:
    path = DATASETS / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return str(path)


def write_csv(path: Path, rows: list[tuple[Any, ...]], header: str = "user_id,item_id,rating,timestamp") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


COLUMNS = {"user_id": "user_id", "item_id": "item_id", "rating": "rating", "timestamp": "timestamp"}


def prepare_values(directory: Path, seed: int = 0, **values: Any) -> Prepared:
    return prepare(open_source(settings_of(**values), seed), Location.of(directory), seed=seed)


def prepare_events(directory: Path, events: list[Event], seed: int = 0, **values: Any) -> Prepared:
    """Prepare (user, item, rating, timestamp) rows through a CSV file."""
    file = write_csv(directory / "events.csv", events)
    values = {"source": "table", "path": str(file), "columns": COLUMNS} | values
    return prepare_values(directory / "out", seed, **values)


def histories(prepared: Prepared) -> dict[Any, list[tuple[Any, str]]]:
    """user id -> [(item id, part)], oldest first; interactions below the threshold have a "-" behind the part."""
    items = prepared.items.column("item_id").to_pylist()
    found = {}
    for shard in range(prepared.num_shards):
        for row in prepared.shard(shard).to_pylist():
            found[row["user_id"]] = [
                (items[item], NAMES[part & schema.PART_MASK] + ("-" if part & schema.SEEN_ONLY else ""))
                for item, part in zip(row["items"], row["parts"], strict=True)
            ]
    return found


def parts(prepared: Prepared, user: Any) -> str:
    """Parts of a user's history as initials: "tttvT" is three train, valid, Test."""
    initials = {"train": "t", "valid": "v", "test": "T"}
    return "".join(initials[part.rstrip("-")] + "-" * part.endswith("-") for _, part in histories(prepared)[user])
