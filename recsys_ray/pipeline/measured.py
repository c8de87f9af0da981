"""Lists written by the batch job, and what held-out interactions say of them."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.provenance import fingerprint
from recsys_ray.base.schema import PARTS
from recsys_ray.base.storage import Location
from recsys_ray.cluster.recommend import run_batch
from recsys_ray.cluster.session import Session
from recsys_ray.config import Config, dump
from recsys_ray.data.config import KFold
from recsys_ray.evaluation import CrossValidation, Report
from recsys_ray.models import Model
from recsys_ray.pipeline.stages import Stages
from recsys_ray.recommend.bundle import open_bundle, read_manifest
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.moments import dated
from recsys_ray.recommend.options import search_index
from recsys_ray.retrieval import IndexSettings
from recsys_ray.runs import publish as runs
from recsys_ray.runs.batch import Models, run_fingerprint
from recsys_ray.runs.compare import evaluation_facts
from recsys_ray.runs.evaluate import evaluate_run


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

    def evaluate(self, *, show: bool = True) -> dict[str, Any]:
        """Metrics of the written lists against held-out targets, beside popularity; ``show`` prints them."""
        if not self.config.has_split:
            raise ConfigError("data.split.kind=none holds nothing out to evaluate on; set data.split.kind")
        if isinstance(split := self.config.data.split, KFold) and split.fold is None:
            return self._evaluate_folds(split)
        started = time.perf_counter()
        self._fit_models("train", self._evaluation_parts())
        location, run, bundle = self._evaluation_run(self.config.model_name, "train")
        skipped = (location / "metrics.json").exists()
        if skipped:
            result = (location / "metrics.json").read_json()
        else:
            report = self._measure(run, bundle)
            result = evaluation_facts(self.prepared.location, bundle, run, self.config.evaluation)
            result |= {"model": report.to_json(), "runs": [str(run)], "baselines": {}}
            table = report.table()
            for name, other in self.config.baselines().items():
                baseline_run, baseline = self._beside(name, other)
                result["baselines"][name] = baseline.to_json()
                result["runs"].append(str(baseline_run))
                table += "\n" + report.beside(baseline, name)
            result["table"] = table
            (location / "metrics.json").write_json(result)
        if show:
            self.session.progress(result["table"])
        facts = {"metrics": result["model"]["metrics"]}
        facts["baselines"] = {name: baseline["metrics"] for name, baseline in result["baselines"].items()}
        return self._done("evaluate", location, skipped, facts, started)

    def _beside(self, name: str, model: Model) -> tuple[Location, Report]:
        """Another model's lists for the same targets, and what they are worth."""
        self._fit(name, self._evaluation_parts(), model)
        _, run, bundle = self._evaluation_run(name, name)
        return run, self._measure(run, bundle)

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
        (location / "metrics.json").write_json(report.to_json() | {"runs": places})
        self.session.progress(report.table(self.config.evaluation))
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
        users_per_shard = read_manifest(bundle)["users_per_shard"]
        if len(runs.finished_shards(run)) < len(users_per_shard):
            for location in filter(None, models):
                open_bundle(location, verify=True)  # every byte, once, before many actors trust them
        # An approximate index is built here, once for all actors; what was measured of it belongs to the run's facts.
        _, index = search_index(open_bundle(bundle), settings, self.session.progress)
        return {"index": index} | run_batch(self.session, bundle, run, settings, users_per_shard, ranker)

    def _evaluation_run(self, model: str, stage: str) -> tuple[Location, Location, Location]:
        """(directory of the report, finished run, bundle). The run is the published one whenever the fits agree."""
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
        run = self._start_run(root, models, settings)
        self._batch(models, run, settings)
        key = fingerprint(run.name, dump(config.evaluation))
        return self.output / "evaluation" / key[:12], run, models.bundle

    def _measure(self, run: Location, bundle: Location) -> Report:
        if (report := self._reports.get(str(run))) is None:
            settings, map_blocks = self.config.evaluation, self.session.map_blocks
            report = evaluate_run(self.prepared.location, bundle, run, settings, map_blocks)
            self._reports[str(run)] = report
        return report

    def made_with(self) -> list[str]:
        """Names under the output directory of what the stages wrote; tables of vectors have a rule of their own."""
        inside = f"{self.output}/"
        places = [result["path"] for name, result in self._results.items() if name != "embed"]
        if "evaluate" in self._results:
            report = (Location(self._results["evaluate"]["path"]) / "metrics.json").read_json()
            places += [run for run in report["runs"] if not run.startswith(str(self._recommendations))]
        places += [place for place in self._judged_with if not place.startswith(str(self._recommendations))]
        return sorted({place.removeprefix(inside) for place in places if place.startswith(inside)})
