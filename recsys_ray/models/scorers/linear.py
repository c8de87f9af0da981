"""The finished models: a few general ways to score, whatever algorithm they were fitted by.

FactorScorer      query . item + bias; a known user's query is stored, an unknown one's is solved from the history
LowRankScorer     query = history x V, score = query . V'
LinearScorer      history x W, W dense or sparse
PopularityScorer  the same score for everybody

Arrays may be read-only memory maps shared by many processes: they are never written to and never copied whole.

Where there are item vectors, ``with_items`` gives the same scorer with others in their place.

Shape suffixes: B rows of a batch, R items asked about, U users, I items, D dimension, K columns of a map, E events of a
batch, N stored non-zeros of W.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from recsys_ray.base.types import (
    BoolArray,
    Factors,
    FloatArray,
    Histories,
    IntArray,
    LongArray,
    Requests,
    ScorerState,
)
from recsys_ray.models.base import history_rows
from recsys_ray.models.linalg.least_squares import solve_rows
from recsys_ray.models.linalg.sparse import SparseRows, add_dense_rows, add_sparse_rows
from recsys_ray.models.scorers.base import NO_OPINION, KnowingScorer, VectorScorer, comparable, has_stored_row

Weighting = Literal["binary", "rating"]
SPARSE_NAMES = ("offsets", "columns", "values")


@dataclass(frozen=True, slots=True)
class FoldIn:
    """How a query is solved from a history of H events: weighted least squares against the item vectors, with ridge
    ``regularization * (H + frequency_offset) ^ frequency_power``."""

    targets: Literal["ones", "residuals"]
    """What an event should score: 1, or its rating less the item's bias."""
    weighting: Weighting
    """What an event counts: 1, or its rating. Events of no positive weight count nothing."""
    regularization: float
    frequency_offset: float
    frequency_power: float


class FactorScorer(VectorScorer):
    """``query . item + bias`` with stored queries of known users and a fold-in for the others.

    A request is answered from its stored row when ``users_B`` names a user with training history, else from
    the history it carries.

    Args:
        users_UD: queries of the fit's users. known_U: users with training history; rows of the others are not used.
        items_ID: item vectors. trained_I: items with training interactions. fold_in: the least squares problem that
        gives an unknown user's query. penalty_D: its penalty per dimension, the same for every user (the items'
        weighted Gram matrix, diagonal by rotation). bias_I: added to every query's scores.
    """

    def __init__(
        self,
        *,
        users_UD: FloatArray,
        known_U: BoolArray,
        items_ID: FloatArray,
        trained_I: BoolArray,
        fold_in: FoldIn,
        penalty_D: FloatArray,
        bias_I: FloatArray | None = None,
    ) -> None:
        assert users_UD.shape[1] == items_ID.shape[1] == len(penalty_D)
        self.users_UD = users_UD
        self.known_U = known_U
        self.items_ID = items_ID
        self.scorable_I = trained_I
        self.fold_in = fold_in
        self.penalty_D = penalty_D
        self.bias_I = bias_I

    def factors(self, requests: Requests) -> Factors:
        return Factors(self.queries(requests), self.items_ID, self.bias_I)

    def queries(self, requests: Requests) -> FloatArray:
        """(B, D) stored or solved."""
        stored_B = has_stored_row(requests, self.known_U)
        queries_BD = np.zeros((len(requests), self.items_ID.shape[1]), np.float32)
        queries_BD[stored_B] = self.users_UD[requests.users_B[stored_B]]
        if not stored_B.all():
            folded_BD = self.solve(requests.histories)
            queries_BD[~stored_B] = folded_BD[~stored_B]
        return queries_BD

    def solve(self, histories: Histories) -> FloatArray:
        """(B, D) the queries of these histories alone; zero where there is no item of the fit."""
        rows = history_rows(histories, self.num_items, self.fold_in.weighting)
        if self.fold_in.targets == "residuals":
            ratings = history_rows(histories, self.num_items, "rating")
            repeats = histories.matrix(self.num_items, np.ones(histories.num_interactions, np.float32))
            targets_E = ratings.values / repeats.data - self._bias_of(rows.columns)
        else:
            targets_E = np.ones(len(rows.columns), np.float32)
        offsets_B1, keep_E = _useful(rows, self.scorable_I)
        ridge_B = self.fold_in.regularization * (
            (np.diff(offsets_B1) + self.fold_in.frequency_offset) ** self.fold_in.frequency_power
        )
        return solve_rows(
            offsets_B1,
            rows.columns[keep_E],
            rows.values[keep_E],
            targets_E[keep_E].astype(np.float32),
            self.items_ID,
            self.penalty_D,
            ridge_B.astype(np.float32),
        )

    def with_items(self, items_ID: FloatArray, bias_I: FloatArray | None) -> Self:
        changed = super().with_items(items_ID, None)
        changed.bias_I = bias_I
        return changed

    def _bias_of(self, items_E: IntArray) -> FloatArray:
        return np.zeros(len(items_E), np.float32) if self.bias_I is None else self.bias_I[items_E]

    def state(self) -> ScorerState:
        arrays: dict[str, Any] = {
            "users": self.users_UD,
            "known": self.known_U,
            "items": self.items_ID,
            "trained": self.scorable_I,
            "penalty": self.penalty_D,
        }
        if self.bias_I is not None:
            arrays["bias"] = self.bias_I
        return ScorerState(arrays, asdict(self.fold_in))

    @classmethod
    def from_state(cls, state: ScorerState) -> FactorScorer:
        arrays = state.arrays
        return cls(
            users_UD=arrays["users"],
            known_U=arrays["known"],
            items_ID=arrays["items"],
            trained_I=arrays["trained"],
            fold_in=FoldIn(**state.settings),
            penalty_D=arrays["penalty"],
            bias_I=arrays.get("bias"),
        )


def _useful(rows: SparseRows, trained_I: BoolArray) -> tuple[LongArray, BoolArray]:
    """Which events teach something, and the row offsets when only those are kept."""
    keep_E = trained_I[rows.columns] & (rows.values > 0)
    return np.concatenate([[0], np.cumsum(keep_E)])[rows.offsets].astype(np.int64), keep_E


class LowRankScorer(VectorScorer):
    """``history x V x V'``, handed out as two factors. Known and unknown users alike are scored from their history."""

    def __init__(self, *, items_ID: FloatArray, trained_I: BoolArray, weighting: Weighting) -> None:
        self.items_ID = items_ID
        self.scorable_I = trained_I
        self.weighting: Weighting = weighting

    def factors(self, requests: Requests) -> Factors:
        rows = history_rows(requests.histories, self.num_items, self.weighting)
        queries_BD = np.zeros((len(requests), self.items_ID.shape[1]), np.float32)
        add_dense_rows(rows, self.items_ID, queries_BD)
        return Factors(queries_BD, self.items_ID)

    def state(self) -> ScorerState:
        return ScorerState({"items": self.items_ID, "trained": self.scorable_I}, {"weighting": self.weighting})

    @classmethod
    def from_state(cls, state: ScorerState) -> LowRankScorer:
        arrays = state.arrays
        return cls(items_ID=arrays["items"], trained_I=arrays["trained"], weighting=state.settings["weighting"])


class LinearScorer(KnowingScorer):
    """``history x W``; row i of W is what one event on item i adds to the score of every item.

    With a sparse W a pair that no event of the history has an entry for scores -inf: no opinion. Known and unknown
    users alike are scored from their history.

    Args:
        weights: (I, I) float32, a C-ordered array or sparse rows. trained_I: items with training interactions.
        weighting: what an event of the history counts.
    """

    def __init__(self, *, weights: FloatArray | SparseRows, trained_I: BoolArray, weighting: Weighting) -> None:
        self.weights = weights
        self.scorable_I = trained_I
        self.weighting: Weighting = weighting

    def factors(self, requests: Requests) -> None:
        return None

    def score(self, requests: Requests) -> FloatArray:
        return self._score(requests.histories)

    def _score(self, histories: Histories) -> FloatArray:
        if not isinstance(self.weights, SparseRows):
            return self.add_up(histories, self.weights)
        scores_BI = np.full((len(histories), self.num_items), NO_OPINION, np.float32)
        add_sparse_rows(history_rows(histories, self.num_items, self.weighting), self.weights, scores_BI)
        return scores_BI

    def similar(self, items_R: IntArray) -> FloatArray:
        one_each = Histories.from_lists([[int(item)] for item in items_R])
        return comparable(self._score(one_each), items_R, self.scorable_I)

    def through(self, map_IK: FloatArray) -> FloatArray:
        """(I, K) ``W @ map``, a pair without an entry being 0: what one event adds to the image of the scores."""
        if not isinstance(self.weights, SparseRows):
            return self.weights @ map_IK
        image_IK = np.zeros(map_IK.shape, np.float32)
        add_dense_rows(self.weights, map_IK, image_IK)
        return image_IK

    def add_up(self, histories: Histories, rows_IK: FloatArray) -> FloatArray:
        """(B, K) the sum over a history of the rows of its items, each event counting as it does in the scores."""
        sums_BK = np.zeros((len(histories), rows_IK.shape[1]), np.float32)
        add_dense_rows(history_rows(histories, self.num_items, self.weighting), rows_IK, sums_BK)
        return sums_BK

    def state(self) -> ScorerState:
        arrays: dict[str, Any] = {"trained": self.scorable_I}
        if isinstance(self.weights, SparseRows):
            arrays |= {name: getattr(self.weights, name) for name in SPARSE_NAMES}
        else:
            arrays["weights"] = self.weights
        return ScorerState(arrays, {"weighting": self.weighting})

    @classmethod
    def from_state(cls, state: ScorerState) -> LinearScorer:
        arrays = state.arrays
        trained_I = arrays["trained"]
        weights = arrays["weights"] if "weights" in arrays else SparseRows(*(arrays[name] for name in SPARSE_NAMES))
        return cls(weights=weights, trained_I=trained_I, weighting=state.settings["weighting"])


class PopularityScorer:
    """The same score for everybody: factors without dimensions, only a bias.

    Ranks every item and answers every request.
    """

    def __init__(self, *, scores_I: FloatArray) -> None:
        self.scores_I = scores_I
        self._nothing_I0 = np.zeros((len(scores_I), 0), np.float32)

    @property
    def num_items(self) -> int:
        return len(self.scores_I)

    @property
    def scorable_I(self) -> BoolArray:
        return np.ones(self.num_items, np.bool_)

    def answers(self, requests: Requests) -> BoolArray:
        return np.ones(len(requests), np.bool_)

    def factors(self, requests: Requests) -> Factors:
        return Factors(np.zeros((len(requests), 0), np.float32), self._nothing_I0, self.scores_I)

    def score(self, requests: Requests) -> FloatArray:
        return np.repeat(self.scores_I[None, :], len(requests), axis=0)

    def similar(self, items_R: IntArray) -> FloatArray:
        return np.full((len(items_R), self.num_items), NO_OPINION, np.float32)

    def with_items(self, items_ID: FloatArray, bias_I: FloatArray | None) -> PopularityScorer:
        assert bias_I is not None
        return PopularityScorer(scores_I=bias_I)

    def state(self) -> ScorerState:
        return ScorerState({"scores": self.scores_I})

    @classmethod
    def from_state(cls, state: ScorerState) -> PopularityScorer:
        return cls(scores_I=state.arrays["scores"])
