"""The schemas of ``run.json`` and of what stood in its place, version by version: what ``published`` writes and reads.

Nothing here is a section of the configuration: a file that was written once is read as it was.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base: unknown fields and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class IndexRecord(Record):
    """``recommend.index``."""

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


class RerankRecord(Record):
    """``recommend.rerank``."""

    diversity: float
    similarity: str
    max_per_genre: int | None
    pool: int


class OptionsRecord1(Record):
    """``recommend`` as formats 0 and 1 have it."""

    n: int = 10
    filter_seen: bool = True
    allow: str | None = None
    deny: str | None = None
    candidates: str = "all"
    fallback: str | list[str | dict[str, Any]] = "popularity"
    layout: str = "long"
    index: IndexRecord = IndexRecord()
    rerank: RerankRecord | None = None
    reasons: bool = False
    block_mib: int = 64


class FilterRecord(Record):
    """One of ``recommend.context.where``."""

    min: float | None = None
    max: float | None = None
    any: list[str] | list[float] | None = None
    none: list[str] | list[float] | None = None


class ContextRecord(Record):
    """``recommend.context``."""

    any_genres: list[str]
    all_genres: list[str]
    no_genres: list[str]
    year_from: int | None
    year_to: int | None
    where: dict[str, FilterRecord]


class TrendingRecord(Record):
    """``recommend.trending``."""

    window_days: float


class StageRecord(Record):
    """One of ``recommend.stages``."""

    name: str
    ratings: int
    answers: str


class TimeOfDayRecord(Record):
    """``recommend.time_of_day``."""

    weight: float
    by: str
    shrink: float
    timezone: str
    hour: int
    pool: int


class OptionsRecord(OptionsRecord1):
    """``recommend``."""

    hidden: str | None = None
    at: str | None = None
    context: ContextRecord | None = None
    trending: TrendingRecord = TrendingRecord(window_days=30.0)
    stages: list[StageRecord] = []
    time_of_day: TimeOfDayRecord | None = None


class GateRecord(Record):
    """``runs.gate``."""

    min_coverage: float = 0.0
    max_fallback: float = 1.0
    max_without_spread: float = 0.9
    min_overlap: float = 0.0
    sample: int = 1000


class ModelRecord(Record):
    """A fitted model."""

    name: str
    bundle: str
    """Name of its directory under ``models/``."""
    fingerprint: str | None


class RankerRecord(ModelRecord):
    """The second model."""

    pool: int


class PartRecord(Record):
    """What a file held when it was published."""

    bytes: int
    sha256: str


class FactsRecord(Record):
    """What all formats have."""

    run_id: str
    previous: str | None
    published_at: str
    checks: dict[str, int | float | None] = {}
    index: dict[str, Any] | None = None
    evaluation: dict[str, int | float] | None = None
    made_with: list[str] = []
    packages: dict[str, str] = {}


class RunRecord1(FactsRecord):
    """Format 1."""

    format: Literal[1]
    model: ModelRecord
    ranker: RankerRecord | None
    options: OptionsRecord1
    gate: GateRecord
    min_rating: float | None
    parts: dict[str, PartRecord]
    config: dict[str, Any]


class RunRecord2(RunRecord1):
    """Format 2."""

    format: Literal[2]  # type: ignore[assignment]
    options: OptionsRecord


class RunRecord3(RunRecord2):
    """Format 3: the file ``_manifest.json``, which holds a checksum of itself."""

    format: Literal[3]  # type: ignore[assignment]


class RankerRecord0(Record):
    """The second model in format 0."""

    bundle: str
    pool: int


class FiltersRecord0(BaseModel):
    """Of the filters only what is read back."""

    model_config = ConfigDict(extra="ignore", strict=True)
    min_rating: float | None = None


class OptionsRecord0(OptionsRecord1):
    """``recommend`` in format 0."""

    ranker: RankerRecord0 | None = None


class RunRecord0(FactsRecord):
    """Format 0."""

    model: str
    n: int | None = None
    layout: str | None = None
    bundle: str
    parts: dict[str, int]
    config: dict[str, Any]
