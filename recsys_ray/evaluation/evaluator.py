"""Compares the written recommendations of one shard of users with what these users did next.

E are rows of a table or entries of all lists end to end, Q the means that are taken, A the bootstrap replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from recsys_ray.base import ragged
from recsys_ray.base.errors import ConfigError, DataError
from recsys_ray.base.types import BoolArray, DoubleArray, FloatArray, IntArray, ItemLists, LongArray
from recsys_ray.evaluation import metrics
from recsys_ray.evaluation.config import EvaluationSettings
from recsys_ray.evaluation.lists import read_lists
from recsys_ray.evaluation.report import (
    AUC,
    DIVERSITY,
    EVERYONE,
    HEAD,
    RATED_PRECISION,
    TAIL,
    Mean,
    Partial,
    genre_segment,
    means,
)

# Users that get their bootstrap weights together: bounds the (A, users) matrix to a few megabytes.
BOOTSTRAP_USERS = 1024


# (hits_BK, targets_B, counted_B): where the lists are right, of how many, and for which users it counts.
_Segment = tuple[BoolArray, LongArray, BoolArray]


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """``item_ids`` in vocabulary order, (I,) how often each occurs in the training interactions, and its genres."""

    item_ids: pa.Array
    counts_I: LongArray
    genres: ItemLists | None = None
    """Numbers of genres of every item; None where the catalogue has none."""
    genre_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        assert len(self.item_ids) == len(self.counts_I)

    def __len__(self) -> int:
        return len(self.counts_I)

    def of_genre(self, name: str) -> BoolArray:
        """(I,) the items that have a genre. ConfigError when no item could."""
        if self.genres is None or name not in self.genre_names:
            known = ", ".join(sorted(self.genre_names)) or "none"
            raise ConfigError(f"evaluation.genres: no genre {name!r} in the catalogue; it has {known}")
        return self.genres.per_row(self.genres.items_E == self.genre_names.index(name)) > 0

    def genre_units(self) -> DoubleArray:
        """(I, G) genres as vectors of length 1, zeros for an item without any."""
        if self.genres is None or not self.genre_names:
            return np.zeros((len(self), 0))
        units_IG = np.zeros((len(self), len(self.genre_names)))
        units_IG[self.genres.rows_E, self.genres.items_E] = 1.0
        return units_IG / np.sqrt(np.maximum(self.genres.lengths_B, 1))[:, None]


UserValues = Mapping[str, DoubleArray]
"""By the name of a metric ("auc", "rated_precision@5"), (B,) a value a user, NaN for a user who does not count."""


@dataclass(frozen=True, slots=True)
class _Hits:
    """Which shown items are targets, and the distinct targets of every user with what each gains."""

    items_BK: LongArray
    hits_BK: BoolArray
    targets: ItemLists
    gains_BK: DoubleArray
    gains_E: DoubleArray

    def among(self, items_I: BoolArray) -> _Segment:
        """The same with only some items as targets."""
        targets_B = self.targets.per_row(items_I[self.targets.items_E])
        return self.hits_BK & items_I[self.items_BK], targets_B, targets_B > 0


def evaluate_part(
    recommendations: pa.Table,
    user_ids: pa.Array,
    targets: ItemLists,
    history_lengths_B: LongArray,
    items: ItemCounts,
    settings: EvaluationSettings,
    shard: int,
    *,
    ratings_E: FloatArray | None = None,
    scored: UserValues | None = None,
    seen: ItemLists | None = None,
) -> Partial:
    """The contribution of one shard.

    ``recommendations`` is the written table of this shard, long or nested (``schema.py``), in any row order;
    ``user_ids``, ``targets`` (item rows) and ``history_lengths_B`` (interactions the model knew) are parallel.
    A user without targets counts for what the lists show, not for how well they rank; a user without a list counts as
    a miss. A target that is listed twice is one target. ``shard`` numbers the bootstrap's random stream. ``ratings_E``
    are the ratings of the targets, for the graded NDCG; ``scored`` what only the model's scores can tell. ``seen``
    is what the lists leave out because the user has it, None where they don't: no list can hold such a target, so it
    counts for no metric and is counted itself.

    Raises DataError for an unknown user or item, a user, rank or item that occurs twice, and ranks below 1.
    """
    if not len(user_ids) == len(targets) == len(history_lengths_B):
        lengths = (len(user_ids), len(targets), len(history_lengths_B))
        raise DataError(f"evaluation: (users, target lists, history lengths) must agree, got {lengths}")
    items_BK, listed_B = read_lists(recommendations, user_ids, items.item_ids, settings.max_k)
    _check_rows(targets, len(items))
    had_E = _among(targets, seen, len(items))
    hits = _match(items_BK, targets.only(~had_E), None if ratings_E is None else ratings_E[~had_E], len(items))
    found = _Values(hits, items, _segments(hits, history_lengths_B, items, settings), settings, scored or {})
    values_BQ = np.stack([found.of(mean) for mean in means(settings)], axis=1)
    counts_BQ = (~np.isnan(values_BQ)).astype(np.float64)
    values_BQ = np.nan_to_num(values_BQ, nan=0.0)
    with_targets = int(np.count_nonzero(hits.targets.lengths_B))
    sums = {
        "users": np.array(len(user_ids), np.int64),
        "users_with_targets": np.array(with_targets, np.int64),
        "users_without_targets": np.array(len(user_ids) - with_targets, np.int64),
        "users_without_list": np.array(len(user_ids) - np.count_nonzero(listed_B), np.int64),
        "targets_seen": np.array(np.count_nonzero(had_E), np.int64),
        "value": values_BQ.sum(axis=0),
        "weight": counts_BQ.sum(axis=0),
        "exposure": _exposure(items_BK, settings.k, len(items)),
    }
    return Partial(sums | _replicates(values_BQ, counts_BQ, settings, shard))


def rating_errors(
    predicted_E: FloatArray | DoubleArray, actual_E: FloatArray | DoubleArray, unpredicted: int = 0
) -> Partial:
    """Squared and absolute errors of E rating predictions, for RMSE and MAE, and how many ratings had no prediction.

    DataError when a value is not finite.
    """
    if predicted_E.shape != actual_E.shape or predicted_E.ndim != 1:
        raise DataError(f"evaluation: {predicted_E.shape} predicted and {actual_E.shape} actual ratings")
    errors_E = predicted_E.astype(np.float64) - actual_E.astype(np.float64)
    if not np.isfinite(errors_E).all():
        row = int(np.flatnonzero(~np.isfinite(errors_E))[0])
        raise DataError(f"evaluation: rating {actual_E[row]} was predicted as {predicted_E[row]} (row {row})")
    return Partial(
        {
            "ratings": np.array(len(errors_E), np.int64),
            "ratings_unpredicted": np.array(unpredicted, np.int64),
            "squared_error": np.array(errors_E @ errors_E),
            "absolute_error": np.array(np.abs(errors_E).sum()),
        }
    )


def _check_rows(targets: ItemLists, num_items: int) -> None:
    outside = (targets.items_E < 0) | (targets.items_E >= num_items)
    if outside.any():
        worst = int(targets.items_E[outside][0])
        raise DataError(f"evaluation: target item row {worst} is outside the catalogue of {num_items} items")


def _keys(lists: ItemLists, num_items: int) -> LongArray:
    """(E,) a number for every pair of a user and an item."""
    return lists.rows_E.astype(np.int64) * num_items + lists.items_E


def _among(targets: ItemLists, seen: ItemLists | None, num_items: int) -> BoolArray:
    """(E,) targets that the same user has seen."""
    if seen is None:
        return np.zeros(len(targets.items_E), np.bool_)
    return np.isin(_keys(targets, num_items), _keys(seen, num_items))


def _match(items_BK: LongArray, targets: ItemLists, ratings_E: FloatArray | None, num_items: int) -> _Hits:
    """Where the shown items are targets: both as sorted numbers user * I + item."""
    num_users = len(items_BK)
    # The distinct targets of all users; a key falls apart into its user and its item again, and gains its best rating.
    keys, place_E = np.unique(_keys(targets, num_items), return_inverse=True)
    gains = np.zeros(len(keys))
    np.maximum.at(gains, place_E, 0.0 if ratings_E is None else ratings_E.astype(np.float64))
    lengths_B = np.bincount(keys // num_items, minlength=num_users)
    distinct = ItemLists(ragged.offsets(lengths_B), (keys % num_items).astype(np.int32))
    present_BK = items_BK + num_items * np.arange(num_users)[:, None]
    # A listed item is a target where its key is one of them; unused ranks (-1) would be keys of the user before.
    place_BK = np.minimum(np.searchsorted(keys, present_BK), max(0, len(keys) - 1))
    hits_BK = (items_BK >= 0) & (keys[place_BK] == present_BK) if len(keys) else np.zeros(items_BK.shape, np.bool_)
    gains_BK = np.where(hits_BK, gains[place_BK], 0.0) if len(keys) else np.zeros(items_BK.shape)
    return _Hits(items_BK, hits_BK, distinct, gains_BK, gains)


def _segments(
    hits: _Hits, history_B: LongArray, items: ItemCounts, settings: EvaluationSettings
) -> dict[str, _Segment]:
    """What ranking metrics are taken over, by the name of the segment."""
    head_I = metrics.head_items(items.counts_I, settings.head_share)
    targets_B = hits.targets.lengths_B
    found = {
        EVERYONE: (hits.hits_BK, targets_B, targets_B > 0),
        HEAD: hits.among(head_I),
        TAIL: hits.among(~head_I),
    }
    found |= {genre_segment(genre): hits.among(items.of_genre(genre)) for genre in settings.genres}
    positions_B = np.searchsorted(np.array(settings.history_edges), history_B, side="right")
    for position, name in enumerate(settings.history_segments):
        found[name] = (hits.hits_BK, targets_B, (targets_B > 0) & (positions_B == position))
    return found


@dataclass(frozen=True)
class _Values:
    """Every metric of every user of a shard."""

    hits: _Hits
    items: ItemCounts
    segments: dict[str, _Segment]
    settings: EvaluationSettings
    scored: UserValues

    def of(self, mean: Mean) -> DoubleArray:
        """(B,) the values, NaN for users who do not count."""
        if mean.metric in metrics.RANKING:
            hits_BK, targets_B, counted_B = self.segments[mean.segment]
            values_B = np.full(len(hits_BK), np.nan)
            values_B[counted_B] = metrics.RANKING[mean.metric](hits_BK[counted_B], targets_B[counted_B], mean.k)
            return values_B
        if mean.metric in self._list_values:
            return _list_means(self.hits.items_BK[:, : mean.k], self._list_values[mean.metric])
        return self._other[mean.metric](mean)

    @cached_property
    def _other(self) -> dict[str, Callable[[Mean], DoubleArray]]:
        nobody_B = np.full(len(self.hits.items_BK), np.nan)
        scored = {name: lambda mean: self.scored.get(mean.name, nobody_B) for name in (AUC, RATED_PRECISION)}
        return scored | {
            "graded_ndcg": self._graded_ndcg,
            "serendipity": self._serendipity,
            DIVERSITY: lambda mean: metrics.intra_list_diversity(self.hits.items_BK, self._genre_units, mean.k),
        }

    def _graded_ndcg(self, mean: Mean) -> DoubleArray:
        return metrics.graded_ndcg(self.hits.gains_BK, self.hits.targets, self.hits.gains_E, mean.k)

    def _serendipity(self, mean: Mean) -> DoubleArray:
        values_B = metrics.serendipity(self.hits.hits_BK, self.hits.items_BK, self._popularity_ranks, mean.k)
        return np.where(self.hits.targets.lengths_B > 0, values_B, np.nan)

    @cached_property
    def _genre_units(self) -> DoubleArray:
        return self.items.genre_units()

    @cached_property
    def _popularity_ranks(self) -> LongArray:
        return metrics.popularity_ranks(self.items.counts_I)

    @cached_property
    def _list_values(self) -> dict[str, DoubleArray]:
        """What the list metrics average over the items of a list.

        popularity: training interactions (ARP of Abdollahpouri et al. 2019); tail_share: 1 for an item of the tail
        (their APLT); novelty: self-information -log2(count / users), here without the users, an item never seen counted
        as once.
        """
        counts_I = self.items.counts_I
        return {
            "popularity": counts_I.astype(np.float64),
            "tail_share": 1.0 - metrics.head_items(counts_I, self.settings.head_share),
            "novelty": -np.log2(np.maximum(counts_I, 1)),
        }


def _list_means(items_BK: LongArray, values_I: DoubleArray) -> DoubleArray:
    """(B,) the mean value of the items shown; NaN for an empty list."""
    present_BK = items_BK >= 0
    shown_B = present_BK.sum(axis=1).astype(np.float64)
    sums_B = np.where(present_BK, values_I[items_BK], 0.0).sum(axis=1)
    return metrics.ratio(sums_B, shown_B)


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
