"""Runs on disk: start or resume one, publish it, roll back.

<root>/LATEST                     the run id that readers follow, replaced atomically
<root>/<run_id>/_run.json         the start, written first: what this run is, so that a rerun finds and resumes it
<root>/<run_id>/part-*.parquet    one per user shard; the name is the commit
<root>/<run_id>/_manifest.json    the record, written last, after the gate: what was published and how it was checked;
                                  see ``published``, which reads what versions before wrote as well
<root>/<run_id>/_WITHDRAWN        left by a rollback: this run is never published again
<root>/_delta_log/                with runs.delta: a table of the published parts, see ``delta``

Programs that read a directory of Parquet files leave out what begins with ``_``. Which runs stay says ``history``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from recsys_ray.base.errors import PublishError, StorageError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import MapBlocks, map_blocks_here
from recsys_ray.data.prepare.shard import part_file
from recsys_ray.models import Model
from recsys_ray.recommend import bundle as bundles
from recsys_ray.recommend.bundle_files import check_files
from recsys_ray.recommend.config import POPULARITY, fallback_names
from recsys_ray.recommend.options import Options, read_options, with_stages
from recsys_ray.retrieval import IndexSettings
from recsys_ray.runs.published import (
    RECORD,
    RECORD_0,
    RECORD_2,
    PublishedRun,
    RunFacts,
    UsedModel,
    is_published,
    read_run,
    write_run,
)

LATEST, START = "LATEST", "_run.json"
WITHDRAWN, WITHDRAWN_2 = "_WITHDRAWN", "WITHDRAWN"
"""Written, and what versions before wrote."""
PART = re.compile(r"part-\d{5,}\.parquet")
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
    return PART.fullmatch(name) is not None


def whole_shards(
    place: Location, map_blocks: MapBlocks = map_blocks_here, progress: Callable[[str], None] = lambda message: None
) -> set[int]:
    """Numbers of the parts that are there and can be read; what can't is said and removed, to be written again."""
    found = sorted(finished_shards(place))
    problems = map_blocks(_unreadable, found, str(place))
    broken = [part_file(shard) for shard, problem in zip(found, problems, strict=True) if problem]
    if broken:
        progress(f"{place.name}: {len(broken)} parts are damaged, the first {broken[0]}; they are made again")
        place.remove(broken)
    return finished_shards(place) if broken else set(found)


def _unreadable(shard: int, place_url: str) -> str | None:
    try:
        (Location(place_url) / part_file(shard)).read_parquet()
    except StorageError as error:
        return str(error)
    return None


def latest(root: Location) -> str | None:
    """The published run id, None when nothing was published yet.

    Raises:
        PublishError: the pointer holds no run id.
    """
    if not (root / LATEST).exists():
        return None
    name = (root / LATEST).read_bytes().decode("ascii", "replace").strip()
    if not valid_run_id(name):
        raise PublishError(f"{root / LATEST} is damaged, it names no run; run the configuration again, or rollback")
    return name


def latest_run(root: Location) -> Location | None:
    """The published run; PublishError when the pointer leads nowhere."""
    run_id = latest(root)
    if run_id is None:
        return None
    if not is_published(root / run_id):
        raise PublishError(
            f"{root / LATEST} names {run_id}, which has no {RECORD}; run the configuration again, or rollback with "
            "runs.to=RUN_ID"
        )
    return root / run_id


def publish(root: Location, run: Location, facts: RunFacts) -> PublishedRun:
    """Commit the run's record, then move LATEST to it."""
    if is_withdrawn(run):
        raise PublishError(
            f"{run.name} was withdrawn by a rollback; change the data or the configuration to make a new run"
        )
    before = latest(root)
    if before == run.name:  # published before: it keeps its place in the chain
        before = _previous(run)
    published = PublishedRun(**vars(facts), run_id=run.name, previous=before, published_at=_now())
    run.remove([RECORD_2, RECORD_0])
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
    read_run(root / target)
    (root / target).remove([WITHDRAWN, WITHDRAWN_2])
    (root / LATEST).write_bytes(f"{target}\n".encode())
    (root / current / WITHDRAWN).write_bytes(f"rolled back to {target} at {_now()}\n".encode())
    return current, target


def is_withdrawn(run: Location) -> bool:
    """Whether a rollback left this run behind."""
    return (run / WITHDRAWN).exists() or (run / WITHDRAWN_2).exists()


def _previous(run: Location) -> str | None:
    """The run before this one; None too where its record can't be read."""
    try:
        return read_run(run).previous if is_published(run) else None
    except PublishError:
        return None


def _previous_of(root: Location, run_id: str) -> str | None:
    """The nearest run published before, still there and not withdrawn."""
    before = _previous(root / run_id)
    while before is not None and is_published(root / before) and is_withdrawn(root / before):
        before = _previous(root / before)
    return before if before is not None and is_published(root / before) else None


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


def open_published(
    output: Location, run: Location, models: Sequence[type[Model]] = (), *, verify: bool = False
) -> OpenedRun:
    """Open the models of a published run, and read the options it was published with.

    Args:
        models: classes of models that the package does not know, whose scorers may be in the bundle.
        verify: compare every file of the models with its checksum first.

    Raises:
        PublishError: the run has no record that can be read. BundleError, StorageError, DataError: a model of it can't
            be opened.
    """
    record = read_run(run)
    place = bundle_of(output, record.model)
    ranker = None if record.ranker is None else bundle_of(output, record.ranker)
    for location in (place, ranker) if verify else ():
        if location is not None:
            check_files(location)
    bundle = bundles.open_bundle(place, models=models)
    settings = record.recommend.model_copy(update={"reasons": False})
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
