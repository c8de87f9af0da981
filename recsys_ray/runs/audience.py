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
import pyarrow.compute as pc

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, FloatArray, IntArray, MapBlocks, Requests, map_blocks_here
from recsys_ray.data.forgotten import forgotten_users
from recsys_ray.recommend.hidden import with_hidden
from recsys_ray.recommend.options import ScorerRanker, shown_items
from recsys_ray.recommend.rank import excluded_items
from recsys_ray.runs.publish import OpenedRun, open_published

NOBODY = np.float32(-np.inf)


@dataclass(frozen=True, slots=True)
class _Asked:
    output: str
    run: str
    rows_Q: IntArray
    depth: int
    """Users of each item that a shard names."""
    forgotten: frozenset[str]


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
        lists one user may be. Pairs are then taken by their scores, the best first, as long as neither the list nor
        the user is full.

    Raises:
        DataError: an item is not in the catalogue. ConfigError: an item is not allowed by the run's own rules.
    """
    rows_Q = run.bundle.item_rows(items, "audience")
    allowed_I = shown_items(run.bundle, run.options)
    if allowed_I is not None and not allowed_I[rows_Q].all():
        refused = items[int(np.flatnonzero(~allowed_I[rows_Q])[0])].as_py()
        raise ConfigError(
            f"audience: the rules of the run (recommend.allow, deny, context ...) leave out item {refused!r}"
        )
    shards, forgotten = range(run.bundle.num_shards), forgotten_users(output)
    depth = users
    while True:
        asked = _Asked(str(output), str(place), rows_Q, depth, forgotten)
        best = pa.concat_tables(map_blocks(_best_of_shard, shards, asked, "ask the users"))
        best = best.sort_by([("item", "ascending"), ("score", "descending"), ("user_id", "ascending")])
        best = best.filter(pa.array(_places(best.column("item").to_numpy()) < depth))
        kept_E, short_Q = _assigned(best, len(items), users, most_per_user)
        # A list that is short although more was to be had is filled from further down.
        cut_Q = np.bincount(best.column("item").to_numpy(), minlength=len(items)) >= depth
        if not (short_Q & cut_Q).any():
            break
        depth *= 2
    best = best.filter(pa.array(kept_E))
    return pa.table(
        {
            "item_id": items.take(best.column("item").combine_chunks()),
            "rank": pa.array(_places(best.column("item").to_numpy()) + 1, pa.int32()),
            "user_id": best.column("user_id"),
            "score": best.column("score"),
        }
    )


def _assigned(best: pa.Table, size: int, users: int, most_per_user: int | None) -> tuple[BoolArray, BoolArray]:
    """Which of the pairs are taken, best scores first; and which items have fewer than ``users``."""
    items_E, scores_E = best.column("item").to_numpy(), best.column("score").to_numpy()
    who_E = best.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy()
    kept_E = np.zeros(len(items_E), np.bool_)
    listed_Q, busy_U = np.zeros(size, np.int64), np.zeros(int(who_E.max(initial=-1)) + 1, np.int64)
    limit = size if most_per_user is None else most_per_user
    for pair in np.argsort(-scores_E, kind="stable").tolist():
        item, user = items_E[pair], who_E[pair]
        if listed_Q[item] < users and busy_U[user] < limit:
            kept_E[pair] = True
            listed_Q[item] += 1
            busy_U[user] += 1
    return kept_E, listed_Q < users


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
    requests = with_hidden(run.bundle.requests(shard), run.options.hidden)
    scores_BQ = item_scores(run, requests, asked.rows_Q)
    ids = requests.user_ids.cast(pa.string())
    gone_B = pc.is_in(ids, value_set=pa.array(sorted(asked.forgotten), pa.string())).to_numpy(zero_copy_only=False)
    scores_BQ[gone_B] = NOBODY
    # Users of a shard are sorted by id: a stable sort leaves the first by id in front of equals.
    order_BQ = np.argsort(-scores_BQ, axis=0, kind="stable")[: asked.depth]
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
    exclude = excluded_items(requests, options)
    for q, row in enumerate(rows_Q.tolist()):
        scores_BQ[exclude.rows_E[exclude.items_E == row], q] = NOBODY
    return np.asarray(scores_BQ, np.float32)
