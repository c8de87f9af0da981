"""Two runs on the same held-out interactions, compared user by user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from recsys_ray.base.errors import DataError, PublishError, RecsysError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import MapBlocks, map_blocks_here
from recsys_ray.evaluation import EvaluationSettings, Report
from recsys_ray.evaluation.comparison import Comparison, compare_reports, holm
from recsys_ray.runs.evaluate import evaluate_run
from recsys_ray.runs.publish import RECOMMENDATIONS, latest_run
from recsys_ray.runs.published import read_run

METRICS = "metrics.json"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A finished evaluation: what was measured, on which data, how."""

    name: str
    prepared: Location
    bundle: Location
    run: Location
    settings: EvaluationSettings
    filter_seen: bool = True

    def report(self, settings: EvaluationSettings, map_blocks: MapBlocks) -> Report:
        return evaluate_run(self.prepared, self.bundle, self.run, settings, map_blocks, filter_seen=self.filter_seen)


def evaluation_facts(
    prepared: Location, bundle: Location, run: Location, settings: EvaluationSettings, filter_seen: bool
) -> dict[str, Any]:
    """What is written beside the metrics, so that they can be compared later."""
    places = {"prepared": str(prepared), "bundle": str(bundle), "run": str(run)}
    return places | {"evaluation": settings.model_dump(mode="json"), "filter_seen": filter_seen}


def find_evaluation(place: Location) -> Evaluated:
    """The evaluation at a place: its own directory, a published run, or an output directory (what LATEST names).

    Raises:
        PublishError: there is none, with what was looked for.
    """
    if (place / METRICS).exists():
        return _read(place.name, place)
    run, output = place, place.parent.parent
    if (place / RECOMMENDATIONS).exists():
        latest = latest_run(place / RECOMMENDATIONS)
        if latest is None:
            raise PublishError(f"{place}: nothing is published there; name a directory under {place}/evaluation")
        run, output = latest, place
    try:
        made_with = read_run(run).made_with
    except RecsysError as error:
        raise PublishError(
            f"{place}: neither an evaluation, nor a published run, nor the output of a configuration ({error})"
        ) from error
    for name in made_with:
        if name.startswith("evaluation/") and (output / name / METRICS).exists():
            return _read(run.name, output / name)
    raise PublishError(f"{place}: run {run.name} was published without an evaluation; set data.split.kind")


def _read(name: str, folder: Location) -> Evaluated:
    facts = (folder / METRICS).read_json()
    try:
        prepared, bundle, run = (Location(str(facts[key])) for key in ("prepared", "bundle", "run"))
        settings = EvaluationSettings.model_validate(facts["evaluation"])
        return Evaluated(name, prepared, bundle, run, settings, bool(facts.get("filter_seen", True)))
    except (KeyError, TypeError, ValidationError) as error:
        raise PublishError(f"{folder}: {METRICS} is of another version; evaluate the configuration again") from error


def compare_runs(
    mine: Evaluated, theirs: Evaluated, metrics: Sequence[str] | None, map_blocks: MapBlocks = map_blocks_here
) -> list[Comparison]:
    """Every shared metric for everyone and by segment, or those named, p-values adjusted together (Holm).

    Raises:
        DataError: the two were evaluated on other data or on another part.
    """
    if mine.prepared.name != theirs.prepared.name or mine.settings.on != theirs.settings.on:
        sides = [f"{one.name} on the {one.settings.on} part of {one.prepared.name}" for one in (mine, theirs)]
        raise DataError(f"can't compare runs on different targets: {' and '.join(sides)}; use one section data")
    settings = mine.settings.model_copy(update={"k": [k for k in mine.settings.k if k in theirs.settings.k]})
    if not settings.k:
        raise DataError(f"can't compare k={mine.settings.k} with k={theirs.settings.k}; set evaluation.k")
    if not settings.bootstrap:
        raise DataError("can't compare without intervals; set evaluation.bootstrap above 0")
    one, two = mine.report(settings, map_blocks), theirs.report(settings, map_blocks)
    found = compare_reports(one, two, metrics)
    if not found:
        raise DataError(f"no metric {', '.join(metrics or ())}; metrics are {', '.join(one.replicates)}")
    return holm(found)
