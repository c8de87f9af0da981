"""The publish gate: a finished run is read back and checked, shard by shard, before anyone sees it.

A run passes when its files are its parts and no others, every part has the columns of its layout and no others, every
user is present in order with exactly n rows (or the honest maximum: what the lists and the user's own history leave;
with category caps, which hold, between one row and that), ranks run from 1, no item repeats or was seen, every item is
in the catalogue, scores are finite and never rise with the rank, every source is one of the run's, the lists of a
random sample of users are what the model gives them, and coverage, fallback share, lists without spread and overlap
with the last run are inside the configured bounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import schema
from recsys_ray.base.errors import PublishError, RecsysError, StorageError
from recsys_ray.base.provenance import Stamp, stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import LongArray, MapBlocks, map_blocks_here
from recsys_ray.data.prepare.shard import part_file
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.hidden import with_hidden
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.gate_part import Answering, check_columns, check_rows, check_sample, flat, opened, read_rows

BESIDE_PARTS = ("run.json", "manifest.json", "WITHDRAWN")
"""What versions before wrote into the directory of a run. Names that begin with _ or . no reader takes for a part."""


class RefusedRun(PublishError):
    """A run that the gate does not let through.

    Attributes:
        parts: names of the files in the run's directory that are missing, damaged, wrong, or should not be there; empty
        where only a bound of the whole run is not kept.
    """

    def __init__(self, message: str, parts: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.parts = tuple(parts)

    def __reduce__(self) -> tuple[type[RefusedRun], tuple[str, tuple[str, ...]]]:
        return RefusedRun, (str(self), self.parts)


@dataclass(frozen=True, slots=True)
class Checked:
    """A run that passed."""

    facts: dict[str, int | float | None]
    """users, rows, coverage, fallback_share, without_spread; overlap, None without a run before it."""
    parts: dict[str, Stamp]
    """Size and checksum of the parts as they were checked."""
    warnings: list[str]
    """What was found of other runs; it stops nothing."""


@dataclass
class _Shard:
    """What one shard adds to the checks."""

    users: int
    exposure_I: LongArray
    stamp: Stamp
    rows: int = 0
    fallback_rows: int = 0
    lists: int = 0
    """Lists of two rows or more that the model answers."""
    flat_lists: int = 0
    overlap_sum: float = 0.0
    overlap_users: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def check_run(
    bundle: Bundle,
    run: Location,
    recommend: RecommendSettings,
    gate: GateSettings,
    previous: Location | None = None,
    map_blocks: MapBlocks = map_blocks_here,
    ranker: Location | None = None,
) -> Checked:
    """What is found of a run that may be published.

    Args:
        ranker: the bundle of the second model, where ``recommend.ranker`` is set.

    Raises:
        RefusedRun: one line that names every check that failed, how often, and where.
    """
    expected = [part_file(shard) for shard in range(bundle.num_shards)]
    names = run.names()
    missing = sorted({*expected} - {*names})
    foreign = [name for name in names if name not in {*expected, *BESIDE_PARTS} and name[0] not in "_."]
    there = [shard for shard in range(bundle.num_shards) if expected[shard] in names]
    share = gate.sample / max(1, sum(bundle.users_per_shard))
    answering = Answering(str(bundle.location), recommend, None if ranker is None else str(ranker), share)
    shared = (answering, str(run), None if previous is None else str(previous))
    shards = list(map_blocks(_check_shard, there, shared, "check the run"))
    rows = sum(shard.rows for shard in shards)
    overlap_users = sum(shard.overlap_users for shard in shards)
    exposure_I = sum((shard.exposure_I for shard in shards), np.zeros(bundle.num_items, np.int64))
    facts: dict[str, int | float | None] = {
        "users": sum(shard.users for shard in shards),
        "rows": rows,
        "coverage": float((exposure_I > 0).mean()),
        "fallback_share": sum(shard.fallback_rows for shard in shards) / max(1, rows),
        "without_spread": sum(shard.flat_lists for shard in shards) / max(1, sum(shard.lists for shard in shards)),
        "overlap": sum(shard.overlap_sum for shard in shards) / overlap_users if overlap_users else None,
    }
    problems: list[str] = []
    if missing:
        problems.append(f"{len(missing)} of {bundle.num_shards} parts are missing, the first {missing[0]}")
    if foreign:
        problems.append(f"{len(foreign)} files are no parts of this run, the first {foreign[0]}")
    found = dict(zip([expected[shard] for shard in there], shards, strict=True))
    problems += _told({name: shard.problems for name, shard in found.items() if shard.problems})
    if not problems:
        problems = _out_of_bounds(facts, gate)
    if problems:
        broken = [name for name, shard in found.items() if shard.problems]
        raise RefusedRun(
            f"{run.name} is not published: {'; '.join(problems)}; LATEST stays as it was",
            sorted({*missing, *foreign, *broken}),
        )
    warnings = [f"gate: overlap leaves out a shard: {warning}" for shard in shards for warning in shard.warnings]
    return Checked(facts, {name: shard.stamp for name, shard in found.items()}, warnings[:1])


def _told(by_part: dict[str, dict[str, int]]) -> list[str]:
    """Every problem once: how often it was found, and in which part."""
    counts, parts = Counter[str](), dict[str, list[str]]()
    for part, problems in by_part.items():
        counts.update(problems)
        for name in problems:
            parts.setdefault(name, []).append(part)
    told = []
    for name in sorted(counts):
        first, others = parts[name][0], len(parts[name]) - 1
        told.append(f"{name} ({counts[name]}, in {first}{f' and {others} more' if others else ''})")
    return told


def _out_of_bounds(facts: dict[str, Any], gate: GateSettings) -> list[str]:
    problems = []
    if facts["coverage"] < gate.min_coverage:
        problems.append(f"coverage {facts['coverage']:.4f} is below runs.gate.min_coverage={gate.min_coverage}")
    if facts["fallback_share"] > gate.max_fallback:
        problems.append(
            f"fallback share {facts['fallback_share']:.4f} is above runs.gate.max_fallback={gate.max_fallback}"
        )
    if facts["without_spread"] > gate.max_without_spread:
        problems.append(
            f"share of lists without spread {facts['without_spread']:.4f} is above "
            f"runs.gate.max_without_spread={gate.max_without_spread}"
        )
    if facts["overlap"] is not None and facts["overlap"] < gate.min_overlap:
        problems.append(f"overlap {facts['overlap']:.4f} is below runs.gate.min_overlap={gate.min_overlap}")
    return problems


def _check_shard(shard: int, shared: tuple[Answering, str, str | None]) -> _Shard:
    answering, run_url, previous_url = shared
    bundle, options = opened(answering)
    requests = with_hidden(bundle.requests(shard), options.hidden)
    part, data = Location(run_url) / part_file(shard), b""
    problems: dict[str, int] = {}
    nothing = np.zeros(bundle.num_items, np.int64)
    try:
        data = part.read_bytes()
        table = check_columns(part.parse_parquet(data), bundle, answering.settings, problems)
    except RecsysError as error:
        return _Shard(len(requests), nothing, stamp(data), problems={f"unreadable part: {error}": 1})
    rows = read_rows(table, bundle, requests, options)
    exposure_I, (flat_lists, lists) = check_rows(bundle, requests, rows, options, problems)
    if not problems and (wrong := check_sample(bundle, requests, rows, options, answering.sample, data)):
        problems["lists that the model does not give"] = wrong
    warnings: list[str] = []
    try:
        overlap_sum, overlap_users = _overlap(table, previous_url, shard, bundle.num_shards)
    except (StorageError, KeyError, pa.ArrowException) as error:  # a damaged run of yesterday does not stop tonight's
        (overlap_sum, overlap_users), warnings = (0.0, 0), [f"the run before can't be read: {error}"]
    return _Shard(
        users=len(requests),
        exposure_I=exposure_I,
        stamp=stamp(data),
        rows=table.num_rows,
        fallback_rows=int(pc.sum(pc.not_equal(table.column("source"), schema.SOURCE_MODEL)).as_py() or 0),
        lists=lists,
        flat_lists=flat_lists,
        overlap_sum=overlap_sum,
        overlap_users=overlap_users,
        problems=problems,
        warnings=warnings,
    )


def _overlap(table: pa.Table, previous_url: str | None, shard: int, num_shards: int) -> tuple[float, int]:
    """Sum over the users of both runs of |old and new| / |new|, and their number.

    Runs of equally many shards are compared part by part; otherwise the users of the first shard are a sample that is
    looked up in all parts of the last run.
    """
    if previous_url is None:
        return 0.0, 0
    previous = Location(previous_url)
    names = [name for name in previous.names() if name.startswith("part-")]
    if len(names) == num_shards:
        names = [part_file(shard)]
    elif shard:
        return 0.0, 0
    users = pc.unique(table.column("user_id"))
    old = pa.concat_tables([_pairs_of(previous / name, users) for name in names])
    if old.num_rows == 0 or old.schema.field("item_id").type != table.schema.field("item_id").type:
        return 0.0, 0
    new = table.select(["user_id", "item_id"]).filter(
        pc.is_in(table.column("user_id"), value_set=pc.unique(old["user_id"]))
    )
    common = new.join(old, keys=["user_id", "item_id"], join_type="inner").num_rows
    num_users = len(pc.unique(new.column("user_id")))
    per_user = new.num_rows / max(1, num_users)
    return common / max(1.0, per_user), num_users


def _pairs_of(part: Location, users: pa.Array) -> pa.Table:
    table = flat(part.read_parquet()).select(["user_id", "item_id"])
    if table.schema.field("user_id").type != users.type:
        return table.slice(0, 0)
    return table.filter(pc.is_in(table.column("user_id"), value_set=users))
