"""``recsys-ray choose CONFIG``: which model suits the data."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from recsys_ray.commands import Progress, add_config, open_pipeline

HELP = "every affordable model on the validation part, side by side; writes the YAML of the best and of a blend"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--networks", action="store_true", help="neural models too, which take minutes")
    add_config(parser)


def run(parsed: Namespace, progress: Progress) -> dict[str, Any]:
    with open_pipeline(parsed.config, parsed.overrides, progress) as pipeline:
        from recsys_ray.pipeline.chosen import choice_table, choose

        found = choose(pipeline, networks=parsed.networks)
        print(choice_table(found))
    best = found.candidates[0]
    return {
        "command": "choose",
        "best": best.label,
        "model": best.section,
        found.metric: best.score(found.metric),
        "path": str(found.best_file),
        "blend": None if found.blend_file is None else str(found.blend_file),
    }
