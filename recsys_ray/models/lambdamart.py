"""LambdaMART: gradient-boosted trees that rank what several models propose.

Burges, "From RankNet to LambdaRank to LambdaMART: An Overview" (2010), by LightGBM (Ke et al., NeurIPS 2017).

    candidates of u  the union of every member's best items
    features         of every member its score, standardised by user, and its rank; of the item popularity, ratings and
                     every numeric column of the catalogue; of the user what ``HISTORY_FEATURES`` and the table of
                     users list; of both the
                     share of the history that is of the item's genres

Members are fitted without events that are held out for it, candidates are labelled by those events, and the trees learn
their order. They start from the score of the member that ranks these events best, and correct it; a part of the users
decides when to stop, before the first tree where what trees gain there is within its standard error. Then the members
are fitted again, on everything.
Time and memory: those of the members twice, and users * candidates * features * 8 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from recsys_ray.base.errors import ModelError
from recsys_ray.base.optional import require
from recsys_ray.base.types import (
    Counts,
    DoubleArray,
    FitContext,
    FloatArray,
    ItemLists,
    LongArray,
    MemoryEstimate,
    Requests,
    Scorer,
    TrainData,
)
from recsys_ray.data.attributes import AttributeEncoder
from recsys_ray.data.features import HISTORY_FEATURES, catalogue_features, interaction_features
from recsys_ray.evaluation import metrics
from recsys_ray.models.base import Model
from recsys_ray.models.ease import EASE
from recsys_ray.models.holdout import TOP, hold_out
from recsys_ray.models.item_cf import ItemCF
from recsys_ray.models.members import MadeOfModels, Member, fit_member
from recsys_ray.models.scorers.lambdamart import (
    BLOCK,
    Candidates,
    LambdaMARTScorer,
    PairFeatures,
    pair_inputs,
    start_scores,
)

WATCHED = 5
"""One user in so many decides when the trees stop."""
PATIENCE = 30


def _usual() -> list[Member]:
    return [Member.model_validate({"model": {"name": model.key}}) for model in (EASE, ItemCF)]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Candidates of many users end to end, in blocks: how many each user has, and which were held out."""

    inputs_PF: FloatArray
    hits_P: FloatArray
    sizes_B: LongArray
    targets_B: LongArray


class LambdaMART(MadeOfModels):
    """Candidates of several models, ranked by gradient-boosted trees (Burges 2010)."""

    key: ClassVar[str] = "lambdamart"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (LambdaMARTScorer,)

    members: list[Member] = Field(default_factory=_usual, min_length=1)
    """The models that propose; their weights are not used."""
    candidates: int = Field(default=100, ge=1)
    """Items that each member proposes for a user."""
    held_out: Literal["random", "last"] = "random"
    """The events that the trees learn from: a fifth of a user's at random, or the last one, as the split does."""
    validation_users: int = Field(default=20_000, ge=5)
    """Users whose events are held out for it, at most."""
    trees: int = Field(default=400, ge=1)
    """Trees, at most: fewer once NDCG@20 of watched users stops rising."""
    leaves: int = Field(default=15, ge=2)
    """Leaves of a tree."""
    learning_rate: float = Field(default=0.05, gt=0, le=1)
    """What every further tree counts."""
    least_in_leaf: int = Field(default=50, ge=1)
    """Candidates that a leaf must hold."""

    def memory(self, counts: Counts) -> MemoryEstimate:
        found = [model.memory(counts) for model in self.models.values()]
        features = 2 * len(found) + len(HISTORY_FEATURES) + 16
        users = min(self.validation_users, counts.num_users)
        pairs = users * min(counts.num_items, self.candidates * len(found))
        largest = max(found, key=lambda estimate: estimate.bytes)
        trees = 8 * pairs * features
        advice = "lower model.validation_users or model.candidates" if trees > largest.bytes else largest.advice
        return MemoryEstimate(sum(estimate.bytes for estimate in found) + trees, advice)

    def fit_scorer(self, data: TrainData, context: FitContext) -> LambdaMARTScorer:
        """Fit the members and the trees.

        Raises:
            ConfigError: LightGBM is not installed. ModelError: a member can't be fitted, which is named; or no held-out
                event is among the candidates.
        """
        lightgbm = require("lightgbm", extra="ranker", what="model.name=lambdamart")
        strange_E = ~np.isfinite(data.histories.ratings_E)
        if strange_E.any():
            found = data.histories.ratings_E[strange_E][0]
            raise ModelError(f"lambdamart: can't use the rating {found}; drop such rows with a rating threshold")
        train, watched, names = self.labelled_parts(data, context)
        base, trees = self._boosted(lightgbm, train, watched, names, context)
        whole = {name: fit_member(self.key, name, model, data, context, "all") for name, model in self.models.items()}
        text = np.frombuffer(trees.encode(), np.uint8)
        return LambdaMARTScorer(
            members=whole, candidates=self.candidates, features=pair_features(data), base=base, trees_N=text
        )

    def labelled_parts(self, data: TrainData, context: FitContext) -> tuple[Labelled, Labelled, list[str]]:
        """What the trees learn from, what decides when they stop, and the names of their inputs. Members are fitted
        without the held-out events for it.

        Raises:
            ModelError: nobody has events enough, or a member can't be fitted.
        """
        share = min(1.0, self.validation_users / max(1, data.num_users))
        left, held_out = hold_out(data.histories, share, context.rng(1), last=self.held_out == "last")
        if held_out is None:
            raise ModelError("lambdamart: no user has three events to learn from; set another model.name")
        less = replace(data, histories=left)
        members = [
            fit_member(self.key, name, model, less, context, "validation") for name, model in self.models.items()
        ]
        features = pair_features(less)
        users = np.flatnonzero(held_out.lengths_B > 0)
        watched_B = context.rng(2).permutation(len(users)) % WATCHED == 0
        if watched_B.all() or not watched_B.any():
            raise ModelError(f"lambdamart: {len(users)} users are too few to learn from; set another model.name")
        train, watched = (
            self._labelled(members, features, less, held_out, users[chosen]) for chosen in (~watched_B, watched_B)
        )
        return train, watched, [*_opinion_names(self.models), *features.names]

    def _labelled(
        self, members: list[Scorer], features: PairFeatures, less: TrainData, held_out: ItemLists, users: LongArray
    ) -> Labelled:
        """The candidates of these users and which of them were held out; users without a hit teach nothing."""
        inputs, hits, sizes, targets = [], [], [], []
        left, attributes = less.histories, less.attributes
        num_items = members[0].num_items
        for start in range(0, len(users), BLOCK):
            block = users[start : start + BLOCK]
            known = None if attributes is None else attributes.take(pa.array(block))
            nothing = ItemLists.empty(len(block))
            requests = Requests(pa.array(block), block.astype(np.int32), left.take(block), nothing, known)
            chosen = Candidates(members, requests, self.candidates)
            wanted = held_out.take(block)
            keys = np.unique(wanted.rows_E.astype(np.int64) * num_items + wanted.items_E)
            inputs.append(pair_inputs(chosen, requests, features))
            hits.append(np.isin(chosen.rows_P.astype(np.int64) * num_items + chosen.items_P, keys))
            sizes.append(np.bincount(chosen.rows_P, minlength=len(block)))
            targets.append(np.bincount(keys // num_items, minlength=len(block)))
        hits_P = np.concatenate(hits).astype(np.float32)
        return Labelled(np.concatenate(inputs), hits_P, np.concatenate(sizes), np.concatenate(targets))

    def _boosted(
        self, lightgbm: Any, train: Labelled, watched: Labelled, names: list[str], context: FitContext
    ) -> tuple[str, str]:
        """The member that the trees correct, and the trees as text; no text where none makes it better."""
        if not train.hits_P.any() or not watched.hits_P.any():
            raise ModelError("lambdamart: no held-out event is among the candidates; raise model.candidates")
        each = {name: quality_of(start_of(watched, place), watched) for place, name in enumerate(self.models)}
        alone = {name: float(quality_B.mean()) for name, quality_B in each.items()}
        base = max(alone, key=lambda name: alone[name])
        place = list(self.models).index(base)
        booster = self.grown(lightgbm, train, watched, names, place, context.seed)
        scores_P = start_of(watched, place) + np.asarray(booster.predict(watched.inputs_PF, num_threads=1))
        gain_B = quality_of(scores_P, watched) - each[base]
        # When to stop was chosen on these users: what is within chance of nothing is taken for nothing.
        certain = gain_B.mean() > gain_B.std() / math.sqrt(len(gain_B))
        count = booster.best_iteration if certain else 0
        quality = alone[base] + (float(gain_B.mean()) if certain else 0.0)
        listed = ", ".join(f"{name} {value:.4f}" for name, value in alone.items())
        said = f"lambdamart: NDCG@{TOP} of {len(watched.sizes_B)} watched users: {listed}"
        context.progress(f"{said}; {base} with {count} trees {quality:.4f}")
        return base, booster.model_to_string(num_iteration=count) if count else ""

    def grown(self, lightgbm: Any, train: Labelled, watched: Labelled, names: list[str], place: int, seed: int) -> Any:
        """LightGBM's booster that corrects the member at this place."""
        settings = {
            "objective": "lambdarank", "metric": "ndcg", "eval_at": [TOP], "num_leaves": self.leaves,
            "learning_rate": self.learning_rate, "min_data_in_leaf": self.least_in_leaf, "verbosity": -1,
            "num_threads": 1, "deterministic": True, "force_row_wise": True, "seed": seed,
            "lambdarank_truncation_level": TOP + 10, "feature_fraction": 0.8,
            "bagging_fraction": 0.8, "bagging_freq": 1,
        }  # fmt: skip
        data, watch = (
            lightgbm.Dataset(
                part.inputs_PF, part.hits_P, group=part.sizes_B, feature_name=names, init_score=start_of(part, place)
            )
            for part in (train, watched)
        )
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        return lightgbm.train(settings, data, self.trees, valid_sets=[watch], callbacks=[stop])


def start_of(part: Labelled, place: int) -> DoubleArray:
    """(P,) the start of the trees: what one member says."""
    return start_scores(part.inputs_PF[:, 2 * place])


def pair_features(data: TrainData) -> PairFeatures:
    """What the trees are told of users and items, from the catalogue and the training interactions."""
    catalogue = catalogue_features(data.items)
    columns = [interaction_features(data.histories, data.num_items), catalogue.numeric_IF]
    names = ["item_popularity", "item_rating", "item_rating_spread", *(f"item_{name}" for name in catalogue.names)]
    now = float(data.histories.timestamps_E.max(initial=0))
    return PairFeatures(
        items_IF=np.concatenate(columns, axis=1),
        item_names=names,
        genres_IG=catalogue.genres_IG,
        now=now,
        attributes=AttributeEncoder.of(data.attributes),
    )


def _opinion_names(models: dict[str, Model]) -> list[str]:
    return [f"{name}_{what}" for name in models for what in ("score", "place")]


def quality_of(scores_P: FloatArray | DoubleArray, part: Labelled) -> DoubleArray:
    """(B,) NDCG@TOP of each user, of equals the earlier candidate; targets that nobody proposed count as missed."""
    rows_P = np.repeat(np.arange(len(part.sizes_B)), part.sizes_B)
    order_P = np.lexsort((-scores_P, rows_P))
    first_B = np.cumsum(part.sizes_B) - part.sizes_B
    places_P = np.arange(len(order_P)) - first_B[rows_P]
    hits_BK = np.zeros((len(part.sizes_B), TOP), np.bool_)
    top_P = places_P < TOP
    hits_BK[rows_P[top_P], places_P[top_P]] = part.hits_P[order_P][top_P] > 0
    return np.asarray(metrics.ndcg(hits_BK, part.targets_B, TOP), np.float64)
