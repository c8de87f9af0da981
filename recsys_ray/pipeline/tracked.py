"""Runs and searches told to the tracker of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from recsys_ray.base.provenance import versions
from recsys_ray.base.storage import Location
from recsys_ray.config import dump
from recsys_ray.pipeline.stages import Stages
from recsys_ray.pipeline.tuned import Tuned
from recsys_ray.recommend.bundle import read_manifest
from recsys_ray.tracking import Trackable, Tracker, flat, open_tracker, track

LEFT_OUT = ("serving", "cluster", "tracking", "tune")
"""Sections that change no result."""


def track_run(stages: Stages, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Tell of a run that has come to its end; nothing without a section ``tracking``."""
    if stages.config.tracking is None:
        return
    made, answers = results["recommend"], Location(results["recommend"]["bundle"])
    measured = results.get("evaluate", {})
    metrics = dict(measured.get("metrics", {}))
    for name, values in measured.get("baselines", {}).items():
        metrics |= {f"{name}/{metric}": value for metric, value in values.items()}
    metrics |= {f"seconds/{stage}": result["seconds"] for stage, result in results.items()}
    metrics |= {f"gate/{name}": value for name, value in made["checks"].items() if value is not None}
    run = Trackable(
        name=Location(made["path"]).name,
        parameters=_parameters(stages),
        metrics=metrics,
        epochs=read_manifest(Location(results["train"]["path"])).get("epochs", []),
        texts={"config.yaml": _yaml(stages)},
        tags={"path": made["path"]} | {f"version.{name}": version for name, version in versions().items()},
        bundle=answers,
        published=made["latest"] == Location(made["path"]).name,
    )
    track(run, lambda: _tracker(stages), stages.session.progress)


def track_search(stages: Stages, found: Tuned) -> None:
    """Tell of a search and of each of its trials."""
    if stages.config.tracking is None:
        return
    trials = [
        Trackable(
            name=f"trial {number}",
            parameters=trial.values,
            metrics={"score": trial.score or 0.0, "seconds": trial.seconds, "epochs": trial.epochs},
            tags={"stopped_early": str(trial.stopped).lower()},
        )
        for number, trial in enumerate(found.trials, 1)
    ]
    best = found.trials[0]
    before = {} if found.start is None else {"score_before": found.start}
    run = Trackable(
        name=f"search {found.best_file.parent.name}",
        parameters=_parameters(stages) | {f"best.{key}": value for key, value in best.values.items()},
        metrics={"score": best.score or 0.0} | before,
        texts={
            "best.yaml": found.best_file.read_bytes().decode(),
            "search.html": found.page.read_bytes().decode(),
        },
        children=trials,
    )
    track(run, lambda: _tracker(stages), stages.session.progress)


def _tracker(stages: Stages) -> Tracker:
    assert stages.config.tracking is not None
    return open_tracker(stages.config.tracking, stages.output, stages.config.name)


def _parameters(stages: Stages) -> dict[str, Any]:
    tree = dump(stages.config)
    return flat({section: value for section, value in tree.items() if section not in LEFT_OUT})


def _yaml(stages: Stages) -> str:
    return yaml.safe_dump(dump(stages.config), sort_keys=False, allow_unicode=True)
