"""``recsys-ray audience CONFIG ITEM...``: who should hear of these items."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from recsys_ray.commands import Progress, open_pipeline

HELP = "the best users for an item, by the scores and rules of the published run"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config", help="YAML file, see configs/")
    parser.add_argument("items", nargs="+", metavar="ITEM", help="ids of items")
    parser.add_argument("--users", type=int, default=100, metavar="N", help="users for each item, at most (100)")
    parser.add_argument("--most-per-user", type=int, metavar="K", help="items of these that one user is listed for")
    parser.add_argument("--file", help="Parquet file that takes the table; without, it is printed")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="key=value", help="override a key; repeatable"
    )


def run(parsed: Namespace, progress: Progress) -> dict[str, Any]:
    from recsys_ray.base.errors import ConfigError

    for name in ("users", "most_per_user"):
        if (value := getattr(parsed, name)) is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, found {value}")
    with open_pipeline(parsed.config, parsed.settings, progress, reads_input=False) as pipeline:
        import pyarrow as pa

        from recsys_ray.base.storage import Location
        from recsys_ray.runs.audience import audience

        place, opened = pipeline.published()
        items = pa.array(list(dict.fromkeys(parsed.items)), pa.string())
        map_blocks = pipeline.session.map_blocks
        table = audience(opened, pipeline.output, place, items, parsed.users, parsed.most_per_user, map_blocks)
        if parsed.file is None:
            print(table.to_pandas().to_string(index=False))
        else:
            Location.of(parsed.file).write_parquet(table)
    return {
        "command": "audience",
        "run": str(place),
        "items": len(items),
        "rows": table.num_rows,
        "path": parsed.file,
    }
