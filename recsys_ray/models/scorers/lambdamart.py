"""A scorer in two stages: several models name candidates, gradient-boosted trees rank them.

M are the members, P the candidates of several requests end to end, F the features of one.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from recsys_ray.base.optional import require
from recsys_ray.base.types import (
    ByteArray,
    DoubleArray,
    FloatArray,
    Histories,
    IntArray,
    Requests,
    Scorer,
    ScorerState,
)
from recsys_ray.data.attributes import AttributeEncoder
from recsys_ray.data.features import HISTORY_FEATURES, HistorySums
from recsys_ray.models.scorers.base import NO_OPINION
from recsys_ray.models.scorers.blend import BlendScorer, Scaled, scale

BLOCK = 256
"""Requests that are ranked at once."""


class PairFeatures:
    """What is said of a user and a candidate, beside what the members say.

    Args:
        items_IF: of every item, named ``item_names``. genres_IG: 1 where an item is of a genre. now: the newest moment
        of the fit, in UTC milliseconds. attributes: of the table of users; None without.
    """

    def __init__(
        self,
        *,
        items_IF: FloatArray,
        item_names: list[str],
        genres_IG: FloatArray,
        now: float,
        attributes: AttributeEncoder | None = None,
    ) -> None:
        self.items_IF, self.item_names = items_IF, item_names
        self.genres_IG, self.now = genres_IG, now
        self.attributes = attributes

    @property
    def names(self) -> list[str]:
        known = [] if self.attributes is None else [f"attribute_{place}" for place in range(len(self.attributes.names))]
        users = [*(f"user_{name}" for name in HISTORY_FEATURES), *known]
        return [*self.item_names, *users, "genre_share", "genre_unseen"]

    def of(self, requests: Requests, rows_P: IntArray, items_P: IntArray) -> FloatArray:
        """(P, F) of candidates ``items_P``, each for the request in row ``rows_P``."""
        user_BF = HistorySums.of(requests.histories, self.genres_IG).features(self.now)
        numbers, shares_BG = user_BF[:, : len(HISTORY_FEATURES)], user_BF[:, len(HISTORY_FEATURES) :]
        genres_PG = self.genres_IG[items_P]
        share_P = np.einsum("pg,pg->p", shares_BG[rows_P], genres_PG)
        unseen_P = np.einsum("pg,pg->p", (shares_BG == 0).astype(np.float32)[rows_P], genres_PG)
        if self.attributes is not None:
            numbers = np.concatenate([numbers, self.attributes.encode(requests.attributes, len(requests))], axis=1)
        columns = (self.items_IF[items_P], numbers[rows_P], share_P[:, None], unseen_P[:, None])
        return np.concatenate(columns, axis=1).astype(np.float32)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(arrays, settings)"""
        arrays = {"item_features": self.items_IF} | ({"genres": self.genres_IG} if self.genres_IG.shape[1] else {})
        known = {} if self.attributes is None else {"attributes": self.attributes.to_json()}
        return arrays, {"names": self.item_names, "now": self.now} | known


class Candidates:
    """The best items of every member for B requests, and what all of them say of each.

    ``rows_P`` and ``items_P`` name them, request by request, items ascending. What stands in a history is none.
    """

    def __init__(self, members: list[Scorer], requests: Requests, each: int) -> None:
        self.scaled = [scale(member, requests, "weighted", 0.0) for member in members]
        histories = requests.histories
        chosen_BI = np.zeros(self.scaled[0].values_BI.shape, np.bool_)
        for part in self.scaled:
            values_BI = np.where(part.known_BI, part.values_BI, -np.inf)
            values_BI[histories.rows_E, histories.items_E] = -np.inf
            width = min(each, values_BI.shape[1])
            top_BK = np.argpartition(-values_BI, width - 1, axis=1)[:, :width]
            real_BK = np.isfinite(np.take_along_axis(values_BI, top_BK, axis=1))
            rows = np.broadcast_to(np.arange(len(top_BK))[:, None], top_BK.shape)
            chosen_BI[rows[real_BK], top_BK[real_BK]] = True
        rows, items = np.nonzero(chosen_BI)
        self.rows_P, self.items_P = rows.astype(np.int32), items.astype(np.int32)

    def opinions(self) -> FloatArray:
        """(P, 2 M) each member's standardised score, and the share of the request's candidates that it puts before;
        NaN where it has no opinion."""
        columns = []
        for part in self.scaled:
            known_P = part.known_BI[self.rows_P, self.items_P]
            score_P = np.where(known_P, part.values_BI[self.rows_P, self.items_P], np.float32(np.nan))
            columns += [score_P, self._places(score_P)]
        return np.stack(columns, axis=1).astype(np.float32)

    def _places(self, score_P: FloatArray) -> FloatArray:
        """(P,) 1 / (rank among the candidates of the request), the best being 1; of equals the lower item."""
        filled_P = np.where(np.isnan(score_P), -np.inf, score_P)
        order_P = np.lexsort((self.items_P, -filled_P, self.rows_P))
        first_B = np.searchsorted(self.rows_P, np.arange(len(self.scaled[0].values_BI)))
        place_P = np.empty(len(score_P), np.float32)
        place_P[order_P] = np.arange(len(score_P)) - first_B[self.rows_P[order_P]] + 1
        return np.where(np.isnan(score_P), np.float32(np.nan), 1 / place_P)


class LambdaMARTScorer(BlendScorer):
    """Candidates in the order of the trees, above all else; the others in the order of the mean of the members.

    Args:
        members: by name. candidates: items that each of them names. features: of users and items. base: that whose
        score the trees add to. trees: LightGBM's text of the ensemble; empty for none.
    """

    kind: ClassVar[str] = "lambdamart"

    def __init__(
        self, *, members: dict[str, Scorer], candidates: int, features: PairFeatures, base: str, trees_N: ByteArray
    ) -> None:
        super().__init__(members=members, weights_M=[1.0] * len(members), method="weighted", rank_constant=0.0)
        self.candidates = candidates
        self.features = features
        self.base = base
        self.trees_N = trees_N

    def score(self, requests: Requests) -> FloatArray:
        found = [self._ranked(requests.slice(start, start + BLOCK)) for start in range(0, len(requests), BLOCK)]
        return np.concatenate([np.zeros((0, self.num_items), np.float32), *found])

    def _ranked(self, requests: Requests) -> FloatArray:
        chosen = Candidates(list(self.members.values()), requests, self.candidates)
        scores_BI = _mean(chosen.scaled)
        if len(chosen.items_P):
            inputs = pair_inputs(chosen, requests, self.features)
            sums_P = start_scores(inputs[:, 2 * list(self.members).index(self.base)])
            if len(self.trees_N):
                sums_P = sums_P + np.asarray(self._trees.predict(inputs, num_threads=1))
            trees_P = sums_P.astype(np.float32)
            low_B = np.full(len(requests), np.inf, np.float32)
            np.minimum.at(low_B, chosen.rows_P, trees_P)
            # What is no candidate comes within a unit, one below the last candidate.
            below_B = np.where(np.isfinite(low_B), low_B - 1, np.float32(0))
            scores_BI = scores_BI / (1 + np.abs(scores_BI)) / 2 + below_B[:, None]
            scores_BI[chosen.rows_P, chosen.items_P] = trees_P
        known_BI = np.any([part.known_BI for part in chosen.scaled], axis=0)
        return np.asarray(np.where(known_BI, scores_BI, NO_OPINION), np.float32)

    def contributions(self, history: Histories, rows_K: IntArray) -> None:
        """None: what trees say does not come apart."""

    def with_members(self, members: dict[str, Scorer]) -> LambdaMARTScorer:
        return LambdaMARTScorer(
            members=members,
            candidates=self.candidates,
            features=self.features,
            base=self.base,
            trees_N=self.trees_N,
        )

    @cached_property
    def _trees(self) -> Any:
        lightgbm = require("lightgbm", extra="ranker", what="a model of trees")
        return lightgbm.Booster(model_str=self.trees_N.tobytes().decode())

    def state(self) -> ScorerState:
        arrays, settings = self.features.state()
        settings |= {"candidates": self.candidates, "members": list(self.members), "base": self.base}
        return ScorerState(arrays | {"trees": self.trees_N}, settings, dict(self.members))

    @classmethod
    def from_state(cls, state: ScorerState) -> LambdaMARTScorer:
        arrays, settings = state.arrays, state.settings
        features = PairFeatures(
            items_IF=arrays["item_features"],
            item_names=settings["names"],
            genres_IG=arrays.get("genres", np.zeros((len(arrays["item_features"]), 0), np.float32)),
            now=settings["now"],
            attributes=AttributeEncoder.from_json(settings.get("attributes")),
        )
        members = {name: state.parts[name] for name in settings["members"]}
        return cls(
            members=members,
            candidates=settings["candidates"],
            features=features,
            base=settings["base"],
            trees_N=arrays["trees"],
        )


def pair_inputs(chosen: Candidates, requests: Requests, features: PairFeatures) -> FloatArray:
    """(P, F) all that the trees are told."""
    return np.concatenate([chosen.opinions(), features.of(requests, chosen.rows_P, chosen.items_P)], axis=1)


def start_scores(score_P: FloatArray) -> DoubleArray:
    """(P,) a member's standardised scores; 0, its mean, where it has no opinion."""
    return np.nan_to_num(score_P.astype(np.float64), nan=0.0)


def _mean(scaled: list[Scaled]) -> FloatArray:
    """(B, I) over the members that have an opinion on the request."""
    total_BI = np.sum([part.values_BI for part in scaled], axis=0, dtype=np.float32)
    count_B = np.sum([part.speaks_B for part in scaled], axis=0)
    return np.asarray(total_BI / np.maximum(count_B, 1)[:, None], np.float32)
