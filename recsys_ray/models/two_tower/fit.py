"""Two-Tower: a network for users, a network for items, and the similarity of their vectors.

Sources: Covington, Adams, Sargin, "Deep Neural Networks for YouTube Recommendations" (RecSys 2016) for users as the
mean of what they had; Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations"
(RecSys 2019) for two towers and the correction for popularity; Mao et al., "SimpleX" (CIKM 2021) for cosines without
hidden layers.

    item vector  v_i = tower(id_i, features of i, content of i)
    user vector  q_u = tower(sum over H of w_j v_j / sum over H of w_j, features of H, attributes of u, id_u)
    score(u, i)  = cos(q_u, v_i) or q_u . v_i

with H the user's history and attributes what the table of users says. A training example's target i is no part of its
H, nor of the features' counts, means and genres. With a ``recent_weight`` what the user did last is added to q_u
(``Recent`` in ``pooling.py``). Ids, and what interactions tell of an item, are hidden at random in training
(``id_dropout``): an item or user that nobody knows is then what training has often seen. So a new item is scored by its
features and content, and a new user by the history.

Where we depart: a history is pooled from finished item vectors, not from embeddings of its own (``history_items = own``
gives it a tower of its own, without sharing); a query then costs a sum and one pass through the user tower, and items
that were never trained count in histories too.

Time per epoch: pairs * (negatives * D + layers of the user tower) * 6, and distinct items of the batches through the
item tower. Memory: (users with ids + items) * embedding_dim * 20 bytes, and targets of a batch * (negatives +
layers) * 12.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import (
    Counts,
    FitContext,
    FloatArray,
    Histories,
    ItemLists,
    MemoryEstimate,
    Requests,
    Scorer,
    TrainData,
)
from recsys_ray.data.attributes import AttributeEncoder
from recsys_ray.data.features import (
    HISTORY_FEATURES,
    CatalogueFeatures,
    HistorySums,
    catalogue_features,
    interaction_features,
)
from recsys_ray.models.base import Model, of_kind, require_finite
from recsys_ray.models.content import LONG_VECTOR
from recsys_ray.models.holdout import hold_out
from recsys_ray.models.linalg.initial import initial_embeddings
from recsys_ray.models.two_tower.config import TwoTowerConfig
from recsys_ray.models.two_tower.inputs import CONTENT, HistoryFeatures, ItemInputs, TowerShape, pairs_of
from recsys_ray.models.two_tower.scorer import TowerScorer
from recsys_ray.training import run_workers
from recsys_ray.training.config import drawn


class TwoTower(TwoTowerConfig, Model):
    """Two networks, of users and of items, whose outputs are compared (Covington et al. 2016)."""

    key: ClassVar[str] = "two_tower"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (TowerScorer,)

    @property
    def needs_content(self) -> bool:
        return self.use_content

    @property
    def content_kinds(self) -> frozenset[str]:
        return frozenset({"text", "image"} if self.content_inputs == "apart" else ())

    def fit_scorer(self, data: TrainData, context: FitContext) -> TowerScorer:
        """Fit on the training histories.

        Raises:
            ModelError: content or ratings or timestamps that the settings ask for are not there, a loss or gradient
                was not finite, or memory ran out.
        """
        from recsys_ray.models.two_tower.network import TwoTowerJob, train_two_tower

        _check(data, self)
        histories, held_out = hold_out(data.histories, self.validation_share, context.rng(1), last=False)
        catalogue = catalogue_features(data.items) if self.use_features else None
        items = _item_inputs(data, histories, catalogue, self)
        sums = None if catalogue is None else HistorySums.of(histories, catalogue.genres_IG)
        features = (
            None if catalogue is None or sums is None else _history_features(histories, catalogue.genres_IG, sums)
        )
        attributes = AttributeEncoder.of(data.attributes) if self.use_features else None
        watched, targets = (None, None) if held_out is None else _watched(histories, held_out, data.attributes)
        history_weight_I = _history_weights(histories, items, self)
        job = TwoTowerJob(
            pairs=pairs_of(histories, self.pooling.weights(histories, history_weight_I), data.num_items),
            items=items,
            history_weight_I=history_weight_I,
            features=features,
            sums=None if features is None else sums,
            attributes=attributes,
            attributes_UA=None if attributes is None else attributes.encode(data.attributes, data.num_users),
            watched=watched,
            held_out=targets,
            initial_ND=initial_embeddings(histories.matrix(data.num_items), self, context),
            item_shape=_shape(_item_widths(items, self), self),
            user_shape=_shape(_user_widths(features, attributes, self), self),
            config=self,
            seed=context.seed,
        )
        if self.loss in ("mse", "mse_bpr") and not job.pairs.ratings_E.any():
            raise ModelError(f'two_tower: loss = "{self.loss}" needs ratings that differ; set model.loss to another')
        scorer, progress = run_workers(context, train_two_tower, job, "two_tower")
        context.progress(f"two_tower: {progress.epochs} epochs, loss {progress.history[-1]['loss']:.4g}")
        require_finite("two_tower", "lower model.learning_rate", scorer.items_ID, *scorer.weights.values())
        return scorer

    def memory(self, counts: Counts) -> MemoryEstimate:
        tables = 1 + (self.history_items == "own")
        rows = counts.num_items * tables + counts.num_users * self.user_id
        per_user = 4 * counts.num_interactions / max(counts.num_users, 1) + 1
        targets = self.batch_size * min(per_user, self.positives_per_user or per_user)
        rivals = (
            targets
            if self.loss in ("info_nce", "direct_au")
            else drawn(self.negative_strategy, self.negatives, self.hard_candidates)
        )
        # The parameters, gradients and two moments of ids; finished vectors; inputs; one batch.
        vectors = 2 * counts.num_items * (self.layers or [self.embedding_dim])[-1]
        inputs = counts.num_items * (LONG_VECTOR * self.use_content + 64 * self.use_features)
        batch = targets * (6 * rivals + 12 * (sum(self.layers) + 3 * self.embedding_dim))
        floats = 5 * rows * self.embedding_dim + vectors + inputs + batch
        if self.use_features:
            floats += 64 * counts.num_users
        return MemoryEstimate(
            int(4 * floats) + 120 * counts.num_interactions,
            "lower model.embedding_dim, model.batch_size or model.positives_per_user",
        )


def _check(data: TrainData, config: TwoTowerConfig) -> None:
    ratings_E = data.histories.ratings_E
    if config.use_content and data.content is None:
        raise ModelError("two_tower: use_content needs item vectors; add a section content or unset it")
    if config.half_life_days is not None and not data.histories.timestamps_E.any():
        raise ModelError("two_tower: half_life_days needs timestamps, and the interactions have none; unset it")
    usable_E = np.isfinite(ratings_E)
    if config.rating_weight == "rating":
        usable_E &= ratings_E > 0
    if not usable_E.all():
        raise ModelError(
            f"two_tower: can't use the rating {ratings_E[~usable_E][0]}; drop such rows with a rating threshold"
        )


def _item_inputs(
    data: TrainData, histories: Histories, catalogue: CatalogueFeatures | None, config: TwoTower
) -> ItemInputs:
    """Features in which no two items differ are none."""
    trained_I = np.bincount(histories.items_E, minlength=data.num_items) > 0
    scorable_I, catalogue_IF, interactions_IF = trained_I.copy(), None, None
    if catalogue is not None:
        catalogue_IF = np.concatenate([catalogue.genres_IG, catalogue.numeric_IF], axis=1)
        interactions_IF = interaction_features(histories, data.num_items)
        scorable_I |= catalogue.described_I
        if not (catalogue_IF.any() or interactions_IF.any()):
            catalogue_IF, interactions_IF = None, None
    vectors: dict[str, FloatArray] = {}
    if data.content is not None and config.use_content:
        apart = {kind: of_kind(data.content, kind, "two_tower") for kind in sorted(config.content_kinds)}
        for kind, content in (apart or {"content": data.content}).items():
            scorable_I |= content.present_I
            vectors[kind] = content.vectors_ID
    given = (vectors.get(name) for name in CONTENT)
    return ItemInputs(trained_I, scorable_I, catalogue_IF, interactions_IF, *given)


def _history_weights(histories: Histories, items: ItemInputs, config: TwoTowerConfig) -> FloatArray:
    """(I,) of a popular item little, under a negative power; an item that was never trained weighs as a rare one."""
    counts_I = np.maximum(np.bincount(histories.items_E, minlength=items.num_items), 1).astype(np.float64)
    weights_I: FloatArray = (counts_I**config.history_popularity_power * items.scorable_I).astype(np.float32)
    return weights_I


def _history_features(histories: Histories, genres_IG: FloatArray, sums: HistorySums) -> HistoryFeatures | None:
    """Numbers are standardised over the users, shares of genres stay as they are; None where no two users differ."""
    now = float(histories.timestamps_E.max(initial=0))
    raw_UF = sums.rows(np.flatnonzero(histories.lengths_B)).features(now)
    numbers = len(HISTORY_FEATURES)
    mean_F, scale_F = np.zeros(raw_UF.shape[1], np.float32), np.ones(raw_UF.shape[1], np.float32)
    if len(raw_UF):
        spread_F = raw_UF[:, :numbers].std(axis=0, dtype=np.float64)
        mean_F[:numbers] = raw_UF[:, :numbers].mean(axis=0, dtype=np.float64)
        scale_F[:numbers] = np.where(spread_F > 1e-6, 1 / np.maximum(spread_F, 1e-6), 0)
    return HistoryFeatures(genres_IG, now, mean_F, scale_F) if scale_F.any() else None


def _watched(histories: Histories, held_out: ItemLists, attributes: pa.Table | None) -> tuple[Requests, ItemLists]:
    """The users with held-out items as requests, and those items."""
    users_B = np.flatnonzero(held_out.lengths_B > 0)
    watched, none = histories.take(users_B), ItemLists.empty(len(users_B))
    known = None if attributes is None else attributes.take(pa.array(users_B))
    return Requests(pa.array(users_B), users_B.astype(np.int32), watched, none, known), held_out.take(users_B)


def _item_widths(items: ItemInputs, config: TwoTowerConfig) -> dict[str, tuple[int, int]]:
    """(length, width under concat_mlp) of each input of the item tower."""
    widths = {"id": (config.embedding_dim, config.embedding_dim)}
    if items.catalogue_IF is not None and items.interactions_IF is not None:
        widths["features"] = (items.catalogue_IF.shape[1] + items.interactions_IF.shape[1], config.feature_dim)
    for name, vectors_IF in items.contents.items():
        widths[name] = (vectors_IF.shape[1], config.content_dim)
    return widths


def _user_widths(
    features: HistoryFeatures | None, attributes: AttributeEncoder | None, config: TwoTowerConfig
) -> dict[str, tuple[int, int]]:
    """The same of the user tower."""
    vector_dim = config.layers[-1] if config.layers else config.embedding_dim
    widths = {"history": (vector_dim, vector_dim)}
    if features is not None:
        widths["features"] = (len(features.mean_F), config.feature_dim)
    if attributes is not None:
        widths["attributes"] = (len(attributes.names), config.feature_dim)
    if config.user_id:
        widths["id"] = (config.embedding_dim, config.embedding_dim)
    return widths


def _shape(widths: dict[str, tuple[int, int]], config: TwoTowerConfig) -> TowerShape:
    return TowerShape(
        inputs={name: length for name, (length, _) in widths.items()},
        widths={name: width for name, (_, width) in widths.items()},
        width=config.embedding_dim,
        fusion=config.fusion,
        layers=config.layers,
        dropout=config.dropout,
        batch_norm=config.batch_norm,
    )
