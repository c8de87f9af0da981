"""What a run came to: what was read and dropped, how good it is, what it took, and some lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recsys_ray.base.manifest import read_manifest
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.funnel import Funnel
from recsys_ray.pipeline.measured import METRICS
from recsys_ray.pipeline.stages import Stages
from recsys_ray.runs.preview import Example, examples


@dataclass(frozen=True, slots=True)
class Beside:
    """The model's metric beside that of a baseline."""

    name: str
    value: float
    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a run."""

    name: str
    model: str
    path: str
    published: bool
    funnel: list[tuple[str, int]]
    """What became of the rows that were read."""
    users: int
    items: int
    metric: str | None
    value: float | None
    interval: list[float] | None
    baselines: list[Beside]
    coverage: float | None
    """Share of the catalogue in the published lists."""
    fallback: float | None
    """Share of the rows that the model did not give."""
    stages: list[dict[str, Any]]
    """Name, seconds, peak of memory in bytes, whether it was skipped."""
    examples: list[Example]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise(stages: Stages, results: Mapping[str, Mapping[str, Any]]) -> Summary:
    """Of a run that has come to its end; ``results`` are those of ``Pipeline.run``."""
    config, made = stages.config, results["recommend"]
    run = Location(made["path"])
    checks = made.get("checks") or {}
    metric = value = interval = None
    baselines: list[Beside] = []
    if "evaluate" in results and "folds" not in results["evaluate"]:
        metric = f"{config.runs.accuracy.metric}@{config.evaluation.max_k}"
        found = read_manifest(Location(results["evaluate"]["path"]) / METRICS)
        value, interval = found["model"]["metrics"].get(metric), found["model"]["intervals"].get(metric)
        for name, other in found["baselines"].items():
            difference = other.get("differences", {}).get(metric, (None, None, None))
            baselines.append(Beside(name, other["metrics"][metric], *difference))
    names = ("stage", "seconds", "skipped", "memory")
    funnel = stages.prepared.manifest.get("funnel")  # none in what an earlier version prepared
    return Summary(
        name=config.name,
        model=config.model_name,
        path=str(run),
        published=made["latest"] == run.name,
        funnel=Funnel(**funnel).rows() if funnel else [],
        users=stages.prepared.num_users,
        items=stages.prepared.num_items,
        metric=metric,
        value=value,
        interval=interval,
        baselines=baselines,
        coverage=checks.get("coverage"),
        fallback=checks.get("fallback_share"),
        stages=[
            {"stage": label} | {name: told[name] for name in names[1:] if name in told}
            for label, told in results.items()
        ],
        examples=examples(run, Location(made["bundle"])),
    )
