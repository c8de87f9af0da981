"""What one does before the first run: a configuration, a look ahead, and what there is to set."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_ray.commands import ConfigFile, Overrides, Result
from recsys_ray.console.reporter import Reporter

if TYPE_CHECKING:
    from recsys_ray.config.reference import Section


def init(
    say: Reporter,
    data: Annotated[
        list[str] | None,
        typer.Argument(metavar="DATA", help="files and directories: events, and where there are such items and users"),
    ] = None,
    example: Annotated[
        str | None, typer.Option(metavar="NAME", help="a ready configuration instead: demo or movielens")
    ] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="what is written; by default NAME.yaml")] = None,
    force: Annotated[bool, typer.Option("--force", help="write over a file that is there")] = False,
) -> Result:
    """Look at your files, guess what is what, and write a configuration with the reasons in it.

    Parquet, CSV, TSV and JSON lines, packed or not, single files or directories, and the published layouts of
    MovieLens, Book-Crossing and LightGCN.

    Examples:
        recsys-ray init orders.csv products.csv
        recsys-ray init shop/
        recsys-ray init --example demo
    """
    from pathlib import Path

    from recsys_ray.base.errors import ConfigError

    if bool(data) == (example is not None):
        raise ConfigError("init takes files and directories of data, or --example demo; see recsys-ray init --help")
    from recsys_ray.planning.draft import draft
    from recsys_ray.planning.draft import example as ready

    found = draft(data) if data else ready(str(example))
    place = Path(file or f"{found.name}.yaml")
    if place.exists() and not force:
        raise ConfigError(f"{place} is there already; --force writes over it, --file names another")
    place.write_text(found.text)
    after = [f"\n{place} is written. Next:", f"  recsys-ray plan {place}", f"  recsys-ray run {place}"]
    say.show("\n".join([*found.told, *after]))
    return {"command": "init", "path": str(place), "guesses": found.told}


def plan(
    say: Reporter,
    config: ConfigFile,
    overrides: Overrides = None,
    price: Annotated[float | None, typer.Option(min=0, help="what an hour of the machine costs, for the money")] = None,
) -> Result:
    """What a run will read, need and skip, without running it: counts, memory, time, disk, first rows. No Ray.

    Examples:
        recsys-ray plan shop.yaml
        recsys-ray plan shop.yaml model=ease --price 0.40
    """
    from recsys_ray.config import load_config
    from recsys_ray.planning.plan import plan as look_ahead

    loaded = load_config(config, overrides or (), say)
    found = look_ahead(loaded, price)
    after = [] if found.problems else ["", f"Next: recsys-ray run {config}"]
    say.show("\n".join([*found.lines(), *after]))
    return {"command": "plan", "exit_status": 1 if found.problems else 0} | found.to_json()


def describe(
    say: Reporter,
    name: Annotated[
        str | None, typer.Argument(metavar="SECTION|MODEL|KEY", help="recommend, data.split, als, min_rating, ...")
    ] = None,
) -> Result:
    """What can be set: all sections, or the keys of one, with type, default and meaning.

    Examples:
        recsys-ray describe
        recsys-ray describe recommend
        recsys-ray describe als
    """
    from recsys_ray.config import reference

    if name is None:
        listed = reference.sections()
        say.show("\n".join(_title(one) for one in listed) + "\n\nrecsys-ray describe SECTION shows its keys")
    else:
        listed = reference.section(name)
        say.show("\n\n".join(map(_section_text, listed)))
    return {"command": "describe", "sections": [asdict(one) for one in listed]}


def models(say: Reporter) -> Result:
    """The models that model.name can be, in one line each.

    Examples:
        recsys-ray models
    """
    from recsys_ray.config import reference

    entries = reference.models()
    wide = max(len(entry.name) for entry in entries)
    lines = [f"{entry.name:<{wide}}  {entry.summary}{_marks(entry)}" for entry in entries]
    say.show("\n".join(lines) + "\n\nrecsys-ray describe MODEL shows its settings; recsys-ray choose CONFIG tries them")
    found = [{name: value for name, value in asdict(entry).items() if name != "section"} for entry in entries]
    return {"command": "models", "models": found}


def schema(say: Reporter) -> Result:
    """The JSON schema of a configuration file, for editors: they complete and check keys as you type.

    In VS Code: recsys-ray schema > recsys.schema.json, and in the first line of the file
    # yaml-language-server: $schema=recsys.schema.json

    Examples:
        recsys-ray schema > recsys.schema.json
    """
    import json

    from recsys_ray.config import reference

    found = reference.json_schema()
    if not say.as_json:
        say.show(json.dumps(found, indent=2))
    return found


def _marks(entry: object) -> str:
    names = {"ordered": "uses the order", "needs_content": "needs content", "predicts_ratings": "predicts ratings"}
    marks = [text for name, text in names.items() if getattr(entry, name)]
    return f" [{', '.join(marks)}]" if marks else ""


def _title(one: Section) -> str:
    name = (one.path or "(top)") + (f" = {one.kind}" if one.kind else "")
    return f"{name:<38} {one.text.split(chr(10) + chr(10))[0].replace(chr(10), ' ')}"


def _section_text(one: Section) -> str:
    lines = [_title(one).rstrip(), ""]
    for key in one.keys:
        default = "must be set" if key.default is None else f"default {key.default}"
        bounds = f", {key.bounds}" if key.bounds else ""
        lines.append(f"  {key.path}  ({key.type}{bounds}; {default})")
        lines += [f"      {line}" for line in key.text.splitlines()]
    return "\n".join(lines)
