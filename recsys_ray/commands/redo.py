"""``recsys-ray redo STAGE CONFIG``: a stage is done again, whatever is there, and then what stands on it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from recsys_ray.commands import Progress, add_config, open_pipeline

HELP = "do a stage again, whatever is there, and what follows it: prepare, embed, train, evaluate, recommend or all"
REDONE = ("prepare", "embed", "train", "evaluate", "recommend")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("redone", choices=(*REDONE, "all"), metavar="STAGE", help=", ".join((*REDONE, "all")))
    add_config(parser)


def run(parsed: Namespace, progress: Progress) -> dict[str, Any]:
    first = 0 if parsed.redone == "all" else REDONE.index(parsed.redone)
    with open_pipeline(parsed.config, parsed.overrides, progress) as pipeline, pipeline.only_once():
        pipeline.again = frozenset(REDONE[first:])
        return pipeline.run()
