"""Runs on disk: start or resume one, publish it, roll back.

<root>/LATEST                     the run id that readers follow, replaced atomically
<root>/<run_id>/_run.json         the start, written first: what this run is, so that a rerun finds and resumes it
<root>/<run_id>/part-*.parquet    one per user shard; the name is the commit
<root>/<run_id>/run.json          the record, written last, after the gate: what was published and how it was checked;
                                  see ``published``, which reads the manifest.json of the version before as well
<root>/<run_id>/WITHDRAWN         left by a rollback: this run is never published again
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from recsys_ray.base.errors import PublishError
from recsys_ray.base.storage import Location
from recsys_ray.models import Model
from recsys_ray.recommend import bundle as bundles
from recsys_ray.recommend.config import POPULARITY, fallback_names
from recsys_ray.recommend.options import Options, read_options, with_stages
from recsys_ray.retrieval import IndexSettings
from recsys_ray.runs.published import RECORD, PublishedRun, RunFacts, UsedModel, is_published, read_run, write_run

LATEST, START, WITHDRAWN = "LATEST", "_run.json", "WITHDRAWN"
RECOMMENDATIONS = "recommendations"
FOLDER = "serving"
POINTER = "ACTIVE-"


def start_run(root: Location, fingerprint: str, facts: dict[str, Any]) -> Location:
    """The run of this fingerprint: the one already there, finished or not, or a new one.

    Run ids are ``<UTC start>-<fingerprint>``: they sort by time, and a rerun of a killed job finds its own run.
    """
    tag = fingerprint[:10]
    for name in reversed(root.names()):
        if name.endswith(f"-{tag}") and (root / name / START).exists():
            return root / name
    run = root / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{tag}"
    (run / START).write_json(facts | {"fingerprint": fingerprint, "started_at": _now()})
    return run


def finished_shards(run: Location) -> set[int]:
    """Numbers of the parts that are there."""
    return {int(name[len("part-") : -len(".parquet")]) for name in run.names() if is_part(name)}


def is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".parquet")


def latest(root: Location) -> str | None:
    """The published run id, None when nothing was published yet."""
    if not (root / LATEST).exists():
        return None
    return (root / LATEST).read_bytes().decode().strip()


def latest_run(root: Location) -> Location | None:
    """The published run; PublishError when the pointer leads nowhere."""
    run_id = latest(root)
    if run_id is None:
        return None
    if not is_published(root / run_id):
        raise PublishError(f"{root / LATEST} names {run_id}, which has no {RECORD}; run rollback with runs.to=RUN_ID")
    return root / run_id


def publish(root: Location, run: Location, facts: RunFacts) -> PublishedRun:
    """Commit the run's record, then move LATEST to it."""
    if (run / WITHDRAWN).exists():
        raise PublishError(
            f"{run.name} was withdrawn by a rollback; change the data or the configuration to make a new run"
        )
    before = latest(root)
    if before == run.name:  # published before: it keeps its place in the chain
        before = read_run(run).previous if is_published(run) else None
    published = PublishedRun(**vars(facts), run_id=run.name, previous=before, published_at=_now())
    write_run(published, run)
    (root / LATEST).write_bytes(f"{run.name}\n".encode())
    return published


def rollback(root: Location, to: str | None = None) -> tuple[str, str]:
    """Point LATEST back to the run before (or to ``to``) and mark the run left behind; (old, new) run ids."""
    current = latest(root)
    if current is None:
        raise PublishError(f"{root}: nothing is published, so there is nothing to roll back")
    target = to or _previous_of(root, current)
    if target is None:
        raise PublishError(f"{root}: no run was published before {current}; there is nothing to roll back to")
    if target == current or not is_published(root / target):
        raise PublishError(f"{root}: can't roll back from {current} to {target!r}: it is not another published run")
    (root / target / WITHDRAWN).remove()
    (root / LATEST).write_bytes(f"{target}\n".encode())
    (root / current / WITHDRAWN).write_bytes(f"rolled back to {target} at {_now()}\n".encode())
    return current, target


def prune(root: Location, keep: int, used: Collection[str] = ()) -> list[str]:
    """Delete all but the ``keep`` runs published last; LATEST, the ``used`` and unfinished runs stay. Returns the
    deleted ids.

    With a run goes what it was made with (``made_with`` of its record: prepared data, models, evaluations, as names
    beside ``root``), as far as no run that stays was made with it too.
    """
    published = {name: read_run(root / name) for name in root.names() if is_published(root / name)}
    by_time = sorted(published, key=lambda name: published[name].published_at)
    made_with = {name: set(published[name].made_with) for name in by_time}
    current = latest(root)
    old = [name for name in list(made_with)[:-keep] if name != current and name not in used]
    needed = set[str]().union(*(made for name, made in made_with.items() if name not in old))
    for name in old:
        root.parent.remove(made_with[name] - needed)
        (root / name).remove()
    return old


def _previous_of(root: Location, run_id: str) -> str | None:
    """The nearest run published before, still there and not withdrawn."""
    while is_published(root / run_id):
        before = read_run(root / run_id).previous
        if before is None:
            return None
        run_id = before
        if is_published(root / run_id) and not (root / run_id / WITHDRAWN).exists():
            return run_id
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def used_model(bundle: Location) -> UsedModel:
    """A bundle as the record of a run names it."""
    manifest = bundles.read_manifest(bundle)
    return UsedModel(bundle.name, manifest["model"], manifest["fingerprint"])


def bundle_of(output: Location, model: UsedModel) -> Location:
    """Where a model of a run is: in this output directory, wherever that was copied to. Format 0 noted the place it was
    made at, which is looked at where the directory does not have it."""
    here = output / "models" / model.bundle.rstrip("/").rsplit("/", 1)[-1]
    return here if "/" not in model.bundle or (here / bundles.MANIFEST).exists() else Location(model.bundle)


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """A published run, ready to answer as its batch job did; reasons are left to who wants them."""

    record: PublishedRun
    bundle: bundles.Bundle
    options: Options


def open_published(output: Location, run: Location, models: Sequence[type[Model]] = ()) -> OpenedRun:
    """Open the models of a published run, and read the options it was published with.

    Args:
        models: classes of models that the package does not know, whose scorers may be in the bundle.

    Raises:
        PublishError: the run has no record that can be read. BundleError, StorageError, DataError: a model of it can't
            be opened.
    """
    record = read_run(run)
    bundle = bundles.open_bundle(bundle_of(output, record.model), models=models)
    settings = record.recommend.model_copy(update={"reasons": False})
    ranker = None if record.ranker is None else bundle_of(output, record.ranker)
    return OpenedRun(record, bundle, with_stages(bundle, settings, read_options(bundle, settings), ranker))


def open_degraded(output: Location, run: Location) -> OpenedRun:
    """A published run whose model can't be opened: the fallbacks answer that its bundle still holds.

    Raises:
        As ``open_published``, where the bundle holds nothing that could answer.
    """
    record = read_run(run)
    bundle = bundles.open_fallbacks(bundle_of(output, record.model))
    wanted = [name for name in fallback_names(record.recommend.fallback) if name in bundle.fallbacks]
    plain = {"reasons": False, "index": IndexSettings(), "ranker": None, "rerank": None, "stages": []}
    plain["time_of_day"] = None
    settings = record.recommend.model_copy(update=plain | {"fallback": [*wanted, POPULARITY]})
    return OpenedRun(record, bundle, read_options(bundle, settings))


def valid_run_id(run_id: str) -> bool:
    """Run ids are plain names: never a path out of the runs' directory."""
    return bool(run_id) and len(run_id) <= 128 and all(c.isalnum() or c in "-_" for c in run_id) and run_id.isascii()


def activated(output: Location) -> set[str]:
    """The runs under ``output`` that an administrator chose, and those to roll back to from there."""
    found: set[str] = set()
    folder = output / FOLDER
    for name in folder.names():
        if name.startswith(POINTER):
            pinned = (folder / name).read_json()
            found |= {pinned["run_id"], pinned["previous"]} if pinned["run_id"] else set()
    return found - {None}
