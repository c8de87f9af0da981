"""Lists written by the batch job, and what held-out interactions say of them."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any, NamedTuple

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.manifest import read_manifest, write_manifest
from recsys_ray.base.provenance import fingerprint
from recsys_ray.base.schema import PARTS
from recsys_ray.base.storage import Location
from recsys_ray.cluster.recommend import run_batch
from recsys_ray.cluster.session import Session
from recsys_ray.config import Config, dump
from recsys_ray.data.config import KFold
from recsys_ray.evaluation import CrossValidation, Report
from recsys_ray.models import Model
from recsys_ray.pipeline.stages import Stages, traced
from recsys_ray.recommend import bundle as bundles
from recsys_ray.recommend.bundle import open_bundle
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.moments import dated
from recsys_ray.recommend.options import denied_in_vain, search_index
from recsys_ray.retrieval import IndexSettings
from recsys_ray.runs import publish as runs
from recsys_ray.runs.batch import Models, run_fingerprint
from recsys_ray.runs.compare import evaluation_facts
from recsys_ray.runs.evaluate import evaluate_run
from recsys_ray.runs.published import part_stamps

METRICS, WRITTEN = "metrics.json", "_parts.json"
"""Of an evaluation; of the lists that were measured, with their sizes and checksums."""


class Lists(NamedTuple):
    """A run of the batch job, written or not, and what it is made with."""

    run: Location
    models: Models
    settings: RecommendSettings


class Measured(Stages):
    """The model's lists and those of its baselines, measured on the held-out part."""

    def __init__(self, config: Config, session: Session) -> None:
        super().__init__(config, session)
        self._reports: dict[str, Report] = {}
        self._judged_with: list[str] = []

    def train(self) -> dict[str, Any]:
        """The fit that is evaluated; without a split, the one that is published."""
        parts = self._evaluation_parts() if self.config.has_split else self._published_parts()
        return self._fit_models("train", parts)

    @traced("evaluate")
    def evaluate(self, *, show: bool = True) -> dict[str, Any]:
        """Metrics of the written lists against held-out targets, beside popularity; ``show`` prints them."""
        if not self.config.has_split:
            raise ConfigError("data.split.kind=none holds nothing out to evaluate on; set data.split.kind")
        if isinstance(split := self.config.data.split, KFold) and split.fold is None:
            return self._evaluate_folds(split)
        started = time.perf_counter()
        self._fit_models("train", self._evaluation_parts())
        lists = self._lists(self.config.model_name, "train")
        run, bundle = lists.run, lists.models.bundle
        location = self.output / "evaluation" / fingerprint(run.name, dump(self.config.evaluation))[:12]
        skipped = self._is_done("evaluate", location / METRICS, lists=False)
        if skipped:
            result = read_manifest(location / METRICS)
        else:
            report = self._measure(lists)
            result = evaluation_facts(
                self.prepared.location, bundle, run, self.config.evaluation, self.config.recommend.filter_seen
            )
            result |= {"model": report.to_json(), "runs": [str(run)], "baselines": {}}
            table = report.table()
            for name, other in self.config.baselines().items():
                baseline_run, baseline = self._beside(name, other)
                differences = {metric: list(found) for metric, found in report.compare(baseline).items()}
                result["baselines"][name] = baseline.to_json() | {"differences": differences}
                result["runs"].append(str(baseline_run))
                table += "\n" + report.beside(baseline, name)
            result["table"] = table
            write_manifest(location / METRICS, result)
        if show:
            self.show(result["table"])
        facts = {"metrics": result["model"]["metrics"]}
        facts["baselines"] = {name: baseline["metrics"] for name, baseline in result["baselines"].items()}
        return self._done("evaluate", location, skipped, facts, started)

    def _beside(self, name: str, model: Model) -> tuple[Location, Report]:
        """Another model's lists for the same targets, and what they are worth."""
        self._fit(name, self._evaluation_parts(), model)
        lists = self._lists(name, name)
        return lists.run, self._measure(lists)

    def _evaluate_folds(self, split: KFold) -> dict[str, Any]:
        """Every fold as a run of its own, without publication; mean and spread over them."""
        started, folds = time.perf_counter(), []
        places: list[str] = []
        for fold in range(split.folds):
            self.session.progress(f"evaluate: fold {fold + 1} of {split.folds}")
            data = self.config.data.model_copy(update={"split": split.model_copy(update={"fold": fold})})
            run = Measured(self.config.model_copy(update={"data": data}), self.session)
            folds.append(run.evaluate(show=False))
            places += [str(self.output / name) for name in run.made_with()]
        found = {name: [fold["baselines"][name] for fold in folds] for name in folds[0]["baselines"]}
        report = CrossValidation([fold["metrics"] for fold in folds], found)
        paths = [fold["path"] for fold in folds]
        location = self.output / "evaluation" / f"folds-{fingerprint(paths)[:12]}"
        write_manifest(location / METRICS, report.to_json() | {"runs": places})
        self.show(report.table(self.config.evaluation))
        means = {name: value.mean for name, value in report.values.items()}
        skipped = all(fold["skipped"] for fold in folds)
        return self._done("evaluate", location, skipped, {"metrics": means, "folds": report.to_json()}, started)

    @cached_property
    def asked(self) -> RecommendSettings:
        """The section ``recommend``, with the day of this run where a rule depends on the day."""
        return dated(self.config.recommend, self.prepared.items)

    @property
    def _recommendations(self) -> Location:
        return self.output / "recommendations"

    def _evaluation_parts(self) -> tuple[str, ...]:
        return self._present(("train",) if self.config.evaluation.on == "valid" else ("train", "valid"))

    def _published_parts(self) -> tuple[str, ...]:
        everything = tuple(PARTS)
        return self._present(everything if self.config.training.refit == "all" else everything[:2])

    def _fit_models(self, stage: str, parts: tuple[str, ...]) -> dict[str, Any]:
        """The model, and on the same parts the one that ranks its candidates; the facts of the first."""
        if (ranker := self.config.chosen_ranker()) is not None:
            self._fit(f"{stage}_ranker", parts, ranker)
        return self._fit(stage, parts, self.config.chosen_model())

    def _models(self, stage: str, settings: RecommendSettings) -> Models:
        """What was fitted in a stage, as far as these settings ask for it."""
        ranker = None if settings.ranker is None else Location(self._results[f"{stage}_ranker"]["path"])
        return Models(Location(self._results[stage]["path"]), ranker)

    def _start_run(self, root: Location, models: Models, settings: RecommendSettings) -> Location:
        key = run_fingerprint(models, settings)
        return runs.start_run(root, key, {"bundle": str(models.bundle), "recommend": dump(settings)})

    def _batch(self, models: Models, run: Location, settings: RecommendSettings) -> dict[str, Any]:
        bundle, ranker = models
        users_per_shard = bundles.read_manifest(bundle)["users_per_shard"]
        # An approximate index is built here, once for all actors; what was measured of it belongs to the run's facts.
        opened = open_bundle(bundle)
        if vain := denied_in_vain(opened, settings):
            self.session.progress(f"recommend: {vain}")
        _, index = search_index(opened, settings, self.session.progress)
        return {"index": index} | run_batch(self.session, bundle, run, settings, users_per_shard, ranker)

    def _lists(self, model: str, stage: str) -> Lists:
        """What is measured of a model. The run is the published one whenever the fits agree."""
        config = self.config
        same_fit = model == config.model_name and self._evaluation_parts() == self._published_parts()
        if same_fit and config.recommend.n >= max(config.evaluation.k):
            settings, root = self.asked, self._recommendations
        else:
            rows = min(max(config.recommend.n, *config.evaluation.k), self.prepared.num_items)
            # Reasons are not measured, and a baseline is its own plain list: it may not even have vectors to index.
            bare: dict[str, Any] = {"index": IndexSettings(), "ranker": None, "rerank": None}
            bare |= {"fallback": config.recommend.fallback_of_all, "stages": [], "time_of_day": None}
            plain = bare if model != config.model_name else {}
            changes = {"n": rows, "layout": "long", "reasons": False} | plain
            settings = config.recommend.model_copy(update=changes)
            root = self.output / "evaluation" / "runs"
        models = self._models(stage, settings)
        return Lists(self._start_run(root, models, settings), models, settings)

    def _measure(self, lists: Lists) -> Report:
        """What the lists are worth; those that are not there yet are written first."""
        run = lists.run
        if (report := self._reports.get(str(run))) is None:
            with self._alone("evaluate", run):
                if not self._is_done("evaluate", run / WRITTEN):
                    self._batch(lists.models, run, lists.settings)
                    names = [name for name in run.names() if runs.is_part(name)]
                    write_manifest(run / WRITTEN, {"files": part_stamps(run, names, self.session.map_blocks)})
            settings, map_blocks = self.config.evaluation, self.session.map_blocks
            filter_seen, bundle = lists.settings.filter_seen, lists.models.bundle
            report = evaluate_run(self.prepared.location, bundle, run, settings, map_blocks, filter_seen=filter_seen)
            self._reports[str(run)] = report
        return report

    def made_with(self) -> list[str]:
        """Names under the output directory of what the stages wrote; tables of vectors have a rule of their own."""
        inside = f"{self.output}/"
        places = [result["path"] for name, result in self._results.items() if name != "embed"]
        if "evaluate" in self._results:
            report = read_manifest(Location(self._results["evaluate"]["path"]) / METRICS)
            places += [run for run in report["runs"] if not run.startswith(str(self._recommendations))]
        places += [place for place in self._judged_with if not place.startswith(str(self._recommendations))]
        return sorted({place.removeprefix(inside) for place in places if place.startswith(inside)})
