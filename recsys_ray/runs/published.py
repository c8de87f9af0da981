"""The record of a published run: what it was made with, what it holds, how it was checked.

``run.json`` is a format of its own, ``FORMAT`` its version: no section of the configuration is its schema. Whoever
reads a published run reads it with ``read_run``, which knows the formats before, too:

    0   manifest.json, without a version: the whole configuration, the place of the model, sizes of the parts
    1   run.json: what format 2 has but the rules of ``_Options``
    2   run.json: the schema below

A later change of what is written takes a new version here, and the reader of this one stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys_ray.base.errors import PublishError, StorageError
from recsys_ray.base.provenance import Stamp, file_stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import MapBlocks, map_blocks_here
from recsys_ray.recommend.config import RankerSettings, RecommendSettings
from recsys_ray.runs.gate import GateSettings

FORMAT, FORMAT_1 = 2, 1
RECORD, RECORD_0 = "run.json", "manifest.json"


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


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Index(_Record):
    kind: str = "exact"
    min_recall: float = 0.95
    recall_at: int = 20
    sample: int = 500
    nlist: int | None = None
    nprobe: int = 64
    m: int = 32
    ef_construction: int = 100
    ef_search: int = 128
    oversample: int = 4
    code_bytes: int = 16
    gpu: bool = False


class _Rerank(_Record):
    diversity: float
    similarity: str
    max_per_genre: int | None
    pool: int


class _Options1(_Record):
    n: int = 10
    filter_seen: bool = True
    allow: str | None = None
    deny: str | None = None
    candidates: str = "all"
    fallback: str | list[str | dict[str, Any]] = "popularity"
    layout: str = "long"
    index: _Index = _Index()
    rerank: _Rerank | None = None
    reasons: bool = False
    block_mib: int = 64


class _Filter(_Record):
    min: float | None = None
    max: float | None = None
    any: list[str] | list[float] | None = None
    none: list[str] | list[float] | None = None


class _Context(_Record):
    any_genres: list[str]
    all_genres: list[str]
    no_genres: list[str]
    year_from: int | None
    year_to: int | None
    where: dict[str, _Filter]


class _Options(_Options1):
    hidden: str | None = None
    at: str | None = None
    context: _Context | None = None


class _Gate(_Record):
    min_coverage: float = 0.0
    max_fallback: float = 1.0
    min_overlap: float = 0.0


class _Model(_Record):
    name: str
    bundle: str
    """Name of its directory under ``models/``."""
    fingerprint: str | None


class _Ranker(_Model):
    pool: int


class _Part(_Record):
    bytes: int
    sha256: str


class _Facts(_Record):
    """What all formats have."""

    run_id: str
    previous: str | None
    published_at: str
    checks: dict[str, int | float | None] = {}
    index: dict[str, Any] | None = None
    evaluation: dict[str, int | float] | None = None
    made_with: list[str] = []
    packages: dict[str, str] = {}


class _Run1(_Facts):
    format: Literal[1]
    model: _Model
    ranker: _Ranker | None
    options: _Options1
    gate: _Gate
    min_rating: float | None
    parts: dict[str, _Part]
    config: dict[str, Any]


class _Run2(_Run1):
    format: Literal[2]  # type: ignore[assignment]
    options: _Options


class _Ranker0(_Record):
    bundle: str
    pool: int


class _Filters0(BaseModel):
    """Of the filters only what is read back."""

    model_config = ConfigDict(extra="ignore", strict=True)
    min_rating: float | None = None


class _Options0(_Options1):
    ranker: _Ranker0 | None = None


class _Run0(_Facts):
    model: str
    n: int | None = None
    layout: str | None = None
    bundle: str
    parts: dict[str, int]
    config: dict[str, Any]


def write_run(run: PublishedRun, location: Location) -> None:
    """Write ``run.json`` into the directory of the run: that commits it."""
    options = run.recommend.model_dump(mode="json", exclude={"ranker"})
    ranker = None
    if run.ranker is not None and run.recommend.ranker is not None:
        ranker = asdict(run.ranker) | {"pool": run.recommend.ranker.pool}
    facts = {name: getattr(run, name) for name in _Facts.model_fields}
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
    (location / RECORD).write_json(_Run2.model_validate(record).model_dump(mode="json"))


def is_published(location: Location) -> bool:
    """Whether this directory holds a run that was published, by this version or the one before."""
    return (location / RECORD).exists() or (location / RECORD_0).exists()


def read_run(location: Location) -> PublishedRun:
    """The record of a published run.

    Raises:
        PublishError: it has none, or one that can't be read: no JSON, of another shape, of a newer version.
    """
    file = location / RECORD
    if file.exists():
        return _read(file, _format_1_or_2)
    if (location / RECORD_0).exists():
        return _read(location / RECORD_0, _format_0)
    raise PublishError(f"{location}: not a published run, it has no {RECORD}; run recommend")


def _read(file: Location, reader: Callable[[dict[str, Any]], PublishedRun]) -> PublishedRun:
    try:
        record = file.read_json()
    except StorageError as error:
        raise PublishError(f"{error}; {_CURE}") from error
    if not isinstance(record, dict):
        raise PublishError(f"{file}: holds no record of a run, found a JSON {type(record).__name__}; {_CURE}")
    if file.name == RECORD and record.get("format") not in (FORMAT_1, FORMAT):
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


def _format_1_or_2(record: dict[str, Any]) -> PublishedRun:
    read = (_Run1 if record["format"] == FORMAT_1 else _Run2).model_validate(record)
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
    read = _Run0.model_validate(record)
    options = _Options0.model_validate(read.config.get("recommend", {}))
    gate = _Gate.model_validate(_inside(read.config, "publish", "gate") or {})
    filters = _Filters0.model_validate(_inside(read.config, "data", "filters") or {})
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


def _common(read: _Facts) -> dict[str, Any]:
    return {name: getattr(read, name) for name in _Facts.model_fields}


def _settings(options: _Options1, ranker_pool: int | None) -> RecommendSettings:
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
