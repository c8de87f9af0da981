"""A written run against the held-out part of the prepared data, shard by shard."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from recsys_ray.base.storage import Location
from recsys_ray.base.types import MapBlocks, map_blocks_here
from recsys_ray.data.prepare.shard import part_file
from recsys_ray.data.prepared import Prepared
from recsys_ray.evaluation import EvaluationSettings, ItemCounts, Partial, Report, evaluate_part
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.rank import seen_items
from recsys_ray.runs.scored import rating_part, scored_values


@dataclass(frozen=True, slots=True)
class _Shared:
    prepared: str
    bundle: str
    run: str
    settings: EvaluationSettings
    filter_seen: bool


def evaluate_run(
    prepared: Location,
    bundle: Location,
    run: Location,
    settings: EvaluationSettings,
    map_blocks: MapBlocks = map_blocks_here,
    *,
    filter_seen: bool = True,
) -> Report:
    """Every metric of the run's Parquet; rating errors too when the model predicts ratings.

    ``filter_seen``: the lists were made without what their users have seen.
    """
    shared = _Shared(str(prepared), str(bundle), str(run), settings, filter_seen)
    total: Partial | None = None
    for partial in map_blocks(_evaluate_shard, range(Prepared.open(prepared).num_shards), shared, "evaluate"):
        total = partial if total is None else total.merge(partial)
    assert total is not None  # prepared data has at least one shard
    return total.finish(settings)


@lru_cache(maxsize=1)  # a worker evaluates many shards of one run
def _opened(prepared: str, bundle: str) -> tuple[Prepared, Bundle]:
    return Prepared.open(Location(prepared)), open_bundle(Location(bundle))


def _evaluate_shard(shard: int, shared: _Shared) -> Partial:
    prepared, bundle = _opened(shared.prepared, shared.bundle)
    requests = bundle.requests(shard)
    targets = prepared.targets(shard, shared.settings.on)
    partial = evaluate_part(
        (Location(shared.run) / part_file(shard)).read_parquet(),
        requests.user_ids,
        targets.items,
        requests.histories.lengths_B,
        ItemCounts(bundle.item_ids, bundle.item_counts(), *bundle.genres),
        shared.settings,
        shard,
        ratings_E=targets.ratings_E,
        scored=scored_values(bundle, requests, targets, shared.settings),
        seen=seen_items(requests) if shared.filter_seen else None,
    )
    if bundle.manifest["predicts_ratings"]:
        partial = partial.merge(rating_part(bundle, requests, targets))
    return partial
