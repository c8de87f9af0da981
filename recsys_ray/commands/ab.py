"""``recsys-ray ab CONFIG``: is one variant of the service better than another, for its users."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from recsys_ray.commands import Progress, add_config

HELP = "the variants of the service side by side: outcomes a user, effects with intervals that may be looked at daily"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="no table, only the JSON line")
    add_config(parser)


def run(parsed: Namespace, progress: Progress) -> dict[str, Any]:
    from recsys_ray.base.storage import Location
    from recsys_ray.config import load_config
    from recsys_ray.runs.experiment import judge_experiment

    config = load_config(parsed.config, parsed.overrides, progress)
    output, serving = Location.of(config.output), config.serving
    weights = {variant.name: variant.weight for variant in serving.variants}
    found = judge_experiment(output, weights, serving.experiment)
    if not parsed.json:
        print(found.table())
    return {"command": "ab", "path": str(output), **found.json()}
