"""NCF: a network scores every pair of a user and an item (NeuMF: a factor model and a perceptron under one last layer).

Source: He et al., "Neural Collaborative Filtering" (WWW 2017). With p, q vectors of user and item for the factor
branch (GMF) and r, s theirs for the perceptron,

    score(u, i) = g . (p_u * q_i) + h . relu(... relu(W2 relu(W1 [r_u; s_i] + b1) + b2) ...)

The first layer falls apart, W1 [r; s] = U r + V s: both halves are worked out once, and a pair costs an addition and
the layers behind it. Where we depart: the branches are not trained each by itself before they are joined, but the
factor branch starts at the leading singular vectors of the normalised interactions (``initialization``), and its
vectors may be smoothed over the interactions as LightGCN's (``layers``); the loss is by default a softmax over the
positive and sampled items (Wu et al., "On the Effectiveness of Sampled Softmax Loss for Item Recommendation", TOIS
2023), with one sample for all rows of a batch (``loss = bce`` is the paper's); and a user whom the fit has not seen is
answered: all that the score knows of a user is x_u = [g * p_u; U r_u + b1], and the ridge regression of x_u on
|H|^-1/2 times the sum of the items' [q_i; V s_i] over the history H, with an intercept, says what x is likely for a
history. With a ``recent_weight`` what the user did last is added to g * p_u (``Recent`` in ``pooling.py``).

Time per epoch: pairs * scored items * (D + products of neighbouring widths) * 6. Memory: (users + items) * (D + F) * 20
bytes, and under softmax batch_size * negatives * the sum of the widths * 12.

D is the dimension of the factor branch, F that of the perceptron's vectors, J = D + the width of its first layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from recsys_ray.base.types import Counts, FitContext, FloatArray, Histories, MemoryEstimate, Scorer, TrainData
from recsys_ray.data.attributes import AttributeEncoder
from recsys_ray.data.features import catalogue_features, interaction_features
from recsys_ray.models.base import Model, require_finite
from recsys_ray.models.holdout import hold_out
from recsys_ray.models.linalg.initial import initial_embeddings
from recsys_ray.models.linalg.pooling import Recent
from recsys_ray.models.ncf.config import NCFConfig
from recsys_ray.models.ncf.scorer import PairScorer
from recsys_ray.models.scorers.propagation import fold_in_map, history_sums
from recsys_ray.training import run_workers
from recsys_ray.training.config import drawn

if TYPE_CHECKING:
    from recsys_ray.models.ncf.network import TrainedNCF


class NCF(NCFConfig, Model):
    """A network that scores every pair of a user and an item (He et al. 2017)."""

    key: ClassVar[str] = "ncf"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (PairScorer,)

    def fit_scorer(self, data: TrainData, context: FitContext) -> PairScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a loss or gradient was not finite, or memory ran out.
        """
        from recsys_ray.models.ncf.network import train_ncf
        from recsys_ray.models.observed_pairs import PairJob

        histories, held_out = hold_out(data.histories, self.validation_share, context.rng(1), last=False)
        initial_ND = initial_embeddings(histories.matrix(data.num_items), self, context)
        attributes = AttributeEncoder.of(data.attributes) if self.use_features else None
        job = PairJob(
            histories, held_out, data.num_items, initial_ND, self, context.seed,
            item_features_IF=_item_features(data, histories) if self.use_features else None,
            user_features_UA=None if attributes is None else attributes.encode(data.attributes, data.num_users),
        )  # fmt: skip
        trained, progress = run_workers(context, train_ncf, job, "ncf")
        context.progress(f"ncf: {progress.epochs} epochs, loss {progress.history[-1]['loss']:.4g}")
        parts = trained.users_UJ, trained.items_IJ, trained.perceptron.weights_E
        require_finite("ncf", "lower model.learning_rate", *parts)
        return scorer_from(trained, self.recent, data, attributes)

    def memory(self, counts: Counts) -> MemoryEstimate:
        dims = self.embedding_dim + max(self.mlp_dim, self.hidden_layers[0])
        table = 4 * (counts.num_users + counts.num_items) * dims
        scored = self.batch_size * drawn(self.negative_strategy, self.negatives, self.hard_candidates)
        per_pair = 12 * sum(self.hidden_layers) + (24 * dims if self.loss in ("bce", "bpr") else 24)
        advice = "lower model.embedding_dim, model.batch_size or model.negatives"
        # The tables, gradients, two moments and the finished rows; two orders of the pairs.
        return MemoryEstimate(7 * table + 60 * counts.num_interactions + scored * per_pair, advice)


def _item_features(data: TrainData, histories: Histories) -> FloatArray | None:
    """(I, F); None where they tell no two items apart."""
    catalogue = catalogue_features(data.items)
    parts = [catalogue.genres_IG, catalogue.numeric_IF, interaction_features(histories, data.num_items)]
    features_IF = np.concatenate(parts, axis=1)
    return features_IF if features_IF.any() else None


def scorer_from(
    trained: TrainedNCF, recent: Recent, data: TrainData, attributes: AttributeEncoder | None = None
) -> PairScorer:
    """The finished model of trained rows, with what an item of a history adds to a new user's row, beside what the
    attributes add."""
    users_UJ, items_IJ = trained.users_UJ, trained.items_IJ
    attributes_AJ, from_history_UJ = None, users_UJ
    if attributes is not None and trained.attributes_AE is not None:
        attributes_AJ = np.zeros((len(attributes.names), users_UJ.shape[1]), np.float32)
        attributes_AJ[:, -trained.attributes_AE.shape[1] :] = trained.attributes_AE
        from_history_UJ = users_UJ - attributes.encode(data.attributes, data.num_users) @ attributes_AJ
    known_U = data.histories.lengths_B > 0
    trained_I = data.item_counts() > 0
    sums_UJ = history_sums(data.histories, items_IJ, trained_I)[known_U]
    mean_sum_J, mean_row_J = (rows.mean(axis=0, dtype=np.float64) for rows in (sums_UJ, from_history_UJ[known_U]))
    map_JJ = fold_in_map(sums_UJ - mean_sum_J, from_history_UJ[known_U] - mean_row_J)
    return PairScorer(
        users_UJ=users_UJ,
        known_U=known_U,
        items_IJ=items_IJ,
        history_IJ=items_IJ @ map_JJ,
        intercept_J=(mean_row_J - mean_sum_J @ map_JJ).astype(np.float32),
        perceptron=trained.perceptron,
        trained_I=trained_I,
        recent=recent,
        attributes=attributes,
        attributes_AJ=attributes_AJ,
    )
