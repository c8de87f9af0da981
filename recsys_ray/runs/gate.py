"""The publish gate: a finished run is read back and checked, shard by shard, before anyone sees it.

A run passes when every user is present with exactly n rows (or the honest maximum: what the lists and the user's own
history leave; with category caps, which hold, between one row and that), ranks run from 1, no item repeats or was seen,
every item is in the catalogue, scores are finite and never rise with the rank, and coverage, fallback share and overlap
with the last run are inside the configured bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from recsys_ray.base import schema
from recsys_ray.base.errors import PublishError, RecsysError, StorageError
from recsys_ray.base.provenance import Stamp, stamp
from recsys_ray.base.ragged import of_list_array, places_in_rows
from recsys_ray.base.storage import Location
from recsys_ray.base.types import LongArray, MapBlocks, Requests, Settings, map_blocks_here
from recsys_ray.data.prepare.shard import part_file
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.hidden import with_hidden
from recsys_ray.recommend.options import Options, read_options, shown_items
from recsys_ray.recommend.rank import excluded_items


class GateSettings(Settings):
    """Bounds of the publish gate; the checks without a bound are always on."""

    min_coverage: float = Field(default=0.0, ge=0, le=1)
    """Least share of the catalogue that must appear in somebody's list."""
    max_fallback: float = Field(default=1.0, ge=0, le=1)
    """Largest share of rows that may come from the fallback."""
    min_overlap: float = Field(default=0.0, ge=0, le=1)
    """Least mean share of a user's list that was already in the last published run."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A run that passed."""

    facts: dict[str, int | float | None]
    """users, rows, coverage, fallback_share; overlap, None without a run before it."""
    parts: dict[str, Stamp]
    """Size and checksum of the parts as they were checked."""
    warnings: list[str]
    """What was found of other runs; it stops nothing."""


@dataclass
class _Shard:
    """What one shard adds to the checks."""

    users: int
    rows: int
    fallback_rows: int
    exposure_I: LongArray
    overlap_sum: float
    overlap_users: int
    problems: dict[str, int]
    stamp: Stamp
    warnings: list[str] = field(default_factory=list)


def check_run(
    bundle: Bundle,
    run: Location,
    recommend: RecommendSettings,
    gate: GateSettings,
    previous: Location | None = None,
    map_blocks: MapBlocks = map_blocks_here,
) -> Checked:
    """What is found of a run that may be published.

    Raises:
        PublishError: one line that names every check that failed, and how often.
    """
    missing = [shard for shard in range(bundle.num_shards) if not (run / part_file(shard)).exists()]
    if missing:
        raise PublishError(f"{run}: {len(missing)} of {bundle.num_shards} parts are missing; run recommend again")
    shared = (str(bundle.location), str(run), recommend, None if previous is None else str(previous))
    shards = list(map_blocks(_check_shard, range(bundle.num_shards), shared, "check the run"))
    exposure_I = np.sum([shard.exposure_I for shard in shards], axis=0)
    rows = sum(shard.rows for shard in shards)
    overlap_users = sum(shard.overlap_users for shard in shards)
    facts: dict[str, int | float | None] = {
        "users": sum(shard.users for shard in shards),
        "rows": rows,
        "coverage": float((exposure_I > 0).mean()),
        "fallback_share": sum(shard.fallback_rows for shard in shards) / max(1, rows),
        "overlap": sum(shard.overlap_sum for shard in shards) / overlap_users if overlap_users else None,
    }
    problems = [
        f"{name} ({count})"
        for name in sorted({name for shard in shards for name in shard.problems})
        if (count := sum(shard.problems.get(name, 0) for shard in shards))
    ]
    problems += _out_of_bounds(facts, gate)
    if problems:
        raise PublishError(f"{run.name} is not published: {'; '.join(problems)}; LATEST stays as it was")
    warnings = [f"gate: overlap leaves out a shard: {warning}" for shard in shards for warning in shard.warnings]
    return Checked(facts, {part_file(shard): found.stamp for shard, found in enumerate(shards)}, warnings[:1])


def _out_of_bounds(facts: dict[str, Any], gate: GateSettings) -> list[str]:
    problems = []
    if facts["coverage"] < gate.min_coverage:
        problems.append(f"coverage {facts['coverage']:.4f} is below runs.gate.min_coverage={gate.min_coverage}")
    if facts["fallback_share"] > gate.max_fallback:
        problems.append(
            f"fallback share {facts['fallback_share']:.4f} is above runs.gate.max_fallback={gate.max_fallback}"
        )
    if facts["overlap"] is not None and facts["overlap"] < gate.min_overlap:
        problems.append(f"overlap {facts['overlap']:.4f} is below runs.gate.min_overlap={gate.min_overlap}")
    return problems


@lru_cache(maxsize=1)  # a worker checks many shards of one run
def _opened(bundle_url: str, settings: RecommendSettings) -> tuple[Bundle, Options]:
    bundle = open_bundle(Location(bundle_url))
    options = read_options(bundle, settings)
    return bundle, replace(options, allowed_I=shown_items(bundle, options))


def _check_shard(shard: int, shared: tuple[str, str, RecommendSettings, str | None]) -> _Shard:
    bundle_url, run_url, settings, previous_url = shared
    bundle, options = _opened(bundle_url, settings)
    requests = with_hidden(bundle.requests(shard), options.hidden)
    problems: dict[str, int] = {}
    part, found = Location(run_url) / part_file(shard), b""
    try:
        found = part.read_bytes()
        table = flat(part.parse_parquet(found))
        schema.check(table, schema.recommendations(bundle.user_id_type, bundle.item_ids.type), part_file(shard))
    except RecsysError as error:
        return _Shard(
            len(requests),
            0,
            0,
            np.zeros(bundle.num_items, np.int64),
            0.0,
            0,
            {f"unreadable part: {error}": 1},
            stamp(found),
        )
    exposure_I = _check_rows(bundle, requests, table, options, problems)
    warnings: list[str] = []
    try:
        overlap_sum, overlap_users = _overlap(table, previous_url, shard, bundle.num_shards)
    except (StorageError, KeyError, pa.ArrowException) as error:  # a damaged run of yesterday does not stop tonight's
        (overlap_sum, overlap_users), warnings = (0.0, 0), [f"the run before can't be read: {error}"]
    fallback = pc.sum(pc.not_equal(table.column("source"), schema.SOURCE_MODEL)).as_py() or 0
    return _Shard(
        len(requests),
        table.num_rows,
        int(fallback),
        exposure_I,
        overlap_sum,
        overlap_users,
        problems,
        stamp(found),
        warnings,
    )


def _check_rows(
    bundle: Bundle, requests: Requests, table: pa.Table, options: Options, problems: dict[str, int]
) -> LongArray:
    """Count every broken rule in ``problems``; returns the (I,) exposure."""
    users = (
        pc.fill_null(pc.index_in(table.column("user_id"), value_set=requests.user_ids), -1).to_numpy().astype(np.int64)
    )
    items = (
        pc.fill_null(pc.index_in(table.column("item_id"), value_set=bundle.item_ids), -1).to_numpy().astype(np.int64)
    )
    ranks = table.column("rank").to_numpy().astype(np.int64)
    scores = table.column("score").to_numpy()
    known = (users >= 0) & (items >= 0)
    _count(problems, "rows of unknown users", users < 0)
    _count(problems, "items outside the catalogue", items < 0)
    _count(problems, "scores not finite", ~np.isfinite(scores))
    users, items, ranks, scores = users[known], items[known], ranks[known], scores[known]

    order = np.lexsort((ranks, users))
    same_user = users[order][1:] == users[order][:-1]
    first = np.append(True, ~same_user)
    expected_rank = np.arange(len(users)) - np.flatnonzero(first)[np.cumsum(first) - 1] + 1 if len(users) else ranks
    _count(problems, "ranks that do not run 1, 2, ...", ranks[order] != expected_rank)
    _count(problems, "scores that rise with the rank", same_user & (scores[order][1:] > scores[order][:-1]))

    pairs = users * bundle.num_items + items
    _count(problems, "items repeated in one list", np.diff(np.sort(pairs)) == 0)
    excluded = excluded_items(requests, options)
    excluded_pairs = np.unique(excluded.rows_E.astype(np.int64) * bundle.num_items + excluded.items_E)
    _count(problems, "items the user has already seen or hides", np.isin(pairs, excluded_pairs))
    if options.allowed_I is not None:
        _count(problems, "items that the rules of recommend forbid", ~options.allowed_I[items])
    rows_B = np.bincount(users, minlength=len(requests))
    expected_B = _honest_maximum(bundle, requests, excluded_pairs, options)
    cap = None if options.reranker is None else options.reranker.settings.max_per_genre
    least_B = np.minimum(expected_B, 1 if cap is not None else options.n) if options.fallback else 0 * expected_B
    wrong_B = (rows_B < least_B) | (rows_B > expected_B)
    _count(problems, f"users without exactly {options.n} rows or the honest maximum", wrong_B)
    if cap is not None:
        listed = bundle.genres[0].take(items)
        keys = np.repeat(users, listed.lengths_B) * len(bundle.genres[1]) + listed.items_E
        _count(problems, "genres above recommend.rerank.max_per_genre", np.unique(keys, return_counts=True)[1] > cap)
    return np.bincount(items, minlength=bundle.num_items)


def _honest_maximum(bundle: Bundle, requests: Requests, excluded_pairs: LongArray, options: Options) -> LongArray:
    """(B,) n, or all that the rules and the user's own history leave when that is less."""
    allowed_I = np.ones(bundle.num_items, np.bool_) if options.allowed_I is None else options.allowed_I
    available_B = np.full(len(requests), int(allowed_I.sum()))
    allowed_pairs = excluded_pairs[allowed_I[excluded_pairs % bundle.num_items]]
    available_B -= np.bincount(allowed_pairs // bundle.num_items, minlength=len(requests))
    expected_B: LongArray = np.minimum(available_B, options.n)
    return expected_B


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


def flat(table: pa.Table) -> pa.Table:
    """A part in the long layout, whichever it was written in."""
    if "item_ids" not in table.schema.names:
        return table
    offsets, item_ids = of_list_array(table.column("item_ids"))
    lengths = np.diff(offsets)
    return pa.table(
        {
            "user_id": table.column("user_id")
            .combine_chunks()
            .take(pa.array(np.repeat(np.arange(len(lengths)), lengths))),
            "rank": pa.array((places_in_rows(lengths) + 1).astype(np.int32)),
            "item_id": item_ids,
            "score": table.column("scores").combine_chunks().flatten(),
            "source": table.column("sources").combine_chunks().flatten(),
        }
    )


def _count(problems: dict[str, int], name: str, broken: Any) -> None:
    count = int(np.count_nonzero(broken))
    if count:
        problems[name] = problems.get(name, 0) + count
