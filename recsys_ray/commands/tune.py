"""``recsys-ray tune CONFIG``: which settings rank the validation part best."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from recsys_ray.commands import Progress, add_config, open_pipeline

HELP = "search the settings of tune.space on the validation part; killed, the same command goes on"


def add_arguments(parser: ArgumentParser) -> None:
    add_config(parser)


def run(parsed: Namespace, progress: Progress) -> dict[str, Any]:
    with open_pipeline(parsed.config, parsed.overrides, progress) as pipeline:
        from recsys_ray.pipeline.tracked import track_search
        from recsys_ray.pipeline.tuned import table, tune

        found = tune(pipeline)
        print(table(found, pipeline.config.tune))
        track_search(pipeline, found)
    best = found.trials[0]
    progress(f"tune: recsys-ray run {found.best_file} compares the best with the configuration as it was, on test")
    return {
        "command": "tune",
        "best": best.values,
        "score": best.score,
        "before": found.start,
        "trials": len(found.trials),
        "path": str(found.best_file),
        "page": str(found.page),
    }
