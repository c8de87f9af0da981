"""Compares the written recommendations of one shard of users with what these users did next.

E are rows of a table or entries of all lists end to end, Q the means that are taken, A the bootstrap replicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import ragged, schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.types import BoolArray, DoubleArray, FloatArray, IntArray, ItemLists, LongArray
from recsys_ray.evaluation import metrics
from recsys_ray.evaluation.config import EvaluationSettings
from recsys_ray.evaluation.report import EVERYONE, HEAD, TAIL, Mean, Partial, means

# Users that get their bootstrap weights together: bounds the (A, users) matrix to a few megabytes.
BOOTSTRAP_USERS = 1024


# (hits_BK, targets_B, counted_B): where the lists are right, of how many, and for which users it counts.
_Segment = tuple[BoolArray, LongArray, BoolArray]


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """``item_ids`` in vocabulary order, and (I,) how often each occurs in the training interactions."""

    item_ids: pa.Array
    counts_I: LongArray

    def __post_init__(self) -> None:
        assert len(self.item_ids) == len(self.counts_I)

    def __len__(self) -> int:
        return len(self.counts_I)


@dataclass(frozen=True, slots=True)
class _Hits:
    """Which shown items are targets, how many targets there are, and the same for targets of the head alone."""

    hits_BK: BoolArray
    targets_B: LongArray
    head_hits_BK: BoolArray
    head_targets_B: LongArray


def evaluate_part(
    recommendations: pa.Table,
    user_ids: pa.Array,
    targets: ItemLists,
    history_lengths_B: LongArray,
    items: ItemCounts,
    settings: EvaluationSettings,
    shard: int,
) -> Partial:
    """The contribution of one shard.

    ``recommendations`` is the written table of this shard, long or nested (``schema.py``), in any row order;
    ``user_ids``, ``targets`` (item rows) and ``history_lengths_B`` (interactions the model knew) are parallel.
    A user without targets counts for what the lists show, not for how well they rank; a user without a list counts as
    a miss. A target that is listed twice is one target. ``shard`` numbers the bootstrap's random stream.

    Raises DataError for an unknown user or item, a user, rank or item that occurs twice, and ranks below 1.
    """
    if not len(user_ids) == len(targets) == len(history_lengths_B):
        lengths = (len(user_ids), len(targets), len(history_lengths_B))
        raise DataError(f"evaluation: (users, target lists, history lengths) must agree, got {lengths}")
    head_I = metrics.head_items(items.counts_I, settings.head_share)
    items_BK, listed_B = _read_lists(recommendations, user_ids, items.item_ids, settings.max_k)
    hits = _match(items_BK, targets, head_I)
    segments = _segments(hits, history_lengths_B, settings)
    item_values = _item_values(items.counts_I, head_I)
    values_BQ, counts_BQ = _measure(items_BK, segments, item_values, means(settings))
    with_targets = int(np.count_nonzero(hits.targets_B))
    sums = {
        "users": np.array(len(user_ids), np.int64),
        "users_with_targets": np.array(with_targets, np.int64),
        "users_without_targets": np.array(len(user_ids) - with_targets, np.int64),
        "users_without_list": np.array(len(user_ids) - np.count_nonzero(listed_B), np.int64),
        "value": values_BQ.sum(axis=0),
        "weight": counts_BQ.sum(axis=0),
        "exposure": _exposure(items_BK, settings.k, len(items)),
    }
    return Partial(sums | _replicates(values_BQ, counts_BQ, settings, shard))


def rating_errors(predicted_E: FloatArray | DoubleArray, actual_E: FloatArray | DoubleArray) -> Partial:
    """Squared and absolute errors of E rating predictions, for RMSE and MAE. DataError when a value is not finite."""
    if predicted_E.shape != actual_E.shape or predicted_E.ndim != 1:
        raise DataError(f"evaluation: {predicted_E.shape} predicted and {actual_E.shape} actual ratings")
    errors_E = predicted_E.astype(np.float64) - actual_E.astype(np.float64)
    if not np.isfinite(errors_E).all():
        row = int(np.flatnonzero(~np.isfinite(errors_E))[0])
        raise DataError(f"evaluation: rating {actual_E[row]} was predicted as {predicted_E[row]} (row {row})")
    return Partial(
        {
            "ratings": np.array(len(errors_E), np.int64),
            "squared_error": np.array(errors_E @ errors_E),
            "absolute_error": np.array(np.abs(errors_E).sum()),
        }
    )


def _read_lists(table: pa.Table, user_ids: pa.Array, item_ids: pa.Array, width: int) -> tuple[LongArray, BoolArray]:
    """Item rows by user and rank, up to ``width`` ranks; and which users have any row at all."""
    _no_repeats(_rows_of(user_ids, user_ids, "user"), 1, user_ids, "the shard has it twice")
    rows_E, ranks_E, ids = _entries(table, user_ids, item_ids.type)
    items_E = _rows_of(ids, item_ids, "item")
    # One number for each (user, rank) and each (user, item): what is there twice is listed twice.
    most = int(ranks_E.max(initial=0)) + 1
    _no_repeats(rows_E * most + ranks_E, most, user_ids, "a rank occurs twice")
    _no_repeats(rows_E * len(item_ids) + items_E, len(item_ids), user_ids, "an item occurs twice")
    listed_B = np.zeros(len(user_ids), np.bool_)
    listed_B[rows_E] = True
    # From one row per entry to one row per user: rank r goes to column r - 1, ranks beyond the width are dropped.
    near = ranks_E <= width
    items_BK = np.full((len(user_ids), width), -1, np.int64)
    items_BK[rows_E[near], ranks_E[near] - 1] = items_E[near]
    return items_BK, listed_B


def _entries(table: pa.Table, user_ids: pa.Array, item_type: pa.DataType) -> tuple[LongArray, LongArray, pa.Array]:
    """(user row, rank, outside item id) of every recommendation in a table of either layout."""
    if "rank" in table.schema.names:
        schema.check(table, schema.recommendations(user_ids.type, item_type), "recommendations")
        rows_E = _rows_of(table.column("user_id"), user_ids, "user")
        ranks_E = pc.fill_null(table.column("rank"), 0).to_numpy().astype(np.int64)
        if ranks_E.min(initial=1) < 1:
            raise DataError(f"recommendations: rank {ranks_E.min()} (0: missing) found; ranks count from 1")
        return rows_E, ranks_E, table.column("item_id")
    schema.check(table, schema.nested_recommendations(user_ids.type, item_type), "recommendations")
    rows = _rows_of(table.column("user_id"), user_ids, "user")
    _no_repeats(rows, 1, user_ids, "two rows for one user")
    offsets, item_ids_E = ragged.of_list_array(table.column("item_ids"))
    lengths = np.diff(offsets)
    return np.repeat(rows, lengths), ragged.places_in_rows(lengths) + 1, item_ids_E


def _rows_of(ids: pa.Array | pa.ChunkedArray, known: pa.Array, what: str) -> LongArray:
    """The position of every id among the known ones."""
    positions = pc.index_in(ids, value_set=known)
    if positions.null_count:
        stranger = ids.filter(pc.is_null(positions))[0].as_py()
        place = "shard" if what == "user" else "catalogue"
        raise DataError(f"recommendations: {what} {stranger!r} is not in the {place}; evaluate a run on its own data")
    return np.asarray(positions, np.int64)


def _no_repeats(keys_E: LongArray, divisor: int, user_ids: pa.Array, problem: str) -> None:
    """DataError when a key occurs twice; ``key // divisor`` is the row of the user it belongs to."""
    ordered = np.sort(keys_E)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        user = user_ids[int(repeated[0]) // divisor].as_py()
        raise DataError(f"recommendations: user {user!r}: {problem}; write every user, rank and item once")


def _match(items_BK: LongArray, targets: ItemLists, head_I: BoolArray) -> _Hits:
    """Where the shown items are targets: both as sorted numbers user * I + item."""
    num_users, num_items = len(items_BK), len(head_I)
    outside = (targets.items_E < 0) | (targets.items_E >= num_items)
    if outside.any():
        worst = int(targets.items_E[outside][0])
        raise DataError(f"evaluation: target item row {worst} is outside the catalogue of {num_items} items")
    # E: the distinct targets of all users; a key falls apart into its user and its item again.
    keys_E = np.unique(targets.rows_E.astype(np.int64) * num_items + targets.items_E)
    users_E, items_E = keys_E // num_items, keys_E % num_items
    present_BK = items_BK + num_items * np.arange(num_users)[:, None]
    # A listed item is a target where its key is one of them; unused ranks (-1) would be keys of the user before.
    hits_BK = (items_BK >= 0) & np.isin(present_BK, keys_E)
    return _Hits(
        hits_BK=hits_BK,
        targets_B=np.bincount(users_E, minlength=num_users),
        head_hits_BK=hits_BK & head_I[items_BK],
        head_targets_B=np.bincount(users_E[head_I[items_E]], minlength=num_users),
    )


def _segments(hits: _Hits, history_B: LongArray, settings: EvaluationSettings) -> dict[str, _Segment]:
    """What ranking metrics are taken over, by the name of the segment."""
    some_B = hits.targets_B > 0
    tail_B = hits.targets_B - hits.head_targets_B
    found = {
        EVERYONE: (hits.hits_BK, hits.targets_B, some_B),
        HEAD: (hits.head_hits_BK, hits.head_targets_B, hits.head_targets_B > 0),
        TAIL: (hits.hits_BK & ~hits.head_hits_BK, tail_B, tail_B > 0),
    }
    positions_B = np.searchsorted(np.array(settings.history_edges), history_B, side="right")
    for position, name in enumerate(settings.history_segments):
        found[name] = (hits.hits_BK, hits.targets_B, some_B & (positions_B == position))
    return found


def _item_values(counts_I: LongArray, head_I: BoolArray) -> dict[str, DoubleArray]:
    """What the list metrics average over the items of a list.

    popularity: training interactions (ARP of Abdollahpouri et al. 2019); tail_share: 1 for an item of the tail (their
    APLT); novelty: self-information -log2(count / users), here without the users, an item never seen counted as once.
    """
    return {
        "popularity": counts_I.astype(np.float64),
        "tail_share": 1.0 - head_I,
        "novelty": -np.log2(np.maximum(counts_I, 1)),
    }


def _measure(
    items_BK: LongArray, segments: dict[str, _Segment], item_values: dict[str, DoubleArray], wanted: list[Mean]
) -> tuple[DoubleArray, DoubleArray]:
    """(B, Q) every metric of every user, 0 where the user does not count for it; and 1 where the user does."""
    values_BQ, counts_BQ = np.zeros((2, len(items_BK), len(wanted)))
    for column, mean in enumerate(wanted):
        if mean.metric in metrics.RANKING:
            hits_BK, targets_B, counted_B = segments[mean.segment]
            values_B = metrics.RANKING[mean.metric](hits_BK[counted_B], targets_B[counted_B], mean.k)
        else:
            counted_B = np.asarray((items_BK[:, : mean.k] >= 0).any(axis=1))
            values_B = _list_means(items_BK[counted_B, : mean.k], item_values[mean.metric])
        values_BQ[counted_B, column] = values_B
        counts_BQ[counted_B, column] = 1.0
    return values_BQ, counts_BQ


def _list_means(items_BK: LongArray, values_I: DoubleArray) -> DoubleArray:
    """(B,) the mean value of the items shown; every list has at least one."""
    present_BK = items_BK >= 0
    return np.asarray(np.where(present_BK, values_I[items_BK], 0.0).sum(axis=1) / present_BK.sum(axis=1), np.float64)


def _exposure(items_BK: LongArray, cutoffs: list[int], num_items: int) -> IntArray:
    """(N, I) how many users see each item within each cut-off."""
    tops = (items_BK[:, :k] for k in cutoffs)
    return np.stack([np.bincount(top[top >= 0], minlength=num_items) for top in tops]).astype(np.int32)


def _replicates(
    values_BQ: DoubleArray, counts_BQ: DoubleArray, settings: EvaluationSettings, shard: int
) -> dict[str, DoubleArray]:
    """The sums under the Poisson(1) weights of every replicate, from the random stream of (seed, shard)."""
    if settings.bootstrap == 0:
        return {}
    rng = np.random.default_rng([settings.seed, shard])
    value_AQ, weight_AQ = np.zeros((2, settings.bootstrap, values_BQ.shape[1]))
    for start in range(0, len(values_BQ), BOOTSTRAP_USERS):
        block = slice(start, start + BOOTSTRAP_USERS)
        # Of this block of users: how often each of them counts in each replicate; the product sums over users.
        drawn_AB = rng.poisson(1.0, (settings.bootstrap, len(values_BQ[block]))).astype(np.float64)
        value_AQ += drawn_AB @ values_BQ[block]
        weight_AQ += drawn_AB @ counts_BQ[block]
    return {"replicate_value": value_AQ, "replicate_weight": weight_AQ}
