"""What a run will read, need and skip, told without running it: only headers, first rows and ids are read."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import schema
from recsys_ray.base.memory import available_memory
from recsys_ray.base.storage import Location
from recsys_ray.base.types import Counts
from recsys_ray.config import Config
from recsys_ray.data.first_look import look_at_inputs
from recsys_ray.data.forgotten import WithoutUsers, forgotten_users
from recsys_ray.data.prepared import Prepared
from recsys_ray.data.sources import open_source
from recsys_ray.data.sources.base import Source
from recsys_ray.data.synthetic.source import SyntheticSettings
from recsys_ray.models import Model
from recsys_ray.planning.cost import START_SECONDS, fit_seconds, stage_seconds
from recsys_ray.planning.keys import fit_key, prepared_key

MOST_ROWS = 5_000_000
"""Rows whose ids are read; of more, the counts are those of the rows that were read, scaled up."""
FIRST_ROWS = 3


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of the run."""

    stage: str
    what: str
    skipped: bool = False
    memory: int | None = None
    """Bytes at the peak of the process that does it; None where it is not predicted."""
    seconds: float | None = None
    """On the cores of this machine, right within a factor of three or so; None where it is not predicted."""
    disk: int = 0
    money: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known before a run."""

    users: int
    items: int
    interactions: int
    exact: bool
    """The counts are not scaled up from a sample. Filters are not taken into account."""
    example: list[dict[str, Any]]
    """The first rows as they are understood."""
    catalogue: list[dict[str, Any]]
    stages: list[StagePlan]
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        about = "" if self.exact else "about "
        found = [
            f"{about}{self.interactions:,} interactions of {about}{self.users:,} users with {self.items:,} items "
            "(before filters)"
        ]
        found += ["", "first interactions", *_rows(self.example)]
        if self.catalogue:
            found += ["", "first items", *_rows(self.catalogue)]
        head = f"{'stage':<12}{'memory':>10}{'time':>10}{'disk':>10}"
        priced = any(stage.money is not None for stage in self.stages)
        found += ["", head + ("     money" if priced else "")]
        for stage in self.stages:
            if stage.skipped:
                found.append(f"{stage.stage:<12}{'':>30}  is there, will be skipped")
                continue
            memory = "-" if stage.memory is None else _size(stage.memory)
            seconds = "-" if stage.seconds is None else _time(stage.seconds)
            money = "" if not priced else f"{'-' if stage.money is None else f'{stage.money:.4f}':>10}"
            found.append(f"{stage.stage:<12}{memory:>10}{seconds:>10}{_size(stage.disk):>10}{money}  {stage.what}")
        known = [stage.seconds for stage in self.stages if stage.seconds is not None and not stage.skipped]
        rest = ", without what is not predicted (-)" if len(known) < sum(not one.skipped for one in self.stages) else ""
        found.append(f"in all about {_time(sum(known) + START_SECONDS)}, right within a factor of three{rest}")
        return [*found, *(f"problem: {problem}" for problem in self.problems)]


def plan(config: Config, price: float | None = None) -> Plan:
    """Look ahead; ``price`` is what an hour of the machine costs.

    Raises:
        DataError, StorageError: what a run would say of the first rows.
    """
    look_at_inputs(config.data)
    output = Location.of(config.output)
    source: Source = open_source(config.data, seed=config.seed)
    if forgotten := forgotten_users(output):
        source = WithoutUsers(source, forgotten)
    place = output / "prepared" / prepared_key(config, source)[:12]
    prepared = Prepared.open(place) if (place / "manifest.json").exists() else None
    example, catalogue = _first(source)
    counts, exact = _counts(config, source)
    if prepared is not None:
        counts, exact = prepared.counts(tuple(schema.PARTS)), True
    stages = list(_stages(config, counts, place, prepared))
    if price is not None:
        stages = [_priced(stage, price) for stage in stages]
    free = available_memory()
    limit = config.training.memory_limit_gib
    most = free if limit is None else int(limit * 2**30)
    problems = [
        f"{stage.stage} needs about {_size(stage.memory)}, more than the {_size(most)} there are; {stage.what}"
        for stage in stages
        if stage.memory is not None and not stage.skipped and stage.memory > most
    ]
    return Plan(
        counts.num_users, counts.num_items, counts.num_interactions, exact, example, catalogue, stages, problems
    )


def _priced(stage: StagePlan, price: float) -> StagePlan:
    values = {name: getattr(stage, name) for name in stage.__slots__}
    skipped = stage.skipped or stage.seconds is None
    return StagePlan(**values | {"money": None if skipped else round(float(stage.seconds or 0) / 3600 * price, 6)})


def _first(source: Source) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    chunks = source.chunks()
    events = source.read(chunks[0]).events.slice(0, FIRST_ROWS) if chunks else None
    items = source.items()
    rows = [] if events is None else events.drop_columns(["part"]).to_pylist()
    for row in rows:
        moment = row["timestamp"]
        row["timestamp"] = "none" if not moment else str(np.datetime64(moment, "ms").astype("datetime64[s]"))
    shown = [] if items is None else items.slice(0, FIRST_ROWS).to_pylist()
    return rows, [{name: value for name, value in row.items() if value not in (None, [], "")} for row in shown]


def _counts(config: Config, source: Source) -> tuple[Counts, bool]:
    """Of all rows, or of a sample, scaled up."""
    if isinstance(made := config.data, SyntheticSettings):
        rows = int(made.users * made.interactions_per_user)
        return Counts(made.users, made.items, rows, int(made.users * made.interactions_per_user**2)), False
    users, items, read, whole = [], [], 0, True
    for chunk in source.chunks():
        if read >= MOST_ROWS:
            whole = False
            break
        events = source.read(chunk).events
        events = events.filter(pc.is_valid(events.column("item_id")))
        read += events.num_rows
        users.append(events.column("user_id").combine_chunks())
        items.append(events.column("item_id").combine_chunks())
    lengths = pc.value_counts(pa.chunked_array(users)).field("counts").to_numpy().astype(np.float64)
    catalogue = source.items()
    num_items = len(pa.chunked_array(items).unique()) if catalogue is None else catalogue.num_rows
    scale = 1.0 if whole else max(1.0, source.estimated_rows() / read)
    sizes = (len(lengths) * scale, num_items, read * scale, float((lengths**2).sum()) * scale)
    num_users, _, interactions, pairs = map(int, sizes)
    return Counts(num_users, num_items, interactions, pairs), whole


def _stages(config: Config, counts: Counts, place: Location, prepared: Prepared | None) -> list[StagePlan]:
    cores = os.cpu_count() or 1
    users, items, rows, n = counts.num_users, counts.num_items, counts.num_interactions, config.recommend.n
    found = [
        StagePlan(
            "prepare", f"{rows:,} rows to {place}", prepared is not None,
            seconds=stage_seconds("prepare", rows, cores), disk=24 * rows + 200 * items,
        )
    ]  # fmt: skip
    if config.content is not None:
        kinds = len(config.content.kinds)
        seconds = None if "text" in config.content.kinds else stage_seconds("embed", items * kinds, cores)
        found.append(
            StagePlan(
                "embed",
                f"{items:,} items, {', '.join(config.content.kinds)}",
                seconds=seconds,
                disk=1600 * items * kinds,
            )
        )
    model, lists = (
        config.chosen_model(),
        stage_seconds("lists", users * items, cores) + stage_seconds("users", users, cores),
    )

    def fit(stage: str, fitted: Model, parts: tuple[str, ...]) -> StagePlan:
        estimate = fitted.memory(counts)
        done = False
        if prepared is not None and config.content is None:
            present = tuple(part for part in parts if prepared.counts((part,)).num_interactions)
            key = fit_key(config, place.name, None, fitted, present)
            done = (place.parent.parent / "models" / f"{fitted.key}-{key[:12]}" / "manifest.json").exists()
        return StagePlan(
            stage,
            f"{fitted.key}; if too large: {estimate.advice}",
            done,
            estimate.bytes,
            fit_seconds(fitted, counts, cores),
        )

    everything = tuple(schema.PARTS)
    if config.has_split:
        parts = ("train",) if config.evaluation.on == "valid" else ("train", "valid")
        found.append(fit("train", model, parts))
        baselines = config.baselines()
        seconds = (1 + len(baselines)) * (lists + stage_seconds("evaluate", users, cores))
        found.append(
            StagePlan("evaluate", f"beside {', '.join(baselines) or 'nothing'}", seconds=seconds, disk=20 * n * users)
        )
    found.append(
        fit(
            "refit" if config.has_split else "train",
            model,
            everything if config.training.refit == "all" else everything[:2],
        )
    )
    found.append(StagePlan("recommend", f"{n} rows for {users:,} users", seconds=lists, disk=16 * n * users))
    return found


def _rows(rows: list[dict[str, Any]]) -> list[str]:
    return ["  " + ", ".join(f"{name}={_short(value)}" for name, value in row.items()) for row in rows]


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024  # type: ignore[assignment]
    return ""


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
