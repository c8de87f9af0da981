"""What is known of a published run, from the files that it and those before it left."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from recsys_ray.base.errors import RecsysError
from recsys_ray.base.manifest import read_manifest
from recsys_ray.base.storage import Location
from recsys_ray.base.types import LongArray, MapBlocks, map_blocks_here
from recsys_ray.data.checks import Symptom, drift, worst_first
from recsys_ray.data.prepare.funnel import Funnel
from recsys_ray.data.prepared import Prepared
from recsys_ray.data.report.exploration import explore
from recsys_ray.data.report.statistics import statistics
from recsys_ray.evaluation.comparison import Comparison
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.runs.compare import METRICS, compare_runs, find_evaluation
from recsys_ray.runs.gate_part import flat
from recsys_ray.runs.history import newest_first
from recsys_ray.runs.publish import bundle_of, is_part
from recsys_ray.runs.published import PublishedRun, read_run

STAGES = "_stages.json"
"""Beside the parts: what each stage took when the run was made."""
MOST_RUNS = 10
SHOWN = ("ndcg", "recall", "hit_rate", "coverage", "diversity", "novelty", "popularity", "tail_share", "gini")
"""Metrics of the table, at the largest k."""
COMPARED = ("ndcg", "recall", "hit_rate")
TENTHS = 10
MOST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Measured:
    """A run with its evaluation, as far as that is still there."""

    run: PublishedRun
    evaluation: dict[str, Any]
    """``model`` and ``baselines`` of metrics.json; empty where there is none."""

    def value(self, metric: str) -> float | None:
        found = self.evaluation.get("model", {}).get("metrics", {}) or self.run.evaluation or {}
        return found.get(metric)

    def interval(self, metric: str) -> list[float] | None:
        found: list[float] | None = self.evaluation.get("model", {}).get("intervals", {}).get(metric)
        return found


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Everything that the page shows of a run, but the examples."""

    measured: list[Measured]
    """The run, then those published before it."""
    k: int | None
    """The largest that was measured."""
    funnel: list[str] = field(default_factory=list)
    """A line a number."""
    sizes: dict[str, list[int]] = field(default_factory=dict)
    """Users, items and interactions: of this run, and of the one before where its data is still there."""
    drift: list[Symptom] | None = None
    """What changed in the data since the run before; None where there is nothing to compare with."""
    drift_note: str = ""
    comparisons: list[Comparison] = field(default_factory=list)
    """With the run before, paired over users."""
    comparison_note: str = ""
    exposures_I: LongArray
    """(I,) lists that each item stands in."""
    counts_I: LongArray
    """(I,) interactions of each item that the model has seen."""
    users: int
    stages: list[dict[str, Any]]
    """In order: stage, seconds, skipped; peak_mib where it is no part of another stage. Empty where the run was made
    before that was written."""
    fit: dict[str, Any]

    @property
    def run(self) -> PublishedRun:
        return self.measured[0].run

    def by_tenth(self) -> tuple[list[float], list[float]]:
        """Shares of all places in lists, and of all interactions, that the tenths of the items hold, the most popular
        tenth first."""
        order = np.argsort(-self.counts_I, kind="stable")
        shares = []
        for values_I in (self.exposures_I, self.counts_I):
            parts = np.array_split(values_I[order], TENTHS)
            shares.append([float(part.sum()) / max(1, int(values_I.sum())) for part in parts])
        return shares[0], shares[1]


def collect(output: Location, place: Location, map_blocks: MapBlocks = map_blocks_here) -> tuple[RunFacts, Bundle]:
    """The facts of a published run, and its opened model.

    Raises:
        PublishError: it has no record that can be read. BundleError, StorageError, DataError: its model or a part of it
            can't be read.
    """
    root = place.parent
    names = newest_first(root)
    names = [place.name, *names[names.index(place.name) + 1 :]][:MOST_RUNS]
    measured = [Measured(run, _evaluation(output, run)) for run in (read_run(root / name) for name in names)]
    run, before = measured[0].run, measured[1].run if len(measured) > 1 else None
    bundle = open_bundle(bundle_of(output, run.model))
    ks = [int(name.partition("@")[2]) for name in run.evaluation or {} if "@" in name]
    facts: dict[str, Any] = {"measured": measured, "k": max(ks, default=None)}
    facts |= _data(output, run, before, map_blocks) | _compared(root, facts["k"], measured, map_blocks)
    stages: list[dict[str, Any]] = []
    with suppress(RecsysError):
        stages = read_manifest(place / STAGES)["stages"]
    users = sum(bundle.users_per_shard)
    shown = RunFacts(
        **facts, exposures_I=exposures(place, bundle, map_blocks), counts_I=bundle.item_counts(), users=users,
        stages=stages, fit=bundle.manifest.get("fit", {}),
    )  # fmt: skip
    return shown, bundle


def exposures(place: Location, bundle: Bundle, map_blocks: MapBlocks) -> LongArray:
    """(I,) in how many of the published lists each item stands."""
    names = [name for name in place.names() if is_part(name)]
    counts_I = np.zeros(bundle.num_items, np.int64)
    for part_I in map_blocks(_exposures_of, names, (str(place), str(bundle.location)), "count the items of the lists"):
        counts_I += part_I
    return counts_I


def _exposures_of(name: str, places: tuple[str, str]) -> LongArray:
    run, bundle = places
    ids = open_bundle(Location(bundle)).item_ids
    items = flat((Location(run) / name).read_parquet()).column("item_id").combine_chunks()
    rows = pc.index_in(items, ids).drop_null().to_numpy(zero_copy_only=False)
    return np.bincount(rows, minlength=len(ids)).astype(np.int64)


def _evaluation(output: Location, run: PublishedRun) -> dict[str, Any]:
    for name in run.made_with:
        if name.startswith("evaluation/") and (output / name / METRICS).exists():
            with suppress(RecsysError):
                return read_manifest(output / name / METRICS)
    return {}


def _prepared(output: Location, run: PublishedRun | None) -> Prepared | None:
    names = [] if run is None else [name for name in run.made_with if name.startswith("prepared/")]
    try:
        return Prepared.open(output / names[0]) if names else None
    except RecsysError:
        return None


def _data(output: Location, run: PublishedRun, last: PublishedRun | None, map_blocks: MapBlocks) -> dict[str, Any]:
    now, before = _prepared(output, run), _prepared(output, last)
    if now is None:
        return {"drift_note": "The prepared data of this run is not there any more."}
    found: dict[str, Any] = {"sizes": {}}
    if "funnel" in now.manifest:
        found["funnel"] = Funnel(**now.manifest["funnel"]).lines()
    for one in (now, *([] if before is None else [before])):
        for name in ("users", "items", "interactions"):
            found["sizes"].setdefault(name, []).append(int(one.manifest[f"num_{name}"]))
    if before is None:
        return found | {"drift_note": "There is no data of a run before to compare with."}
    if before.location.name == now.location.name:
        return found | {"drift": [], "drift_note": "The data is that of the run before."}
    described = [statistics(one, explore(one, map_blocks)) for one in (before, now)]
    return found | {"drift": worst_first(drift(*described))}


def _compared(root: Location, k: int | None, measured: Sequence[Measured], map_blocks: MapBlocks) -> dict[str, Any]:
    if k is None:
        return {"comparison_note": "Nothing was held out, so nothing was measured."}
    if len(measured) < 2:
        return {"comparison_note": "No run was published before this one."}
    try:
        mine, theirs = (find_evaluation(root / one.run.run_id) for one in measured[:2])
        found = compare_runs(mine, theirs, [f"{metric}@{k}" for metric in COMPARED], map_blocks)
    except RecsysError as error:
        return {"comparison_note": f"Not compared with {measured[1].run.run_id} in pairs: {error}"}
    return {"comparisons": found}
