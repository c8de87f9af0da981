"""A look at data and results, and ways out for both."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from recsys_ray.commands import ConfigFile, Overrides, Result, Settings, open_pipeline
from recsys_ray.commands.stages import run_stage
from recsys_ray.console.reporter import Reporter

STATUS = {"note": 0, "warning": 3, "error": 4}
"""Exit status by the worst that was found."""


def doctor(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """What is wrong with the data, one line each with a cure; exit status 3 with warnings, 4 with errors.

    Examples:
        recsys-ray doctor shop.yaml
    """
    with open_pipeline(config, overrides, say) as pipeline:
        from recsys_ray.pipeline.inspection import diagnose

        symptoms = diagnose(pipeline)
    say.show("\n".join(map(str, symptoms)) or "nothing was found")
    counts = {severity: sum(symptom.severity == severity for symptom in symptoms) for severity in STATUS}
    status = max((STATUS[symptom.severity] for symptom in symptoms), default=0)
    found = [{name: getattr(symptom, name) for name in symptom.__slots__} for symptom in symptoms]
    return {"command": "doctor", "counts": counts, "symptoms": found, "exit_status": status}


def report(
    say: Reporter,
    subject: Annotated[Literal["data", "embeddings", "run"], typer.Argument(help="what the page is about")],
    config: ConfigFile,
    overrides: Overrides = None,
) -> Result:
    """One HTML page about the data of a run, its item vectors, or the published run itself.

    Examples:
        recsys-ray report run shop.yaml
        recsys-ray report data shop.yaml
        recsys-ray report embeddings shop.yaml
    """
    return run_stage(f"report_{subject}", config, overrides, say)


def audience(
    say: Reporter,
    config: ConfigFile,
    items: Annotated[list[str], typer.Argument(metavar="ITEM", help="ids of items")],
    users: Annotated[int, typer.Option(min=1, metavar="N", help="users for each item, at most")] = 100,
    most_per_user: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="items of these that one user is listed for")
    ] = None,
    file: Annotated[str | None, typer.Option(help="Parquet file that takes the table; without, it is printed")] = None,
    settings: Settings = None,
) -> Result:
    """The best users for an item, by the scores and rules of the published run.

    Examples:
        recsys-ray audience shop.yaml SKU-17 SKU-23 --users 500 --file audience.parquet
    """
    with open_pipeline(config, settings, say, reads_input=False) as pipeline:
        import pyarrow as pa

        from recsys_ray.base.storage import Location
        from recsys_ray.runs.audience import audience as best_users

        place, opened = pipeline.published()
        wanted = pa.array(list(dict.fromkeys(items)), pa.string())
        map_blocks = pipeline.session.map_blocks
        table = best_users(opened, pipeline.output, place, wanted, users, most_per_user, map_blocks)
        if file is None:
            say.show(table.to_pandas().to_string(index=False))
        else:
            Location.of(file).write_parquet(table)
    counts = {"items": len(wanted), "rows": table.num_rows}
    return {"command": "audience", "run": str(place), "path": file} | counts


def forget(
    say: Reporter,
    config: ConfigFile,
    users: Annotated[list[str], typer.Argument(metavar="USER", help="ids of users")],
    settings: Settings = None,
) -> Result:
    """Users who asked to be forgotten: out of what the service kept, of every later run, and of its answers at once.

    Examples:
        recsys-ray forget shop.yaml C-1042
    """
    from recsys_ray.base.storage import Location
    from recsys_ray.config import load_config
    from recsys_ray.runs.forget import forget as forget_users

    loaded = load_config(config, settings or (), say)
    found = forget_users(Location.of(loaded.output), users)
    taken = ", ".join(f"{count:,} of {name}" for name, count in found["rows"].items())
    say(f"forget: {found['new']:,} users are new on the list; rows taken out: {taken}")
    if found["runs"]:
        say(
            f"forget: {len(found['runs']):,} published runs hold lists of them still, {found['runs'][-1]} among them; "
            "run the configuration again, and let runs.keep delete the others"
        )
    say("forget: what was exported to Redis, Postgres or a directory holds them until it is exported again")
    say("forget: your own input files are yours to clean; they are read without these users from now on")
    return {"command": "forget"} | found
