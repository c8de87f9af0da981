"""Blend: several models as one, by a weighted sum of their standardised scores, or of their reciprocal ranks.

    score_ui = sum over members m of  weight_m * z_m(u, i),   z_m: see ``scorers.blend``

Weights are given, or chosen on events held out of the training histories: every member is fitted without them, and a
convex search looks for the weights with the best NDCG@20 over the candidates that any member would list. It starts from
the best member alone, so the blend is never below it on those events, and moves weight from one member to another in
ever smaller steps. Members that end with no weight are left out; the others are fitted again, on everything, unless
``refit`` is off.
Time and memory: those of the members, one after the other, twice with weights by validation and ``refit``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import (
    BoolArray,
    Counts,
    DoubleArray,
    FitContext,
    FloatArray,
    Histories,
    IntArray,
    ItemLists,
    LongArray,
    MemoryEstimate,
    Requests,
    Scorer,
    TrainData,
)
from recsys_ray.evaluation import metrics
from recsys_ray.models.base import Model
from recsys_ray.models.ease import EASE
from recsys_ray.models.holdout import TOP, hold_out
from recsys_ray.models.item_cf import ItemCF
from recsys_ray.models.members import MadeOfModels, Member, fit_member
from recsys_ray.models.scorers.blend import BlendScorer, scale

STEPS = (0.2, 0.1, 0.05, 0.02)
"""What is moved from one member's weight to another's at a time, of a total of 1."""
CANDIDATES = 100
"""Items of every member among which the search ranks."""
BLOCK = 256
PRESETS: dict[str, list[dict[str, Any]]] = {
    "hybrid": [
        {"weight": 0.60, "model": {"name": "svd"}},
        {"weight": 0.25, "model": {"name": "item_cf"}},
        {"weight": 0.15, "model": {"name": "content", "vectors": "attributes"}},
    ],
    "hybrid_embeddings": [
        {"weight": 0.40, "model": {"name": "content"}},
        {"weight": 0.30, "model": {"name": "svd"}},
        {"weight": 0.20, "model": {"name": "item_cf"}},
        {"weight": 0.10, "model": {"name": "content", "vectors": "attributes"}},
    ],
}
"""Members and weights as hybrid recommenders are often built: with vectors of texts and posters, and without."""


def _usual() -> list[Member]:
    return [Member.model_validate({"model": {"name": model.key}}) for model in (ItemCF, EASE)]


class Blend(MadeOfModels):
    """Several models as one: their standardised scores, or their ranks, added up with weights."""

    key: ClassVar[str] = "blend"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (BlendScorer,)

    members: list[Member] = Field(default_factory=_usual, min_length=1)
    """The models and their weights."""
    preset: Literal["hybrid", "hybrid_embeddings"] | None = None
    """Instead of members. hybrid: SVD .6, item-CF .25, genres and other attributes .15. hybrid_embeddings: the vectors
    of texts and posters .4, SVD .3, item-CF .2, attributes .1."""
    method: Literal["weighted", "reciprocal_rank"] = "weighted"
    """What is added up: standardised scores, or reciprocal ranks."""
    rank_constant: float = Field(default=60.0, ge=0)
    """Added to every rank; reciprocal_rank only."""
    weights: Literal["given", "validation"] = "given"
    """validation: chosen on held-out events of the training data, instead of those of the members."""
    held_out: Literal["random", "last"] = "random"
    """The events that weights are chosen on: a fifth of a user's at random, or the last one, as the split does."""
    validation_users: int = Field(default=2000, ge=1)
    """Users whose events are held out for it, at most."""
    refit: bool = True
    """Fit the members once more, with the held-out events, after weights were chosen on them. false keeps those that
    the weights were chosen with: half the time, for members that take long to train and few events held out."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: Any) -> Any:
        """A preset is its members: what is saved and printed names them."""
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            if "members" in values and values["members"] != PRESETS[values["preset"]]:
                raise ValueError("give members or a preset, not both")
            return {name: value for name, value in values.items() if name != "preset"} | {
                "members": PRESETS[values["preset"]]
            }
        return values

    @model_validator(mode="after")
    def _some_weight(self) -> Blend:
        if self.weights == "given" and not any(member.weight for member in self.members):
            raise ValueError("all weights of members are 0; give one of them some")
        if self.weights == "given" and not self.refit:
            raise ValueError("refit: false needs weights: validation; given weights hold nothing out")
        return self

    def memory(self, counts: Counts) -> MemoryEstimate:
        found = [model.memory(counts) for model in self.models.values()]
        largest = max(found, key=lambda estimate: estimate.bytes)
        return MemoryEstimate(sum(estimate.bytes for estimate in found), largest.advice)

    def fit_scorer(self, data: TrainData, context: FitContext) -> BlendScorer:
        """Fit all members on the training histories.

        Raises:
            ModelError: a member can't be fitted, which is named; or nobody has events enough to choose weights on.
        """
        models = self.models
        weights = {name: member.weight for name, member in zip(models, self.members, strict=True)}
        fitted: dict[str, Scorer] = {}
        if self.weights == "validation":
            weights, fitted = self._chosen(models, data, context)
        used = {name: weight for name, weight in weights.items() if weight > 0}
        if self.refit:
            fitted = {name: fit_member(self.key, name, models[name], data, context, "all") for name in used}
        scorers = {name: fitted[name] for name in used}
        return BlendScorer(
            members=scorers, weights_M=list(used.values()), method=self.method, rank_constant=self.rank_constant
        )

    def _chosen(
        self, models: dict[str, Model], data: TrainData, context: FitContext
    ) -> tuple[dict[str, float], dict[str, Scorer]]:
        """The weights that rank held-out events best, and the members fitted without those events."""
        share = min(1.0, self.validation_users / max(1, data.num_users))
        left, held_out = hold_out(data.histories, share, context.rng(1), last=self.held_out == "last")
        if held_out is None:
            raise ModelError("blend: no user has three events to choose weights on; set model.weights=given")
        less = replace(data, histories=left)
        scorers = [fit_member(self.key, name, model, less, context, "validation") for name, model in models.items()]
        users = np.flatnonzero(held_out.lengths_B > 0)
        asked = Requests(pa.array(users), users.astype(np.int32), left.take(users), ItemLists.empty(len(users)))
        task = _task(scorers, asked, held_out.take(users), self)
        alone_M = [task.quality(weights) for weights in np.eye(len(scorers))]
        found = search(task.quality, len(scorers))
        listed = ", ".join(f"{name} {quality:.4f}" for name, quality in zip(models, alone_M, strict=True))
        weights = {name: round(float(weight), 4) for name, weight in zip(models, found, strict=True)}
        shown = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
        context.progress(f"blend: NDCG@{TOP} on held-out events: {listed}; blend {task.quality(found):.4f} by {shown}")
        return weights, dict(zip(models, scorers, strict=True))


@dataclass(frozen=True, slots=True)
class _Task:
    """B users with candidates and held-out targets; C candidates a user, -1 behind the end."""

    values_MBC: FloatArray
    hits_BC: BoolArray
    rows_BC: IntArray
    targets_B: LongArray

    def quality(self, weights_M: DoubleArray) -> float:
        """Mean NDCG@TOP of the candidates by their weighted sum; of equals the lower item."""
        from recsys_ray.models.linalg.hits import hits_by_rank

        hits_BK = hits_by_rank(self.values_MBC, weights_M.astype(np.float32), self.rows_BC, self.hits_BC, TOP)
        return float(metrics.ndcg(hits_BK, self.targets_B, TOP).mean())


def _task(scorers: list[Scorer], requests: Requests, held_out: ItemLists, model: Blend) -> _Task:
    """The union of every member's best candidates, and what each member says of them."""
    most = CANDIDATES * len(scorers)
    blocks = []
    for start in range(0, len(requests), BLOCK):
        block = requests.slice(start, min(start + BLOCK, len(requests)))
        scaled = [scale(scorer, block, model.method, model.rank_constant) for scorer in scorers]
        histories: Histories = block.histories
        rows_BC = np.full((len(block), most), -1, np.int32)
        best = []
        for part in scaled:
            values_BI = np.where(part.known_BI, part.values_BI, -np.inf)
            values_BI[histories.rows_E, histories.items_E] = -np.inf
            width = min(CANDIDATES, values_BI.shape[1])
            top_BK = np.argpartition(-values_BI, width - 1, axis=1)[:, :width]
            best.append(np.where(np.isfinite(np.take_along_axis(values_BI, top_BK, axis=1)), top_BK, -1))
        for row, candidates in enumerate(np.concatenate(best, axis=1)):
            own = np.unique(candidates[candidates >= 0])
            rows_BC[row, : len(own)] = own
        picked_BC = np.maximum(rows_BC, 0)
        values_MBC = np.stack([np.take_along_axis(part.values_BI, picked_BC, axis=1) for part in scaled])
        hits_BC = np.stack(
            [np.isin(rows_BC[row], held_out.row(start + row)) & (rows_BC[row] >= 0) for row in range(len(block))]
        )
        blocks.append((values_MBC, hits_BC, rows_BC))
    targets_B = np.array([len(np.unique(held_out.row(row))) for row in range(len(requests))], np.int64)
    values_MBC = np.concatenate([values for values, _, _ in blocks], axis=1)
    return _Task(values_MBC, np.concatenate([b[1] for b in blocks]), np.concatenate([b[2] for b in blocks]), targets_B)


def search(quality: Callable[[DoubleArray], float], size: int) -> DoubleArray:
    """(M,) weights of sum 1, from the better of the best member alone and all alike: as long as moving a step from one
    to another is better, the best such move is made; then smaller steps."""
    starts = [*np.eye(size), np.full(size, 1 / size)]
    best = max(starts, key=quality)
    value = quality(best)
    for step in STEPS:
        while True:
            moves = []
            for source in np.flatnonzero(best > 0):
                moved = min(step, best[source])
                for target in range(size):
                    if target != source:
                        changed = best.copy()
                        changed[source] -= moved
                        changed[target] += moved
                        moves.append(changed)
            found = max(moves, key=quality, default=best)
            if (now := quality(found)) <= value + 1e-9:
                break
            best, value = found, now
    return np.asarray(np.maximum(best, 0.0))
