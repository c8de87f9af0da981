"""The stages of a run in order, their fingerprints, and what is skipped.

    prepare -> embed -> train -> evaluate -> (refit) -> recommend -> gate -> publish

A stage writes into a directory named by the fingerprint of everything that goes into it: input files, the sections of
the configuration it reads, the format of the code that wrote it. Its manifest is written last. So a stage is done when
the manifest is there, a change anywhere leads to another directory, and an interrupted stage is simply not done.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys_ray.base.errors import ConfigError, PublishError
from recsys_ray.base.provenance import fingerprint, versions
from recsys_ray.base.schema import PARTS
from recsys_ray.base.storage import Location
from recsys_ray.cluster.embed import run_embed
from recsys_ray.cluster.fit import run_fit
from recsys_ray.cluster.recommend import run_batch
from recsys_ray.cluster.serve import run_serve
from recsys_ray.cluster.session import Session
from recsys_ray.config import Config, dump
from recsys_ray.content import table as content_table
from recsys_ray.data.prepare import driver as preparing
from recsys_ray.data.prepare.shard import ITEMS
from recsys_ray.data.prepared import Prepared
from recsys_ray.evaluation import Report
from recsys_ray.models import MODELS, Model
from recsys_ray.recommend import bundle as bundles
from recsys_ray.recommend.bundle import open_bundle, read_manifest
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.options import search_index
from recsys_ray.retrieval import IndexSettings
from recsys_ray.runs import publish as runs
from recsys_ray.runs.batch import Models, run_fingerprint
from recsys_ray.runs.evaluate import evaluate_run
from recsys_ray.runs.fit import FitJob
from recsys_ray.runs.gate import Checked, check_run
from recsys_ray.runs.publish import activated
from recsys_ray.runs.published import RunFacts, is_published, read_run
from recsys_ray.runs.verify import verify


class Pipeline:
    """One configuration being run. Each stage first makes sure of the stages it stands on."""

    def __init__(self, config: Config, session: Session) -> None:
        self.config = config
        self.session = session
        self.output = Location.of(config.output)
        self._prepared: Prepared | None = None
        self._results: dict[str, dict[str, Any]] = {}

    # -- stages ----------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """All stages; what each found or did, by stage."""
        self.prepare()
        if self.config.content is not None:
            self.embed()
        self.train()
        if self.config.has_split:
            self.evaluate()
        self.recommend()
        return dict(self._results)

    def prepare(self) -> dict[str, Any]:
        """Raw input to item table, user shards and vocabulary."""
        config = self.config
        source = preparing.open_source(config.data, seed=config.seed)
        key = fingerprint(preparing.FORMAT, dump(config.data), source.fingerprint(), config.seed)
        location = self.output / "prepared" / key[:12]
        skipped = (location / "manifest.json").exists()
        started = time.perf_counter()
        if not skipped:
            preparing.prepare(
                source,
                location,
                seed=config.seed,
                map_blocks=self.session.map_blocks,
                progress=self.session.progress,
            )
        self._prepared = Prepared.open(location)
        interactions = self._prepared.manifest["interactions"]
        facts = {"users": self._prepared.num_users, "items": self._prepared.num_items, "interactions": interactions}
        return self._done("prepare", location, skipped, facts, started)

    def embed(self) -> dict[str, Any]:
        """Texts and posters of the catalogue to item vectors; what an earlier table holds is taken from there."""
        if "embed" in self._results:
            return self._results["embed"]
        settings = self.config.content
        if settings is None:
            raise ConfigError("content: the section is missing; add it to the configuration (content={} will do)")
        started = time.perf_counter()
        items = self.prepared.location / ITEMS
        store = self.output / "embeddings" if settings.store is None else Location.of(settings.store)
        made_from = content_table.table_facts(items, settings)
        key = fingerprint(made_from)[:12]
        skipped = (store / key / content_table.MANIFEST).exists()
        facts: dict[str, Any] = {}
        if not skipped:
            job = content_table.start_table(items, store, key, made_from, settings, str(self.output))
            facts = run_embed(self.session, job)
            content_table.finish_table(job)
            for name in content_table.prune_tables(store, store / key, str(self.output), settings.keep):
                self.session.progress(f"embed: deleted the old table {name} (content.keep={settings.keep})")
        totals = (store / key / content_table.MANIFEST).read_json()
        facts = {"text_encoded": 0, "image_encoded": 0} | content_table.durable_counts(totals) | facts
        if not skipped:
            self.session.progress(content_table.summary(facts))
        return self._done("embed", store / key, skipped, facts, started)

    def train(self) -> dict[str, Any]:
        """The fit that is evaluated; without a split, the one that is published."""
        parts = self._evaluation_parts() if self.config.has_split else self._published_parts()
        return self._fit_models("train", parts)

    def evaluate(self) -> dict[str, Any]:
        """Metrics of the written lists against held-out targets, beside popularity."""
        if not self.config.has_split:
            raise ConfigError("data.split.kind=none holds nothing out to evaluate on; set data.split.kind")
        started = time.perf_counter()
        self._fit_models("train", self._evaluation_parts())
        location, run, bundle = self._evaluation_run(self.config.model_name, "train")
        skipped = (location / "metrics.json").exists()
        if skipped:
            result = (location / "metrics.json").read_json()
        else:
            report = self._measure(run, bundle)
            result = {"model": report.to_json(), "run": str(run), "runs": [str(run)], "baselines": {}}
            table = report.table()
            for name in (name for name in self.config.evaluation.baselines if name != self.config.model_name):
                self._fit(name, self._evaluation_parts(), MODELS[name]())
                _, baseline_run, baseline_bundle = self._evaluation_run(name, name)
                baseline = self._measure(baseline_run, baseline_bundle)
                result["baselines"][name] = baseline.to_json()
                result["runs"].append(str(baseline_run))
                table += "\n" + report.beside(baseline, name)
            result["table"] = table
            (location / "metrics.json").write_json(result)
        self.session.progress(result["table"])
        facts = {"metrics": result["model"]["metrics"]}
        facts["baselines"] = {name: baseline["metrics"] for name, baseline in result["baselines"].items()}
        return self._done("evaluate", location, skipped, facts, started)

    def recommend(self) -> dict[str, Any]:
        """The top n of every user: written, checked, published."""
        started = time.perf_counter()
        parts = self._published_parts()
        stage = "train" if parts == self._evaluation_parts() or not self.config.has_split else "refit"
        self._fit_models(stage, parts)
        models = self._models(stage, self.config.recommend)
        run = self._start_run(self._recommendations, models, self.config.recommend)
        published = runs.latest(self._recommendations) == run.name and is_published(run)
        if published:
            facts: dict[str, Any] = {"checks": read_run(run).checks}
        else:
            facts = self._batch(models, run, self.config.recommend)
            before = None if runs.latest(self._recommendations) == run.name else runs.latest_run(self._recommendations)
            bundle, settings, gate = open_bundle(models.bundle), self.config.recommend, self.config.runs.gate
            checked = check_run(bundle, run, settings, gate, before, self.session.map_blocks)
            facts["checks"] = checked.facts
            if self.config.runs.enabled:
                self._publish(models, run, checked, facts["index"])
        facts |= {"bundle": str(models.bundle), "latest": runs.latest(self._recommendations)}
        return self._done("recommend", run, published, facts, started)

    def report_embeddings(self) -> dict[str, Any]:
        """One HTML page about the item vectors: neighbours, projection, similarities, gaps."""
        from recsys_ray.content.report.page import embedding_report

        started = time.perf_counter()
        table, prepared = Location(self.embed()["path"]), self.prepared
        ids = prepared.items.column("item_id").combine_chunks()
        settings = self.config.content
        assert settings is not None  # or embed would have said so
        has = {kind: content_table.read_content(table, ids, kind).present_I for kind in settings.kinds}
        with_text_I, with_image_I = (has.get(kind, np.zeros(len(ids), np.bool_)) for kind in ("text", "image"))
        content, counts_I = content_table.read_content(table, ids), prepared.item_counts(tuple(PARTS))
        report, embedded = settings.report, self._results["embed"]
        facts, page = embedding_report(prepared.items, content, with_text_I, with_image_I, counts_I, report, embedded)
        file = self.output / "reports" / "embeddings.html"
        file.write_bytes(page.encode())
        return self._done("report", file, False, facts, started)

    def serve(self) -> dict[str, Any]:
        """Answer online from what is published, until interrupted."""
        return run_serve(self.session, self.config.serving, self.output)

    def verify(self, url: str | None = None) -> dict[str, Any]:
        """Is the published run whole, and does the service at ``url`` answer with it?"""
        run, findings = verify(self.output, self.session.map_blocks, url)
        for finding in findings:
            self.session.progress(f"verify: {finding}")
        failed = [finding for finding in findings if not finding.good]
        if failed:
            raise PublishError(f"{len(failed)} of {len(findings)} checks failed, the first: {failed[0].found}")
        return {"stage": "verify", "path": str(run), "checks": {finding.check: finding.found for finding in findings}}

    def rollback(self) -> dict[str, Any]:
        """LATEST back to the run published before, or to ``runs.to``."""
        old, new = runs.rollback(self._recommendations, self.config.runs.to)
        self.session.progress(f"rollback: LATEST moved from {old} to {new}; {old} is withdrawn")
        return {"stage": "rollback", "path": str(self._recommendations / new), "from": old, "to": new}

    # -- what stages are made of --------------------------------------------------------------------------------

    @property
    def _recommendations(self) -> Location:
        return self.output / "recommendations"

    @property
    def prepared(self) -> Prepared:
        if self._prepared is None:
            self.prepare()
        assert self._prepared is not None
        return self._prepared

    def _present(self, parts: Sequence[str]) -> tuple[str, ...]:
        """Only parts with interactions, so that "train+valid" without validation data is the same fit as "train"."""
        return tuple(part for part in parts if self.prepared.counts((part,)).num_interactions)

    def _evaluation_parts(self) -> tuple[str, ...]:
        return self._present(("train",) if self.config.evaluation.on == "valid" else ("train", "valid"))

    def _published_parts(self) -> tuple[str, ...]:
        everything = ("train", "valid", "test")
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

    def _fit(self, stage: str, parts: tuple[str, ...], model: Model) -> dict[str, Any]:
        if stage in self._results:
            return self._results[stage]
        config, started = self.config, time.perf_counter()
        table = Location(self.embed()["path"]) if config.needs_content(model) else None
        cold = None if config.training.cold_items is None else dump(config.training.cold_items)
        inputs = [self.prepared.location.name, *([table.name, cold] if table else [])]
        key = fingerprint(bundles.FORMAT, inputs, model.key, dump(model), parts, config.seed)
        location = self.output / "models" / f"{model.key}-{key[:12]}"
        skipped = (location / bundles.MANIFEST).exists()
        if not skipped:
            manifest = {
                "model": model.key,
                "fingerprint": key,
                "config": dump(config),
                "packages": versions(),
                "embeddings": None if table is None else table.name,
                "predicts_ratings": model.predicts_ratings,
            }
            prepared, limit = self.prepared.location, config.training.memory_limit_gib
            job = FitJob(prepared, location, model, parts, manifest, table, config.training.cold_items)
            run_fit(
                self.session, job, config.seed, config.training.workers, None if limit is None else int(limit * 2**30)
            )
        facts = {"model": model.key, "parts": list(parts)} | read_manifest(location)["fit"]
        return self._done(stage, location, skipped, facts, started)

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
            settings, root = config.recommend, self._recommendations
        else:
            rows = min(max(config.recommend.n, *config.evaluation.k), self.prepared.num_items)
            # Reasons are not measured, and a baseline is its own plain list: it may not even have vectors to index.
            plain = {"index": IndexSettings(), "ranker": None, "rerank": None} if model != config.model_name else {}
            changes = {"n": rows, "layout": "long", "reasons": False} | plain
            settings = config.recommend.model_copy(update=changes)
            root = self.output / "evaluation" / "runs"
        models = self._models(stage, settings)
        run = self._start_run(root, models, settings)
        self._batch(models, run, settings)
        key = fingerprint(run.name, dump(config.evaluation))
        return self.output / "evaluation" / key[:12], run, models.bundle

    def _measure(self, run: Location, bundle: Location) -> Report:
        return evaluate_run(self.prepared.location, bundle, run, self.config.evaluation, self.session.map_blocks)

    def _publish(self, models: Models, run: Location, checked: Checked, index: dict[str, Any] | None) -> None:
        facts = RunFacts(
            model=runs.used_model(models.bundle),
            ranker=None if models.ranker is None else runs.used_model(models.ranker),
            recommend=self.config.recommend,
            gate=self.config.runs.gate,
            min_rating=self.config.data.filters.min_rating,
            parts=checked.parts,
            checks=checked.facts,
            index=index,
            evaluation=self._results.get("evaluate", {}).get("metrics"),
            made_with=self._made_with(),
            packages=versions(),
            config=dump(self.config),
        )
        runs.publish(self._recommendations, run, facts)
        self.session.progress(f"publish: LATEST is {run.name}")
        for name in runs.prune(self._recommendations, self.config.runs.keep, activated(self.output)):
            self.session.progress(f"publish: deleted the old run {name} (runs.keep={self.config.runs.keep})")

    def _made_with(self) -> list[str]:
        """Names under the output directory of what the stages wrote; tables of vectors have a rule of their own."""
        inside = f"{self.output}/"
        places = [result["path"] for name, result in self._results.items() if name != "embed"]
        if "evaluate" in self._results:
            report = (Location(self._results["evaluate"]["path"]) / "metrics.json").read_json()
            places += [run for run in report["runs"] if not run.startswith(str(self._recommendations))]
        return sorted({place.removeprefix(inside) for place in places if place.startswith(inside)})

    def _done(
        self, stage: str, location: Location, skipped: bool, facts: dict[str, Any], started: float
    ) -> dict[str, Any]:
        seconds = round(time.perf_counter() - started, 2)
        if stage not in self._results:
            how = "unchanged, skipped" if skipped else f"done in {seconds} s"
            self.session.progress(f"{stage}: {how} -> {location}")
        self._results[stage] = {"stage": stage, "path": str(location), "skipped": skipped, "seconds": seconds} | facts
        return self._results[stage]
