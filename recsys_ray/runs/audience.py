"""The best users for an item: the other way round through the same exact scores.

Every user is asked about the wanted items alone, shard after shard, under the rules of the published run: nothing that
a user has, nothing that is not allowed. A score is that of the model, or of the ranker where the run has one and it
knows the request. Users are compared by them, which is fair for models whose scores are on one scale for all.

Q are the wanted items, B the users of a shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, FloatArray, IntArray, MapBlocks, Requests, map_blocks_here
from recsys_ray.recommend.options import ScorerRanker
from recsys_ray.recommend.rank import seen_items
from recsys_ray.runs.publish import OpenedRun, open_published

NOBODY = np.float32(-np.inf)


@dataclass(frozen=True, slots=True)
class _Asked:
    output: str
    run: str
    rows_Q: IntArray
    users: int
    most_per_user: int | None


def audience(
    run: OpenedRun,
    output: Location,
    place: Location,
    items: pa.Array,
    users: int,
    most_per_user: int | None = None,
    map_blocks: MapBlocks = map_blocks_here,
) -> pa.Table:
    """item_id, rank, user_id, score: of each item the ``users`` with the highest scores, of equals the first by id.

    Args:
        run, place: an opened run of ``output`` and its directory. items: outside ids. most_per_user: in how many of the
        lists one user may be: those of the items that suit this user best.

    Raises:
        DataError: an item is not in the catalogue. ConfigError: an item is not allowed by the run's own rules.
    """
    rows_Q = run.bundle.item_rows(items, "audience")
    allowed_I = run.options.allowed_I
    if allowed_I is not None and not allowed_I[rows_Q].all():
        refused = items[int(np.flatnonzero(~allowed_I[rows_Q])[0])].as_py()
        raise ConfigError(
            f"audience: item {refused!r} is not allowed by recommend.allow, deny or candidates of the run"
        )
    asked = _Asked(str(output), str(place), rows_Q, users, most_per_user)
    shards = map_blocks(_best_of_shard, range(run.bundle.num_shards), asked, "ask the users")
    best = pa.concat_tables(shards)
    order = best.sort_by([("item", "ascending"), ("score", "descending"), ("user_id", "ascending")])
    place_E = _places(order.column("item").to_numpy())
    kept = np.flatnonzero(place_E < users)
    order, place_E = order.take(pa.array(kept)), place_E[kept]
    return pa.table(
        {
            "item_id": items.take(order.column("item").combine_chunks()),
            "rank": pa.array((place_E + 1).astype(np.int32)),
            "user_id": order.column("user_id"),
            "score": order.column("score"),
        }
    )


def _places(items_E: IntArray) -> IntArray:
    """Of each row among those of its item; rows of an item follow each other."""
    starts = np.flatnonzero(np.append(True, items_E[1:] != items_E[:-1])) if len(items_E) else np.zeros(0, np.int64)
    lengths = np.diff(np.append(starts, len(items_E)))
    return np.asarray(np.arange(len(items_E)) - np.repeat(starts, lengths), np.int32)


@lru_cache(maxsize=1)  # a worker asks many shards of one run
def _opened(output: str, run: str) -> OpenedRun:
    return open_published(Location(output), Location(run))


def _best_of_shard(shard: int, asked: _Asked) -> pa.Table:
    """(item, user_id, score): of each wanted item the best users of a shard; ``item`` is its place among the wanted."""
    run = _opened(asked.output, asked.run)
    requests = run.bundle.requests(shard)
    scores_BQ = item_scores(run, requests, asked.rows_Q)
    if asked.most_per_user is not None:
        scores_BQ[~_best_of_user(scores_BQ, asked.most_per_user)] = NOBODY
    # Users of a shard are sorted by id: a stable sort leaves the first by id in front of equals.
    order_BQ = np.argsort(-scores_BQ, axis=0, kind="stable")[: asked.users]
    best_BQ = np.take_along_axis(scores_BQ, order_BQ, axis=0)
    places, wanted = np.nonzero(np.isfinite(best_BQ))
    columns = {
        "item": pa.array(wanted.astype(np.int32)),
        "user_id": requests.user_ids.take(pa.array(order_BQ[places, wanted])),
        "score": pa.array(best_BQ[places, wanted].astype(np.float32)),
    }
    return pa.table(columns)


def item_scores(run: OpenedRun, requests: Requests, rows_Q: IntArray) -> FloatArray:
    """(B, Q) the score of each wanted item for each request; -inf where the run would not list it as the model's."""
    options = run.options
    rows_BQ = np.ascontiguousarray(np.broadcast_to(rows_Q, (len(requests), len(rows_Q))))
    scores_BQ = ScorerRanker(run.bundle.scorer, options.block_bytes).score_pairs(requests, rows_BQ)
    if options.ranker is not None:
        ranked_BQ = options.ranker.score_pairs(requests, rows_BQ)
        scores_BQ = np.where(np.isfinite(ranked_BQ) & np.isfinite(scores_BQ), ranked_BQ, scores_BQ)
    if options.filter_seen:
        seen = seen_items(requests)
        for q, row in enumerate(rows_Q.tolist()):
            scores_BQ[seen.rows_E[seen.items_E == row], q] = NOBODY
    return np.asarray(scores_BQ, np.float32)


def _best_of_user(scores_BQ: FloatArray, most: int) -> BoolArray:
    """(B, Q) the most best items of every user, of equals the first."""
    order_BQ = np.argsort(-scores_BQ, axis=1, kind="stable")
    best_BQ = np.zeros(scores_BQ.shape, np.bool_)
    np.put_along_axis(best_BQ, order_BQ[:, :most], True, axis=1)
    return best_BQ
