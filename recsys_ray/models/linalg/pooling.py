"""How a history becomes one vector: what every event counts, by age, place, rating and item, and the weighted sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recsys_ray.base.ragged import offsets
from recsys_ray.base.types import BoolArray, DoubleArray, FloatArray, Histories, IntArray, LongArray, Settings
from recsys_ray.data.features import MILLISECONDS_PER_DAY
from recsys_ray.models.base import Weighting, history_rows
from recsys_ray.models.linalg.sparse import SparseRows, add_dense_rows
from recsys_ray.models.scorers.base import with_length_power

if TYPE_CHECKING:
    import scipy.sparse as sp


ASKED = 256  # items of a history that are left out at a time


@dataclass(frozen=True, slots=True)
class Pooling:
    """How much every event counts in the mean over a history."""

    limit: int | None
    half_life_days: float | None
    rating_weight: Literal["none", "rating"]

    def weights(self, histories: Histories, weights_I: FloatArray) -> FloatArray:
        """(E,) the item's own weight times that of its age and rating; 0 beyond the newest ``limit`` that have one."""
        limit = histories.num_interactions if self.limit is None else self.limit
        weights_E = is_recent(histories, weights_I > 0, limit) * age_weights(histories, self.half_life_days)
        weights_E = weights_E * weights_I[histories.items_E]
        if self.rating_weight == "rating":
            weights_E = weights_E * histories.ratings_E
        return weights_E.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Recent:
    """What a user did last, beside all that is known of the user: a direction among the item vectors.

    An event with k later ones on known items counts (1 + k)^-``power``; it needs no timestamps.
    """

    weight: float = 0.0
    power: float = 0.0

    def added(
        self, queries_BD: FloatArray, histories: Histories, items_ID: FloatArray, known_I: BoolArray
    ) -> FloatArray:
        """(B, D) each query, plus the sum of the unit item vectors brought to ``weight`` times the query's length."""
        if self.weight == 0:
            return queries_BD
        # R: the items that occur, each once; the lengths of their vectors are taken once, and looked up by event.
        items_R, places_E = np.unique(histories.items_E, return_inverse=True)
        lengths_R = np.maximum(np.linalg.norm(items_ID[items_R], axis=1), np.finfo(np.float32).tiny)
        weights_E = place_weights(histories, known_I, self.power) / lengths_R[places_E]
        recent_BD = weighted_sums(histories, weights_E, items_ID)
        lengths_B = np.linalg.norm(queries_BD, axis=1, keepdims=True) * np.float32(self.weight)
        added_BD: FloatArray = queries_BD + lengths_B * with_length_power(recent_BD, 0)
        return added_BD


@dataclass(frozen=True, slots=True)
class EventWeights:
    """What an event counts in a sum over a history: 1 or its rating, less with its age, more when it is recent.

    An event with k later ones on known items counts ``decay``^k. ``recent`` then adds the last events: their weights
    (1 + k)^-power as one vector over the items, brought to ``recent.weight`` times the length of what there was. A
    repeated item adds up, except that plain events (no rating, no decay) count an item once.
    """

    weighting: Weighting = "binary"
    decay: float = 1.0
    recent: Recent = Recent()

    def rows(self, histories: Histories, known_I: BoolArray) -> SparseRows:
        """(B, I) a history as the models read it, each item once, in item order."""
        if self.decay == 1.0 and self.recent.weight == 0:
            return history_rows(histories, len(known_I), self.weighting)
        known = histories.only(known_I[histories.items_E])
        values_E = None if self.weighting == "binary" else known.ratings_E.astype(np.float64)
        if self.decay != 1.0:
            decay_E: DoubleArray = self.decay ** _later(known, known_I).astype(np.float64)
            values_E = decay_E if values_E is None else values_E * decay_E
        matrix = known.matrix(len(known_I), None if values_E is None else values_E.astype(np.float32))
        if self.recent.weight:
            recent = known.matrix(len(known_I), place_weights(known, known_I, self.recent.power).astype(np.float32))
            shares_B = self.recent.weight * _lengths(matrix) / np.maximum(_lengths(recent), np.finfo(np.float32).tiny)
            recent.data *= np.repeat(shares_B.astype(np.float32), np.diff(recent.indptr))
            matrix = (matrix + recent).tocsr()
        return SparseRows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)

    def losses(
        self, history: Histories, known_I: BoolArray, values_of: Callable[[IntArray], DoubleArray]
    ) -> tuple[IntArray, DoubleArray]:
        """(H,) distinct items of one history, and (H, K) how much lower the sum of ``values_of(items)`` (H, K) would be
        without each. Where events count by their age, the older ones gain when a newer one is gone."""
        rows = self.rows(history, known_I)
        items_H, values_HK = rows.columns, values_of(rows.columns)
        if self.decay == 1.0 and self.recent.weight == 0:
            return items_H, rows.values[:, None] * values_HK
        losses_HK = np.empty(values_HK.shape)
        places_I = np.zeros(len(known_I), np.int64)
        places_I[items_H] = np.arange(len(items_H))
        for start in range(0, len(items_H), ASKED):
            gone_R = items_H[start : start + ASKED]
            left = self.rows(_without_each(history, gone_R), known_I)
            changes_RH = np.repeat(rows.values[None, :].astype(np.float64), len(gone_R), axis=0)
            changes_RH[np.repeat(np.arange(len(gone_R)), np.diff(left.offsets)), places_I[left.columns]] -= left.values
            losses_HK[start : start + ASKED] = changes_RH @ values_HK
        return items_H, losses_HK

    def to_json(self) -> dict[str, Any]:
        """The settings that ``from_json`` reads; without age and recent events, as earlier versions wrote them."""
        found: dict[str, Any] = {"weighting": self.weighting}
        if self.decay != 1.0:
            found["decay"] = self.decay
        return found | ({"recent": asdict(self.recent)} if self.recent.weight else {})

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> EventWeights:
        recent = Recent(**settings.get("recent", {}))
        return cls(weighting=settings["weighting"], decay=settings.get("decay", 1.0), recent=recent)


class RecentSettings(Settings):
    recent_weight: float = Field(default=0.0, ge=0)
    """How much the direction of the last events counts in a query, beside 1 for what the model knows of the user."""
    recent_power: float = Field(default=2.0, ge=0)
    """An event with k later ones in its history weighs (1 + k)^-power in that direction."""

    @property
    def recent(self) -> Recent:
        return Recent(self.recent_weight, self.recent_power)


def age_weights(histories: Histories, half_life_days: float | None) -> DoubleArray:
    """(E,) weights that halve with every half-life by which an event is older than the last of its history."""
    if half_life_days is None:
        return np.ones(histories.num_interactions)
    times_E = histories.timestamps_E
    last_E = np.repeat(times_E[histories.offsets_B1[1:] - 1], histories.lengths_B) if len(times_E) else times_E
    weights_E: DoubleArray = 0.5 ** ((last_E - times_E) / MILLISECONDS_PER_DAY / half_life_days)
    return weights_E


def place_weights(histories: Histories, known_I: BoolArray, power: float) -> DoubleArray:
    """(E,) (1 + the number of later events)^-power, of the events on known items; 0 for the others. Needs no times."""
    decay_E: DoubleArray = np.power(1.0 + _later(histories, known_I), -power)
    return decay_E * known_I[histories.items_E]


def is_recent(histories: Histories, known_I: BoolArray, most: int) -> BoolArray:
    """(E,) which events are among the last ``most`` on known items of their history."""
    recent_E: BoolArray = known_I[histories.items_E] & (_later(histories, known_I) < most)
    return recent_E


def last_events(histories: Histories, known_I: BoolArray, most: int) -> Histories:
    """Of every history the last ``most`` events on known items."""
    return histories.only(is_recent(histories, known_I, most))


def weighted_sums(histories: Histories, weights_E: npt.NDArray[np.floating], vectors_ID: FloatArray) -> FloatArray:
    """(B, D) the sum of weight times item vector over every history."""
    sums_BD = np.zeros((len(histories), vectors_ID.shape[1]), np.float32)
    rows = SparseRows(histories.offsets_B1, histories.items_E, weights_E.astype(np.float32))
    add_dense_rows(rows, vectors_ID, sums_BD)
    return sums_BD


def _later(histories: Histories, known_I: BoolArray) -> LongArray:
    """(E,) how many events on known items come after an event in its history."""
    # Known events up to and with each event, counted through all histories; then those up to its history's end.
    so_far_E = offsets(known_I[histories.items_E])
    later_E: LongArray = np.repeat(so_far_E[histories.offsets_B1[1:]], histories.lengths_B) - so_far_E[1:]
    return later_E


def _lengths(rows_BI: sp.csr_matrix) -> DoubleArray:
    """(B,) of each row as a vector."""
    squares_B = np.add.reduceat(np.append(rows_BI.data.astype(np.float64) ** 2, 0), rows_BI.indptr[:-1])
    return np.sqrt(np.where(np.diff(rows_BI.indptr) > 0, squares_B, 0))


def _without_each(history: Histories, items_R: IntArray) -> Histories:
    """As many histories as items: the one given, without the events on each."""
    kept_RE = history.items_E != items_R[:, None]
    columns = (history.items_E, history.ratings_E, history.timestamps_E)
    return Histories(
        offsets(kept_RE.sum(axis=1)), *(np.broadcast_to(values, kept_RE.shape)[kept_RE] for values in columns)
    )
