"""``recsys-ray forget CONFIG USER...``: a user asked to be forgotten."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from recsys_ray.commands import Progress

HELP = "users who asked to be forgotten: out of what the service kept, of every later run, and of its answers at once"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config", help="YAML file, see configs/")
    parser.add_argument("users", nargs="+", metavar="USER", help="ids of users")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="key=value", help="override a key; repeatable"
    )


def run(parsed: Namespace, progress: Progress) -> dict[str, Any]:
    from recsys_ray.base.storage import Location
    from recsys_ray.config import load_config
    from recsys_ray.runs.forget import forget

    config = load_config(parsed.config, parsed.settings, progress)
    found = forget(Location.of(config.output), parsed.users)
    taken = ", ".join(f"{count:,} of {name}" for name, count in found["rows"].items())
    progress(f"forget: {found['new']:,} users are new on the list; rows taken out: {taken}")
    if found["runs"]:
        progress(
            f"forget: {len(found['runs']):,} published runs hold lists of them still, {found['runs'][-1]} among them; "
            "run the configuration again, and let runs.keep delete the others"
        )
    progress("forget: your own input files are yours to clean; they are read without these users from now on")
    return {"command": "forget"} | found
