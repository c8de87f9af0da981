"""The stages of a run in order, their fingerprints, and what is skipped.

    prepare -> embed -> train -> evaluate -> (refit) -> recommend -> gate -> publish

A stage writes into a directory named by the fingerprint of everything that goes into it: input files, the sections of
the configuration it reads, the format of the code that wrote it. Its manifest is written last. So a stage is done when
the manifest is there, a change anywhere leads to another directory, and an interrupted stage is simply not done.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from recsys_ray.base.errors import PublishError, StorageError
from recsys_ray.base.manifest import damage, write_manifest
from recsys_ray.base.provenance import versions
from recsys_ray.base.schema import PARTS
from recsys_ray.base.storage import Location
from recsys_ray.base.tracing import span
from recsys_ray.cluster.serve import run_serve
from recsys_ray.config import RUN_SECTIONS, dump_sections
from recsys_ray.content import table as content_table
from recsys_ray.pipeline.inspection import look_at_data
from recsys_ray.pipeline.judged import Judged
from recsys_ray.pipeline.stages import traced
from recsys_ray.pipeline.tracked import track_run
from recsys_ray.recommend.bundle import open_bundle
from recsys_ray.runs import publish as runs
from recsys_ray.runs.accuracy import PUBLISHED
from recsys_ray.runs.batch import Models
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.delta import follow_latest
from recsys_ray.runs.gate import Checked, RefusedRun, check_run
from recsys_ray.runs.history import activated, mend_latest, prune
from recsys_ray.runs.metrics_file import METRICS_FILE, write_metrics
from recsys_ray.runs.published import RECORD, RunFacts, is_published, read_run
from recsys_ray.runs.report.facts import STAGES
from recsys_ray.runs.report.page import write_page
from recsys_ray.runs.verify import verify


class Pipeline(Judged):
    """One configuration being run. Each stage first makes sure of the stages it stands on."""

    def run(self) -> dict[str, Any]:
        """All stages; what each found or did, by stage."""
        with self.memory, span("run", {"recsys_ray.name": self.config.name}):
            self.prepare()
            if self.config.content is not None:
                self.embed()
            self.train()
            if self.config.has_split:
                self.evaluate()
            self.recommend()
        self._keep_timings()
        track_run(self, self._results)
        return dict(self._results)

    def _keep_timings(self) -> None:
        """What the stages took, beside the parts; a run that was there already keeps what it took then, where a command
        that was killed had come to that."""
        made = self._results["recommend"]
        place = Location(made["path"])
        place.remove_drafts()
        if made["skipped"] and {STAGES, METRICS_FILE} <= set(place.names()):
            return
        stages = [
            {"stage": name, "seconds": result["seconds"], "skipped": result["skipped"]}
            | ({"peak_mib": result["memory"] >> 20} if "memory" in result else {})
            for name, result in self._results.items()
        ]
        write_manifest(place / STAGES, {"stages": stages})
        write_metrics(place, self.config.name, self._results, time.time())

    @traced("recommend")
    def recommend(self) -> dict[str, Any]:
        """The top n of every user: written, checked, published."""
        started = time.perf_counter()
        parts = self._published_parts()
        stage = "train" if parts == self._evaluation_parts() or not self.config.has_split else "refit"
        self._fit_models(stage, parts)
        models = self._models(stage, self.asked)
        run = self._start_run(self._recommendations, models, self.asked)
        mend_latest(self._recommendations, self.session.progress)
        with self._alone("recommend", run):
            published = self._is_as_published(run) and runs.latest(self._recommendations) == run.name
            facts = {"checks": read_run(run).checks} if published else self._write(models, run)
        self._follow_latest()
        facts |= {"bundle": str(models.bundle), "latest": runs.latest(self._recommendations)}
        return self._done("recommend", run, published, facts, started)

    def _is_as_published(self, run: Location) -> bool:
        """Whether this run was published and is as it was then; what is not is said and removed, to be made again."""
        if not is_published(run):
            return False
        parts = [name for name in run.names() if runs.is_part(name)]
        try:
            record = read_run(run)
        except PublishError as error:  # nothing says how the parts were
            self.session.progress(f"recommend: {error}; made again")
            run.remove([RECORD, *parts])
            return False
        if "recommend" in self.again:
            self.session.progress(f"recommend: asked for again; made again -> {run}")
            run.remove(parts)
            return False
        wrong = damage(run, record.parts, self.session.map_blocks)
        wrong |= {name: "was not published with it" for name in parts if name not in record.parts}
        if wrong:
            name, problem = next(iter(wrong.items()))
            why = f"{len(wrong)} parts are damaged, the first {name}, which {problem}"
            self.session.progress(f"recommend: {why}; made again -> {run}")
            run.remove(wrong)
        return not wrong

    def _write(self, models: Models, run: Location) -> dict[str, Any]:
        """The lists of all users, judged, checked, and published if that is wanted; what was found."""
        wanted, gate = self.config.runs.enabled, self.config.runs.gate
        verdict = self.judge() if wanted else None
        before = None if runs.latest(self._recommendations) == run.name else runs.latest_run(self._recommendations)
        if verdict is not None and PUBLISHED in verdict.better:
            gate = gate.model_copy(update={"min_overlap": 0.0})  # other lists are what a cure looks like
        facts, checked = self._checked(models, run, gate, before)
        for warning in checked.warnings:
            self.session.progress(warning)
        if verdict is not None and verdict.reason is not None:
            checked.facts["accuracy_override"] = 1
        facts["checks"] = checked.facts
        if wanted:
            with (
                self._alone("publish", self._recommendations / runs.LATEST),
                span("publish", {"recsys_ray.run_id": run.name}),
            ):
                self._publish(models, run, checked, facts["index"])
        return facts

    def _checked(
        self, models: Models, run: Location, gate: GateSettings, before: Location | None
    ) -> tuple[dict[str, Any], Checked]:
        """What writing the parts and the gate found. Files that the gate refuses are removed; where parts were found
        there, not written by this command, it is tried once more.

        Raises:
            RefusedRun: the run must not be published.
        """
        facts = self._batch(models, run, self.asked)
        found, map_blocks = facts["shards_resumed"], self.session.map_blocks
        while True:
            bundle = open_bundle(models.bundle)
            try:
                return facts, check_run(bundle, run, self.asked, gate, before, map_blocks, models.ranker)
            except RefusedRun as error:
                run.remove(error.parts)
                if not error.parts or not found:
                    raise
                self.session.progress(f"recommend: {error}; {len(error.parts)} files are removed and made again")
                self._batch(models, run, self.asked)
                found = 0

    def published_place(self) -> Location:
        """Where the published run is.

        Raises:
            PublishError: nothing is published yet.
        """
        place = runs.latest_run(self._recommendations)
        if place is None:
            raise PublishError(f"{self._recommendations}: nothing is published yet; run recommend")
        return place

    def published(self) -> tuple[Location, runs.OpenedRun]:
        """The published run and what it answers with; raises as ``published_place``."""
        place = self.published_place()
        return place, runs.open_published(self.output, place)

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

    def report_run(self) -> dict[str, Any]:
        """One HTML page about the published run, beside its parts."""
        started, (place, _) = time.perf_counter(), self.published()
        images = None if self.config.content is None else self.config.content.image
        page = write_page(self.output, place, images, self.session.map_blocks)
        return self._done("report", page, False, {"run": place.name}, started)

    def report_data(self) -> dict[str, Any]:
        """One HTML page about the prepared data, and its numbers beside it."""
        started = time.perf_counter()
        page, statistics = look_at_data(self)
        facts = {"statistics": str(statistics)}
        return self._done("report", page, False, facts, started)

    def serve(self) -> dict[str, Any]:
        """Answer online from what is published, until interrupted."""
        return run_serve(self.session, self.config.served(), self.output)

    @traced("verify")
    def verify(self, url: str | None = None) -> dict[str, Any]:
        """Is the published run whole, and does the service at ``url`` answer with it?"""
        run, findings = verify(self.output, self.session.map_blocks, url)
        for finding in findings:
            self.session.progress(f"verify: {finding}")
        failed = [finding for finding in findings if not finding.good]
        if failed:
            raise PublishError(f"{len(failed)} of {len(findings)} checks failed, the first: {failed[0].found}")
        return {"stage": "verify", "path": str(run), "checks": {finding.check: finding.found for finding in findings}}

    @traced("rollback")
    def rollback(self) -> dict[str, Any]:
        """LATEST back to the run published before, or to ``runs.to``."""
        old, new = runs.rollback(self._recommendations, self.config.runs.to)
        self.session.progress(f"rollback: LATEST moved from {old} to {new}; {old} is withdrawn")
        self._follow_latest()
        return {"stage": "rollback", "path": str(self._recommendations / new), "from": old, "to": new}

    def _publish(self, models: Models, run: Location, checked: Checked, index: dict[str, Any] | None) -> None:
        facts = RunFacts(
            model=runs.used_model(models.bundle),
            ranker=None if models.ranker is None else runs.used_model(models.ranker),
            recommend=self.asked,
            gate=self.config.runs.gate,
            min_rating=self.config.data.filters.min_rating,
            parts=checked.parts,
            checks=checked.facts,
            index=index,
            evaluation=self._results.get("evaluate", {}).get("metrics"),
            made_with=self.made_with(),
            packages=versions(),
            config=dump_sections(self.config, RUN_SECTIONS),
        )
        runs.publish(self._recommendations, run, facts)
        self.session.progress(f"publish: LATEST is {run.name}")
        self._prune()

    def _follow_latest(self) -> None:
        """What else names the published run is moved to it."""
        follow_latest(self._recommendations, self.config.runs.delta, self.session.progress)

    def _prune(self) -> None:
        """Old runs go, unless what is used can't be known."""
        say, keep = self.session.progress, self.config.runs.keep
        try:
            used = activated(self.output) | {variant.run for variant in self.config.serving.variants if variant.run}
            in_use = self.uses | self.used_by_others()
            for name in prune(self._recommendations, keep, used, in_use, say):
                say(f"publish: deleted the old run {name} (runs.keep={keep})")
        except StorageError as error:
            say(f"publish: no old run was deleted: {error}")
