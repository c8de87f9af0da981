"""LightGCN: embeddings of users and items, smoothed over the interaction graph, trained to rank.

Source: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation" (SIGIR 2020). With
A the normalised adjacency of users and items (``propagation.py``), d the degrees and E the trained embeddings (N, D):

    F = sum over k = 0..layers of  A^k E / (layers + 1),    score(u, i) = F_u . F_i

Where we depart: E starts at the leading singular vectors of the normalised interactions (``initialization = normal`` is
the paper's start), and the loss is by default a softmax over the positive and sampled items (Wu et al., "On the
Effectiveness of Sampled Softmax Loss for Item Recommendation", TOIS 2023) on cosine similarity, with one sample for all
rows of a batch (``loss = bpr`` is the paper's). With ``propagate = end`` a step compares rows of E, and F is made once,
after the last (Zhang et al., "Do We Really Need Graph Convolution During Training? Light Post-Training Graph-ODE for
Recommendation", CIKM 2024, who integrate over the layers where we take their mean). A new user has no row in E; but
beyond layer 0 a user's part of F is a sum over the items of the history H,

    F_u = E_u / (layers + 1) + q_u,    q_u = |H|^-1/2 * sum over i in H of P_i,
    P_i = d_i^-1/2 / (layers + 1) * sum over k = 1..layers of  [A^(k-1) E]_i

and of the users of the fit both sides are known. M, the least squares fit of F_u = q_u M over them, gives what is
closest to a stored row on average: a history is answered with |H|^-1/2 * sum of (P M)_i.

The graph knows no order. What a user did last says more about what comes next than the rest of the history; with a
``recent_weight`` the answer adds it, for known users and new ones alike (``Recent`` in ``pooling.py``).

Time per epoch: pairs / batch_size * 2 * layers products of 2 * pairs * D multiply-adds (none with ``propagate = end``),
and 3 * pairs * negatives * D of the loss. Memory: (users + items) * D * 36 bytes, 60 bytes a pair, batch_size *
negatives * 24 bytes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys_ray.base.types import Counts, FitContext, FloatArray, MemoryEstimate, Scorer, TrainData
from recsys_ray.models.base import Model, require_finite
from recsys_ray.models.holdout import hold_out
from recsys_ray.models.lightgcn.config import LightGCNConfig
from recsys_ray.models.linalg.graph import Graph, Propagator, equal_weights
from recsys_ray.models.linalg.initial import initial_embeddings
from recsys_ray.models.scorers.base import with_length_power
from recsys_ray.models.scorers.propagation import PropagationScorer, fold_in_map, history_sums
from recsys_ray.training import run_workers
from recsys_ray.training.config import drawn


class LightGCN(LightGCNConfig, Model):
    """Vectors of users and items smoothed over the graph of interactions (He et al. 2020)."""

    key: ClassVar[str] = "lightgcn"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (PropagationScorer,)

    def fit_scorer(self, data: TrainData, context: FitContext) -> PropagationScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a loss or gradient was not finite, or memory ran out.
        """
        from recsys_ray.models.lightgcn.network import train_lightgcn
        from recsys_ray.models.observed_pairs import PairJob

        histories, held_out = hold_out(data.histories, self.validation_share, context.rng(1), last=False)
        initial_ND = initial_embeddings(histories.matrix(data.num_items), self, context)
        job = PairJob(histories, held_out, data.num_items, initial_ND, self, context.seed)
        trained_ND, progress = run_workers(context, train_lightgcn, job, "lightgcn")
        context.progress(f"lightgcn: {progress.epochs} epochs, loss {progress.history[-1]['loss']:.4g}")
        require_finite("lightgcn", "lower model.learning_rate", trained_ND)
        # The graph of everything known: what was held out to stop in time is part of it again.
        return scorer_from(trained_ND, data, self)

    def memory(self, counts: Counts) -> MemoryEstimate:
        table = (counts.num_users + counts.num_items) * self.embedding_dim * 4
        scored = drawn(self.negative_strategy, self.negatives, self.hard_candidates)
        scores = self.batch_size * scored * (24 * self.embedding_dim if self.loss == "bpr" else 24)
        if self.loss == "direct_au":
            scores = 24 * self.batch_size**2
        advice = "lower model.embedding_dim, model.batch_size or model.negatives"
        # The table, its gradient, two moments, and the products of both directions; two orders of the pairs.
        return MemoryEstimate(9 * table + 60 * counts.num_interactions + scores, advice)


def scorer_from(embeddings_ND: FloatArray, data: TrainData, config: LightGCNConfig) -> PropagationScorer:
    """The finished model of trained layer-0 embeddings, users first."""
    matrix = data.histories.matrix(data.num_items)
    graph, weights = Graph.of(matrix), equal_weights(config.layers)
    final_ND = Propagator(graph, weights)(embeddings_ND)
    users_UD, items_ID = (np.ascontiguousarray(part) for part in np.split(final_ND, [data.num_users]))
    # Without layers an item's own vector is all that a history can be summed from.
    deeper_ND = Propagator(graph, weights[1:])(embeddings_ND) if config.layers else embeddings_ND
    degrees_I = np.diff(matrix.tocsc().indptr)
    known_U = np.diff(matrix.indptr) > 0
    scale_I = np.where(degrees_I > 0, np.maximum(degrees_I, 1) ** -0.5, 0).astype(np.float32)
    history_ID: FloatArray = deeper_ND[data.num_users :] * scale_I[:, None]
    sums_UD = history_sums(data.histories, history_ID, degrees_I > 0)
    return PropagationScorer(
        users_UD=users_UD,
        known_U=known_U,
        items_ID=with_length_power(items_ID, config.length_power),
        history_ID=(history_ID @ fold_in_map(sums_UD[known_U], users_UD[known_U])).astype(np.float32),
        trained_I=degrees_I > 0,
        recent=config.recent,
    )
