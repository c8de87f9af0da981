"""``recsys-ray export``: what is published, on its way into other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recsys_ray.base.errors import ConfigError
from recsys_ray.commands import ConfigFile, Overrides, Result, open_pipeline
from recsys_ray.console.reporter import Reporter

if TYPE_CHECKING:
    from recsys_ray.pipeline import Pipeline
    from recsys_ray.runs.published_lists import PublishedLists

What = Literal["redis", "postgres", "qdrant", "embeddings"]
NAMES = {"redis": "recommendations", "postgres": "recommendations", "qdrant": "items"}
REDIS, QDRANT = "redis://127.0.0.1:6379/0", "http://127.0.0.1:6333"


def export(
    say: Reporter,
    what: Annotated[What, typer.Argument(help="where to, or what")],
    config: ConfigFile,
    overrides: Overrides = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="address of the server, by default of one here; redis: serving.redis; postgres: what PGHOST and the "
            "like say; embeddings: a directory, by default <output>/export/<run>",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", "--collection", help="what readers use: beginning of the keys, view, collection", metavar="NAME"
        ),
    ] = None,
    expire_hours: Annotated[float | None, typer.Option(min=0.001, help="redis: lists are gone after so long")] = None,
) -> Result:
    """The published lists of all users into Redis or Postgres, its items into Qdrant, or its vectors as Parquet.

    Readers see one whole run or another, and the same command may be given again. Forgotten users are left out.

    Examples:
        recsys-ray export redis shop.yaml --to redis://127.0.0.1:6379/0 --expire-hours 72
        recsys-ray export postgres shop.yaml --to postgresql://recs@127.0.0.1/shop --name recommendations
        recsys-ray export qdrant shop.yaml --to http://127.0.0.1:6333
        recsys-ray export embeddings shop.yaml --to vectors/
    """
    if expire_hours is not None and what != "redis":
        raise ConfigError(f"--expire-hours: only lists in Redis expire, not what is exported to {what}; leave it out")
    if name is not None and what not in NAMES:
        raise ConfigError(f"--name: {what} have none; leave it out, and give the directory with --to")
    with open_pipeline(config, overrides, say, reads_input=False) as pipeline:
        if what == "embeddings":
            where, facts = _embeddings(pipeline, to)
        elif what == "qdrant":
            where, facts = _qdrant(pipeline, to or QDRANT, name or NAMES[what], say)
        elif what == "redis":
            from recsys_ray.runs.redis import load_redis

            where = to or pipeline.config.serving.redis or REDIS
            facts = load_redis(_lists(pipeline), where, name or NAMES[what], expire_hours, say)
        else:
            from recsys_ray.runs.postgres import load_postgres

            facts = load_postgres(_lists(pipeline), to or "", name or NAMES[what], say)
            where = facts.pop("server")
    say(f"export: {what} -> {where}")
    return {"command": "export", "what": what, "path": where} | facts


def _lists(pipeline: Pipeline) -> PublishedLists:
    from recsys_ray.data.forgotten import forgotten_users
    from recsys_ray.runs.published_lists import PublishedLists

    return PublishedLists(pipeline.published_place(), forgotten_users(pipeline.output))


def _embeddings(pipeline: Pipeline, to: str | None) -> tuple[str, Result]:
    from recsys_ray.base.storage import Location
    from recsys_ray.data.forgotten import forgotten_users
    from recsys_ray.runs.export import export_embeddings

    place, opened = pipeline.published()
    directory = Location.of(to) if to else pipeline.output / "export" / place.name
    facts = export_embeddings(opened, directory, pipeline.session.map_blocks, forgotten_users(pipeline.output))
    return str(directory), facts


def _qdrant(pipeline: Pipeline, to: str, name: str, say: Reporter) -> tuple[str, Result]:
    from recsys_ray.runs.qdrant import export_items

    _, opened = pipeline.published()
    return to, export_items(opened, to, name, say)
