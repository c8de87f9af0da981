"""The record of a published run: what it was made with, what it holds, how it was checked.

``_manifest.json`` is a format of its own, ``FORMAT`` its version: no section of the configuration is its schema. What
reads a directory of Parquet files leaves out names that begin so. Whoever reads a published run reads it with
``read_run``, which knows the formats before, too:

    0   manifest.json, without a version: the whole configuration, the place of the model, sizes of the parts
    1   run.json: what format 2 has but the rules of ``OptionsRecord``
    2   run.json: the rules of ``OptionsRecord`` as well
    3   _manifest.json: the same, and a checksum of itself

A later change of what is written takes a new version here, and the reader of this one stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from recsys_ray.base.errors import PublishError, StorageError
from recsys_ray.base.manifest import read_manifest, write_manifest
from recsys_ray.base.provenance import Stamp, file_stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import MapBlocks, map_blocks_here
from recsys_ray.recommend.config import RankerSettings, RecommendSettings
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.record import (
    FactsRecord,
    FiltersRecord0,
    GateRecord,
    OptionsRecord0,
    OptionsRecord1,
    RunRecord0,
    RunRecord1,
    RunRecord2,
    RunRecord3,
)

FORMAT = 3
RECORD, RECORD_2, RECORD_0 = "_manifest.json", "run.json", "manifest.json"
SCHEMAS: dict[int, type[RunRecord1]] = {1: RunRecord1, 2: RunRecord2, 3: RunRecord3}


@dataclass(frozen=True, slots=True)
class UsedModel:
    """A model that a run answers with."""

    bundle: str
    """Name of its directory under ``models/``; where format 0 wrote it, the whole path."""
    name: str = ""
    """Of the algorithm; of a ranker, format 0 does not say it."""
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is known of a run when it is to be published."""

    model: UsedModel
    ranker: UsedModel | None = None
    """The second model, where ``recommend.ranker`` is set."""
    recommend: RecommendSettings
    gate: GateSettings = field(default_factory=GateSettings)
    min_rating: float | None = None
    """Interactions rated below are only filtered as seen."""
    parts: dict[str, Stamp]
    """Size and checksum of every part, by its name."""
    checks: dict[str, int | float | None] = field(default_factory=dict)
    """What the gate found: users, rows, coverage, fallback_share, overlap."""
    index: dict[str, Any] | None = None
    """What was measured of an approximate index."""
    evaluation: dict[str, int | float] | None = None
    made_with: list[str] = field(default_factory=list)
    """Directories beside the runs that go when the run is pruned."""
    packages: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    """The whole configuration, for people. The accuracy gate alone reads it, and does without where it can't."""


@dataclass(frozen=True, kw_only=True)
class PublishedRun(RunFacts):
    """A published run, whichever version published it."""

    run_id: str
    previous: str | None
    published_at: str


def write_run(run: PublishedRun, location: Location) -> None:
    """Write the record into the directory of the run: that commits it."""
    options = run.recommend.model_dump(mode="json", exclude={"ranker"})
    ranker = None
    if run.ranker is not None and run.recommend.ranker is not None:
        ranker = asdict(run.ranker) | {"pool": run.recommend.ranker.pool}
    facts = {name: getattr(run, name) for name in FactsRecord.model_fields}
    record = facts | {
        "format": FORMAT,
        "model": asdict(run.model),
        "ranker": ranker,
        "options": options,
        "gate": run.gate.model_dump(mode="json"),
        "min_rating": run.min_rating,
        "parts": run.parts,
        "config": run.config,
    }
    write_manifest(location / RECORD, RunRecord3.model_validate(record).model_dump(mode="json"))


def is_published(location: Location) -> bool:
    """Whether this directory holds a run that was published, by this version or one before."""
    return any((location / name).exists() for name in (RECORD, RECORD_2, RECORD_0))


def read_run(location: Location) -> PublishedRun:
    """The record of a published run.

    Raises:
        PublishError: it has none, or one that can't be read: no JSON, of another shape, of a newer version.
    """
    for name in (RECORD, RECORD_2):
        if (location / name).exists():
            return _read(location / name, _format_1_to_3)
    if (location / RECORD_0).exists():
        return _read(location / RECORD_0, _format_0)
    raise PublishError(f"{location}: not a published run, it has no {RECORD}; run recommend")


def _read(file: Location, reader: Callable[[dict[str, Any]], PublishedRun]) -> PublishedRun:
    try:
        record = read_manifest(file, since=FORMAT if file.name == RECORD else None)
    except StorageError as error:
        raise PublishError(f"{error}; {_CURE}") from error
    if file.name != RECORD_0 and record.get("format") not in tuple(SCHEMAS):
        raise PublishError(
            f"{file}: format {record.get('format')!r}, this version reads 0 to {FORMAT}; use the version that "
            "published it, or roll back with runs.to=RUN_ID"
        )
    try:
        return reader(record)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the record"
        unknown = first["type"] == "extra_forbidden"
        found = "unknown field" if unknown else f"{first['msg'][0].lower()}{first['msg'][1:]}"
        cure = "it was written by another version: use that one, or roll back with runs.to=RUN_ID"
        raise PublishError(f"{file}: {key}: {found}; {cure if unknown else _CURE}") from error


_CURE = "copy the run's directory again, or roll back with runs.to=RUN_ID"


def _format_1_to_3(record: dict[str, Any]) -> PublishedRun:
    read = SCHEMAS[record["format"]].model_validate(record)
    ranker = read.ranker
    return PublishedRun(
        **_common(read),
        model=UsedModel(read.model.bundle, read.model.name, read.model.fingerprint),
        ranker=None if ranker is None else UsedModel(ranker.bundle, ranker.name, ranker.fingerprint),
        recommend=_settings(read.options, None if ranker is None else ranker.pool),
        gate=GateSettings(**read.gate.model_dump()),
        min_rating=read.min_rating,
        parts={name: part.model_dump() for name, part in read.parts.items()},
        config=read.config,
    )


def _format_0(record: dict[str, Any]) -> PublishedRun:
    """The options stand in the configuration of the run; its ranker is named by the place of its model."""
    read = RunRecord0.model_validate(record)
    options = OptionsRecord0.model_validate(read.config.get("recommend", {}))
    gate = GateRecord.model_validate(_inside(read.config, "publish", "gate") or {})
    filters = FiltersRecord0.model_validate(_inside(read.config, "data", "filters") or {})
    ranker = options.ranker
    return PublishedRun(
        **_common(read),
        model=UsedModel(read.bundle, read.model),
        ranker=None if ranker is None else UsedModel(ranker.bundle),
        recommend=_settings(options, None if ranker is None else ranker.pool),
        gate=GateSettings(**gate.model_dump()),
        min_rating=filters.min_rating,
        parts={name: {"bytes": size} for name, size in read.parts.items()},
        config=read.config,
    )


def _common(read: FactsRecord) -> dict[str, Any]:
    return {name: getattr(read, name) for name in FactsRecord.model_fields}


def _settings(options: OptionsRecord1, ranker_pool: int | None) -> RecommendSettings:
    ranker = None if ranker_pool is None else RankerSettings(pool=ranker_pool)
    return RecommendSettings.model_validate(
        options.model_dump(exclude={"ranker"}, exclude_none=True) | {"ranker": ranker}
    )


def _inside(tree: Any, *names: str) -> Any:
    for name in names:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def part_stamps(run: Location, names: list[str], map_blocks: MapBlocks = map_blocks_here) -> dict[str, Stamp]:
    """Size and checksum of these files of a run, by name."""
    stamps = map_blocks(_part_stamp, names, str(run), "read the parts")
    return dict(zip(names, stamps, strict=True))


def _part_stamp(name: str, run_url: str) -> Stamp:
    return file_stamp(Location(run_url) / name)
