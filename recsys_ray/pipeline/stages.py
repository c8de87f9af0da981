"""The stages that make things once: prepared data, item vectors, models. What is there already is taken as it is."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, cast

from recsys_ray.base.errors import ConfigError, StorageError
from recsys_ray.base.lock import RUNNING, SUFFIX, Lock, alone, is_held, read_notes
from recsys_ray.base.manifest import damage, listed_files, read_manifest
from recsys_ray.base.memory import MemoryWatch
from recsys_ray.base.provenance import fingerprint, versions
from recsys_ray.base.storage import Location
from recsys_ray.base.tracing import span
from recsys_ray.cluster.embed import run_embed
from recsys_ray.cluster.features import MANIFEST as FEATURES_MANIFEST
from recsys_ray.cluster.features import run_features
from recsys_ray.cluster.fit import run_fit
from recsys_ray.cluster.session import Session
from recsys_ray.config import FIT_SECTIONS, Config, dump, dump_sections
from recsys_ray.content import table as content_table
from recsys_ray.data.feature_tables import FeatureJob
from recsys_ray.data.forgotten import WithoutUsers, forgotten_users
from recsys_ray.data.prepare import driver as preparing
from recsys_ray.data.prepare.shard import ITEMS, MANIFEST
from recsys_ray.data.prepared import Prepared
from recsys_ray.data.rating_scale import low_ratings
from recsys_ray.models import Model
from recsys_ray.planning.keys import fit_key, prepared_key
from recsys_ray.recommend import bundle as bundles
from recsys_ray.runs.fit import FitJob

ELSEWHERE = ("cluster", "serving")
"""Sections that decide nothing of what a run writes."""
TOLD = ("skipped", "model", "users", "items", "memory")
"""What the span of a stage says of what was found."""

Made = dict[str, Any]
Method = TypeVar("Method", bound=Callable[..., Made])


def traced(name: str) -> Callable[[Method], Method]:
    """A method that is a stage, as a span with this name; what was done before in this command is none."""

    def wrapped(method: Method) -> Method:
        @functools.wraps(method)
        def run(self: Stages, *given: Any, **named: Any) -> Made:
            if name in self._results:
                return method(self, *given, **named)
            return self._in_span(name, lambda: method(self, *given, **named))

        return cast(Method, run)

    return wrapped


class Stages:
    """One configuration being run: data, vectors and models, each made when first asked for."""

    def __init__(self, config: Config, session: Session) -> None:
        self.config = config
        self.session = session
        self.output = Location.of(config.output)
        self.again: frozenset[str] = frozenset()
        """Stages that are done again, whatever is there."""
        self.command = Lock(self.output / RUNNING / f"{self._name()}{SUFFIX}", config.name)
        """Held by a command that writes, so that the same is not begun twice."""
        self.uses: set[str] = set()
        """Directories that this run stands on."""
        self._prepared: Prepared | None = None
        self._results: dict[str, dict[str, Any]] = {}
        self._whole: set[str] = set()
        self.memory = MemoryWatch()
        self.show: Callable[[str], None] = session.progress
        """Where tables for people go."""

    def _name(self) -> str:
        """Of the configuration, without what decides nothing of what is written."""
        sections = dump(self.config)
        return fingerprint({name: section for name, section in sections.items() if name not in ELSEWHERE})[:12]

    @contextmanager
    def only_once(self) -> Iterator[None]:
        """StorageError when the same configuration is at work on this output already."""
        if (holder := self.command.take()) is not None:
            raise StorageError(f"{self.output}: {holder} with the same configuration; wait for it, or set output")
        try:
            yield
        finally:
            self.command.release()

    def used_by_others(self) -> set[str]:
        """Directories that other commands on this output stand on now."""
        found: set[str] = set()
        folder = self.output / RUNNING
        for name in folder.names():
            if name != self.command.file.name and is_held(folder / name):
                found |= set((read_notes(folder / name) or {}).get("uses", ()))
        return found

    def _in_span(self, name: str, make: Callable[[], Made]) -> Made:
        """What is made, while a span of this name is open."""
        with span(name, {"recsys_ray.name": self.config.name}) as opened:
            made = make()
            if opened is not None:
                opened.note({f"recsys_ray.{key}": made[key] for key in TOLD if key in made})
        return made

    @traced("prepare")
    def prepare(self) -> dict[str, Any]:
        """Raw input to item table, user shards and vocabulary."""
        config = self.config
        source = preparing.open_source(config.data, seed=config.seed)
        if forgotten := forgotten_users(self.output):
            source = WithoutUsers(source, forgotten)
        location = self.output / "prepared" / prepared_key(config, source)[:12]
        started = time.perf_counter()
        with self._alone("prepare", location):
            skipped = self._is_done("prepare", location / MANIFEST, preparing.FORMAT)
            if not skipped:
                preparing.prepare(
                    source,
                    location,
                    seed=config.seed,
                    map_blocks=self.session.map_blocks,
                    progress=self.session.progress,
                )
        self._prepared = Prepared.open(location)
        if not skipped and not config.chosen_model().weighs_ratings and (low := low_ratings(self._prepared)):
            self.session.progress(f"prepare: {low}")
        interactions = self._prepared.manifest["interactions"]
        facts = {"users": self._prepared.num_users, "items": self._prepared.num_items, "interactions": interactions}
        return self._done("prepare", location, skipped, facts, started)

    @traced("embed")
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
        facts: dict[str, Any] = {}
        with self._alone("embed", store / key):
            skipped = self._is_done("embed", store / key / content_table.MANIFEST, content_table.FORMAT)
            if not skipped:
                job = content_table.start_table(items, store, key, made_from, settings, str(self.output))
                facts = run_embed(self.session, job)
                content_table.finish_table(job, self.session.progress)
                for name in content_table.prune_tables(store, store / key, str(self.output), settings.keep):
                    self.session.progress(f"embed: deleted the old table {name} (content.keep={settings.keep})")
        totals = read_manifest(store / key / content_table.MANIFEST)
        facts = {"text_encoded": 0, "image_encoded": 0} | content_table.durable_counts(totals) | facts
        if not skipped:
            self.session.progress(content_table.summary(facts))
        return self._done("embed", store / key, skipped, facts, started)

    @traced("features")
    def features(self) -> dict[str, Any]:
        """Users, items and interactions with what is known of each, as tables for other programs."""
        started, settings = time.perf_counter(), self.config.features
        prepared = self.prepared.location
        key = fingerprint("features", prepared.name, dump(settings))[:12]
        location = self.output / "features" / key
        with self._alone("features", location):
            skipped = self._is_done("features", location / FEATURES_MANIFEST)
            if not skipped:
                run_features(self.session, FeatureJob(str(prepared), str(location), settings))
        facts = {"tables": ["users", "items.parquet", "interactions"]}
        return self._done("features", location, skipped, facts, started)

    @property
    def prepared(self) -> Prepared:
        if self._prepared is None:
            self.prepare()
        assert self._prepared is not None
        return self._prepared

    def _present(self, parts: Sequence[str]) -> tuple[str, ...]:
        """Only parts with interactions, so that "train+valid" without validation data is the same fit as "train"."""
        return tuple(part for part in parts if self.prepared.counts((part,)).num_interactions)

    def _fit(self, stage: str, parts: tuple[str, ...], model: Model) -> dict[str, Any]:
        if stage in self._results:
            return self._results[stage]
        return self._in_span(stage, lambda: self._fitted(stage, parts, model))

    def _fitted(self, stage: str, parts: tuple[str, ...], model: Model) -> dict[str, Any]:
        config, started = self.config, time.perf_counter()
        fallbacks = config.fallbacks() if model == config.chosen_model() else {}
        needs_table = any(config.needs_content(fitted) for fitted in (model, *fallbacks.values()))
        table = Location(self.embed()["path"]) if needs_table else None
        key = fit_key(config, self.prepared.location.name, None if table is None else table.name, model, parts)
        location = self.output / "models" / f"{model.key}-{key[:12]}"
        manifest = {
            "model": model.key,
            "fingerprint": key,
            "config": dump_sections(config, FIT_SECTIONS),
            "packages": versions(),
            "embeddings": None if table is None else table.name,
            "predicts_ratings": model.predicts_ratings,
        }
        prepared, limit = self.prepared.location, config.training.memory_limit_gib
        job = FitJob(prepared, location, model, parts, manifest, table, config.training.cold_items, fallbacks)
        with self._alone(stage, location):
            skipped = self._is_done("train", location / bundles.MANIFEST, bundles.FORMAT)
            if not skipped:
                most = None if limit is None else int(limit * 2**30)
                run_fit(self.session, job, config.fit_seed, config.training.workers, most)
        facts = {"model": model.key, "parts": list(parts)} | bundles.read_manifest(location)["fit"]
        return self._done(stage, location, skipped, facts, started)

    def _alone(self, stage: str, directory: Location) -> AbstractContextManager[None]:
        """Only this run makes what is there; another one that does is waited for."""
        return alone(directory, lambda message: self.session.progress(f"{stage}: {message}"))

    def _is_done(self, stage: str, manifest: Location, since: int = 0, *, lists: bool = True) -> bool:
        """Whether what is there is whole: the manifest reads, and every file that it lists is as it was written.

        What does not hold is said and removed with the manifest, so that the stage makes it again; what does hold is
        not looked at twice.

        Args:
            since: the format from which on manifests have a checksum. lists: whether the manifest lists files.
        """
        directory = manifest.parent
        if str(manifest) in self._whole:
            return True
        if not manifest.exists():
            self._whole.add(str(manifest))  # what this run makes it has just written
            return False
        try:
            facts = read_manifest(manifest, since=since)
            wrong = damage(directory, listed_files(facts), self.session.map_blocks) if lists else {}
        except StorageError as error:
            wrong = {manifest.name: str(error)}
        if stage in self.again:
            wrong, why = {manifest.name: ""}, "asked for again"
        elif wrong:
            name, problem = next(iter(wrong.items()))
            why = f"{len(wrong)} files are damaged, the first {name}, which {problem}"
        self._whole.add(str(manifest))
        if wrong:
            self.session.progress(f"{stage}: {why}; made again -> {directory}")
            directory.remove([*wrong, manifest.name])
        return not wrong

    def _done(
        self, stage: str, location: Location, skipped: bool, facts: dict[str, Any], started: float
    ) -> dict[str, Any]:
        self.uses.add(str(location))
        self.command.note(uses=sorted(self.uses))
        seconds = round(time.perf_counter() - started, 2)
        if stage not in self._results:
            how = "unchanged, skipped" if skipped else f"done in {seconds} s"
            self.session.progress(f"{stage}: {how} -> {location}")
        seen = self.memory.take()
        memory = {} if seen is None or stage in self._results else {"memory": seen}
        told = {"stage": stage, "path": str(location), "skipped": skipped, "seconds": seconds} | memory
        self._results[stage] = told | facts
        return self._results[stage]
