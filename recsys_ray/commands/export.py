"""``recsys-ray export WHAT CONFIG``: what is published, for other programs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from recsys_ray.commands import Progress, add_config, open_pipeline

HELP = "vectors of users and items of the published run as Parquet, or its items into Qdrant"
WHAT = ("embeddings", "qdrant")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", choices=WHAT, help="what is exported")
    parser.add_argument("--to", metavar="PLACE", help="directory or URL; by default <output>/export/<run>")
    parser.add_argument("--collection", default="items", help="qdrant: the name that readers use (items)")
    add_config(parser)


def run(parsed: Namespace, progress: Progress) -> dict[str, Any]:
    with open_pipeline(parsed.config, parsed.overrides, progress, reads_input=False) as pipeline:
        from recsys_ray.base.storage import Location

        place, opened = pipeline.published()
        if parsed.what == "embeddings":
            from recsys_ray.data.forgotten import forgotten_users
            from recsys_ray.runs.export import export_embeddings

            directory = Location.of(parsed.to) if parsed.to else pipeline.output / "export" / place.name
            forgotten = forgotten_users(pipeline.output)
            facts = export_embeddings(opened, directory, pipeline.session.map_blocks, forgotten)
            where = str(directory)
        else:
            from recsys_ray.runs.qdrant import export_items

            where = parsed.to or "http://127.0.0.1:6333"
            facts = export_items(opened, where, parsed.collection, progress)
    progress(f"export: {parsed.what} -> {where}")
    return {"command": "export", "what": parsed.what, "path": where} | facts
