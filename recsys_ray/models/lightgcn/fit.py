"""LightGCN: embeddings of users and items, smoothed over the interaction graph, trained to rank.

Source: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation" (SIGIR 2020). With
A the normalised adjacency of users and items (``propagation.py``), d the degrees and E the trained embeddings (N, D):

    F = sum over k = 0..layers of  A^k E / (layers + 1),    score(u, i) = F_u . F_i

Where we depart: E starts at the leading singular vectors of the normalised interactions (``initialization = normal`` is
the paper's start), and the loss is by default a softmax over the positive and sampled items (Wu et al., "On the
Effectiveness of Sampled Softmax Loss for Item Recommendation", TOIS 2023) on cosine similarity, with one sample for all
rows of a batch (``loss = bpr`` is the paper's). A new user has no row in E; but beyond layer 0 a user's part of F is a
sum over the items of the history H,

    F_u = E_u / (layers + 1) + q_u,    q_u = |H|^-1/2 * sum over i in H of P_i,
    P_i = d_i^-1/2 / (layers + 1) * sum over k = 1..layers of  [A^(k-1) E]_i

and of the users of the fit both sides are known. M, the least squares fit of F_u = q_u M over them, gives what is
closest to a stored row on average: a history is answered with |H|^-1/2 * sum of (P M)_i.

The graph knows no order. What a user did last says more about what comes next than the rest of the history; with a
``recent_weight`` the answer adds it, for known users and new ones alike (``Recent`` in ``pooling.py``).

Time per epoch: pairs / batch_size * 2 * layers products of 2 * pairs * D multiply-adds, and 3 * pairs * negatives * D
of the loss. Memory: (users + items) * D * 36 bytes, 60 bytes a pair, batch_size * negatives * 24 bytes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from recsys_ray.base.types import Counts, FitContext, FloatArray, TrainData
from recsys_ray.models.base import MemoryEstimate, require_finite
from recsys_ray.models.holdout import hold_out
from recsys_ray.models.linalg.graph import Graph, Propagator, equal_weights
from recsys_ray.models.linalg.initial import initial_embeddings
from recsys_ray.models.linalg.pooling import RecentSettings
from recsys_ray.models.scorers.base import with_length_power
from recsys_ray.models.scorers.propagation import PropagationScorer, fold_in_map, history_sums
from recsys_ray.training import LoopConfig, run_workers


class LightGCNConfig(LoopConfig, RecentSettings):
    embedding_dim: int = Field(default=64, ge=1)
    """D, the length of a user's and an item's vector."""
    layers: int = Field(default=3, ge=0)
    """Propagation steps; 0 is matrix factorization."""
    loss: Literal["softmax", "bpr"] = "softmax"
    """softmax: cross-entropy of a pair among the sampled items. bpr: pairwise, as in the paper."""
    similarity: Literal["cosine", "inner"] = "cosine"
    """How the softmax compares a user with an item; bpr always takes the inner product."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides the similarities of the softmax: the lower, the more the hardest negatives count."""
    negatives: int = Field(default=1024, ge=1)
    """Negatives: of a batch under softmax, shared by its pairs; of each pair under bpr."""
    negative_strategy: Literal["uniform", "popularity", "in_batch", "mixed", "hard"] = "uniform"
    """Where negatives come from; hard, the best scored of hard_candidates, is for bpr."""
    popularity_power: float = Field(default=1.0, ge=0)
    """Power of an item's count under negative_strategy = popularity."""
    hard_candidates: int = Field(default=32, ge=1)
    """Candidates per pair under negative_strategy = hard."""
    correct_popularity: bool = False
    """Take the log of a negative's expected number of draws off its similarity (softmax)."""
    regularization: float = Field(default=0.0, ge=0)
    """L2 penalty on the embeddings of layer 0 that a batch touches, per pair."""
    initialization: Literal["spectral", "normal"] = "spectral"
    """normal: random, as in the paper. spectral: from the leading singular vectors of the normalised interactions, what
    propagation alone would keep; the training starts several epochs ahead."""
    initial_std: float = Field(default=0.1, gt=0)
    """Standard deviation of the initial embeddings."""
    length_power: float = Field(default=0.75, ge=0)
    """Item vectors are ranked with their length to this power, which grows with popularity: 1 is the inner product, 0
    the cosine."""

    @model_validator(mode="after")
    def _possible(self) -> LightGCNConfig:
        if self.negative_strategy == "hard" and (self.loss != "bpr" or self.hard_candidates < self.negatives):
            raise ValueError("negative_strategy: hard needs loss = bpr and hard_candidates >= negatives")
        return self


def fit_lightgcn(data: TrainData, config: LightGCNConfig, context: FitContext) -> PropagationScorer:
    """Fit on the training histories.

    Raises:
        ModelError: a loss or gradient was not finite, or memory ran out.
    """
    from recsys_ray.models.lightgcn.network import train_lightgcn
    from recsys_ray.models.observed_pairs import PairJob

    histories, held_out = hold_out(data.histories, config.validation_share, context.rng(1), last=False)
    initial_ND = initial_embeddings(histories.matrix(data.num_items), config, context)
    job = PairJob(histories, held_out, data.num_items, initial_ND, config, context.seed)
    trained_ND, progress = run_workers(context, train_lightgcn, job, "lightgcn")
    context.progress(f"lightgcn: {progress.epochs} epochs, loss {progress.history[-1]['loss']:.4g}")
    require_finite("lightgcn", "lower model.learning_rate", trained_ND)
    # The graph of everything known: what was held out to stop in time is part of it again.
    return scorer_from(trained_ND, data, config)


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


def lightgcn_memory(counts: Counts, config: LightGCNConfig) -> MemoryEstimate:
    table = (counts.num_users + counts.num_items) * config.embedding_dim * 4
    scores = config.batch_size * config.negatives * (24 if config.loss == "softmax" else 24 * config.embedding_dim)
    advice = "lower model.embedding_dim, model.batch_size or model.negatives"
    # The table, its gradient, two moments, and the products of both directions; two orders of the pairs.
    return MemoryEstimate(9 * table + 60 * counts.num_interactions + scores, advice)
