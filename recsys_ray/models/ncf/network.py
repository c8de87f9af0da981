"""NCF on the training loop; ``fit.py`` beside it says what it computes.

D is the dimension of the factor branch, F that of the perceptron's vectors, J = D + the width of its first layer,
N = U + I: users, then items. A leading ``...`` is any number of axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_ray.base.types import FloatArray, IntArray, ItemLists, LongArray
from recsys_ray.models.holdout import lists_quality
from recsys_ray.models.lightgcn.network import propagation
from recsys_ray.models.linalg.graph import Graph, equal_weights
from recsys_ray.models.ncf.kernels import Perceptron, score_block
from recsys_ray.models.observed_pairs import ObservedPairs, PairJob
from recsys_ray.training.checkpoint import Progress
from recsys_ray.training.loop import Task, stream, train
from recsys_ray.training.losses import binary_cross_entropy, bpr
from recsys_ray.training.negatives import NegativeSampler
from recsys_ray.training.worker import Worker

if TYPE_CHECKING:
    from recsys_ray.models.ncf.config import NCFConfig

RANKED_USERS = 256  # watched users scored at once


@dataclass(frozen=True, slots=True)
class TrainedNCF:
    """What scoring takes: everything of a user and of an item that no other depends on is worked out."""

    users_UJ: FloatArray
    items_IJ: FloatArray
    perceptron: Perceptron
    attributes_AE: FloatArray | None
    """What every column of the user features adds to the perceptron's first layer; None without."""


def train_ncf(job: PairJob[NCFConfig], worker: Worker) -> tuple[TrainedNCF, Progress]:
    model = NCFNetwork(job, worker)
    progress = train(model.task(), job.config, worker, job.seed)
    return model.trained(), progress


class _Features(nn.Module):
    """What given features add to a half of the first layer; nothing where there are none. It starts at 0."""

    values_RF: Tensor | None

    def __init__(self, values_RF: FloatArray | None, width: int) -> None:
        super().__init__()
        values = None if values_RF is None else torch.from_numpy(np.array(values_RF, np.float32))
        self.register_buffer("values_RF", values, persistent=False)
        self.map = None if values_RF is None else nn.Linear(values_RF.shape[1], width, bias=False)
        if self.map is not None:
            nn.init.zeros_(self.map.weight)

    def forward(self, rows: Tensor) -> Tensor | float:
        if self.map is None or self.values_RF is None:
            return 0.0
        added: Tensor = self.map(self.values_RF[rows])
        return added

    def weights(self) -> FloatArray | None:
        """(F, width)"""
        return None if self.map is None else np.ascontiguousarray(self.map.weight.detach().cpu().numpy().T)


class NCFNetwork(nn.Module):
    """Vectors of both branches, and the layers behind them."""

    def __init__(self, job: PairJob[NCFConfig], worker: Worker) -> None:
        super().__init__()
        self.job, self.worker, self.config = job, worker, job.config
        torch.manual_seed(stream(job.seed, 0))
        config, self.num_users = job.config, len(job.histories)
        self.factors_ND = nn.Parameter(torch.from_numpy(job.initial_ND.copy()))
        self.inner_NF = nn.Parameter(torch.randn(len(job.initial_ND), config.mlp_dim) * config.initial_std)
        widths = config.hidden_layers
        self.user_half = nn.Linear(config.mlp_dim, widths[0])
        self.item_half = nn.Linear(config.mlp_dim, widths[0], bias=False)
        self.item_features = _Features(job.item_features_IF, widths[0])
        self.user_features = _Features(job.user_features_UA, widths[0])
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        is_free = config.similarity == "inner"
        self.factor_weights_D = nn.Parameter(torch.ones(config.embedding_dim), requires_grad=is_free)
        self.output = nn.Linear(widths[-1], 1)
        self.to(worker.device)
        matrix = job.histories.matrix(job.num_items)
        self.pairs = ObservedPairs(matrix, worker)
        self.propagation = propagation(Graph.of(matrix), equal_weights(config.layers), worker.device)
        self.negatives = NegativeSampler(
            self.pairs.counts_I,
            config.negatives,
            config.negative_strategy,
            power=config.popularity_power,
            candidates=config.hard_candidates,
        )

    def task(self) -> Task:
        steps = self.pairs.num_steps(self.config.batch_size)
        evaluate = None if self.job.held_out is None else self.quality
        return Task("ncf", self, steps, self.batches, self.loss, evaluate)

    def batches(self, epoch: int) -> Iterator[tuple[LongArray, torch.Generator]]:
        return self.pairs.batches(self.job.seed, epoch, self.config.batch_size)

    def loss(self, batch: tuple[LongArray, torch.Generator]) -> Tensor:
        rows, random = batch
        users_B, items_B, own = self.pairs.of(rows)
        final_ND = self.final()
        if self.config.loss not in ("bce", "bpr"):
            return self._softmax(final_ND, users_B[own], items_B, own, random)

        def score(items_BK: Tensor) -> Tensor:
            return self.scores(self.user_rows(final_ND, users_B)[:, None], self.item_rows(final_ND, items_BK))

        drawn_BM = self.pairs.unseen_negatives(self.negatives, users_B, items_B, random, score)[own]
        users = self.user_rows(final_ND, users_B[own])
        positive_B = self.scores(users, self.item_rows(final_ND, items_B[own]))
        negative_BM = self.scores(users[:, None], self.item_rows(final_ND, drawn_BM))
        compute = bpr if self.config.loss == "bpr" else binary_cross_entropy
        loss: Tensor = compute(positive_B, negative_BM)
        return loss + self._penalty(users_B[own], items_B[own], drawn_BM)

    def _softmax(
        self, final_ND: Tensor, users_B: Tensor, items_of_all: Tensor, own: Tensor, random: torch.Generator
    ) -> Tensor:
        sample, items_B = self.negatives.draw(random, items_of_all), items_of_all[own]
        users = self.user_rows(final_ND, users_B)
        positive_B = self.scores(users, self.item_rows(final_ND, items_B))
        negative_BM = self.scores_of_all(users, self.item_rows(final_ND, sample.items))
        loss = self.pairs.softmax((positive_B, negative_BM), sample, users_B, items_B, self.config)
        return loss + self._penalty(users_B, items_B)

    def final(self) -> Tensor:
        """(N, D) the vectors of the factor branch, smoothed over the interactions."""
        final_ND: Tensor = self.propagation(self.factors_ND)
        if self.config.similarity == "cosine":
            final_ND = functional.normalize(final_ND, dim=1) * self.config.temperature**-0.5
        return final_ND

    def user_rows(self, final_ND: Tensor, users: Tensor) -> Tensor:
        """(..., J) all that a score needs of the users: [g * p, U r + b1]."""
        half = self.user_half(self.inner_NF[users]) + self.user_features(users)
        return torch.cat([final_ND[users] * self.factor_weights_D, half], dim=-1)

    def item_rows(self, final_ND: Tensor, items: Tensor) -> Tensor:
        """(..., J) [q, V s]."""
        nodes = self.num_users + items
        return torch.cat([final_ND[nodes], self.item_half(self.inner_NF[nodes]) + self.item_features(items)], dim=-1)

    def scores(self, users: Tensor, items: Tensor) -> Tensor:
        """(...) of users' and items' rows, one by one."""
        (p, a), (q, c) = (rows.tensor_split([self.config.embedding_dim], dim=-1) for rows in (users, items))
        return (p * q).sum(dim=-1) + self._perceptron(a + c)

    def scores_of_all(self, users_BJ: Tensor, items_MJ: Tensor) -> Tensor:
        """(B, M) of all pairs."""
        (p, a), (q, c) = (rows.tensor_split([self.config.embedding_dim], dim=-1) for rows in (users_BJ, items_MJ))
        return p @ q.T + self._perceptron(a[:, None] + c)

    def _perceptron(self, first: Tensor) -> Tensor:
        """(...) of the summed halves of the first layer."""
        values = self._drop(functional.relu(first))
        for layer in self.layers:
            values = self._drop(functional.relu(layer(values)))
        result: Tensor = self.output(values)[..., 0]
        return result

    def _drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.config.dropout, self.training)

    def _penalty(self, users_B: Tensor, *items: Tensor) -> Tensor:
        """Half the squared length of the vectors that a pair of the batch takes part with, per pair."""
        if self.config.regularization == 0:
            return torch.zeros((), device=users_B.device)
        nodes = torch.cat([users_B, *(self.num_users + rows.flatten() for rows in items)])
        touched = self.factors_ND[nodes], self.inner_NF[nodes]
        squares = torch.stack([vectors.square().sum() for vectors in touched]).sum()
        return self.config.regularization * 0.5 * squares / len(users_B)

    @torch.no_grad()
    def trained(self) -> TrainedNCF:
        final_ND = self.final()
        users = self.user_rows(final_ND, torch.arange(self.num_users, device=self.worker.device))
        items = self.item_rows(final_ND, torch.arange(self.job.num_items, device=self.worker.device))
        weights = [value.flatten() for layer in (*self.layers, self.output) for value in (layer.weight, layer.bias)]
        perceptron = Perceptron(tuple(self.config.hidden_layers), torch.cat(weights).cpu().numpy())
        return TrainedNCF(users.cpu().numpy(), items.cpu().numpy(), perceptron, self.user_features.weights())

    def quality(self) -> float:
        """NDCG of the held-out items of the watched users."""
        from recsys_ray.retrieval import top_k_scores

        trained, dim = self.trained(), self.config.embedding_dim
        known_I = (self.pairs.counts_I > 0).cpu().numpy()
        users_UJ, factors_ID = trained.users_UJ, np.ascontiguousarray(trained.items_IJ[:, :dim])
        users_UJ[:, :dim] = self.config.recent.added(users_UJ[:, :dim], self.job.histories, factors_ID, known_I)

        def best(users: LongArray, k: int, exclude: ItemLists) -> IntArray:
            found = []
            for start in range(0, len(users), RANKED_USERS):
                stop = min(start + RANKED_USERS, len(users))
                scores_BI = np.empty((stop - start, self.job.num_items), np.float32)
                score_block(users_UJ[users[start:stop]], trained.items_IJ, trained.perceptron, scores_BI)
                found.append(top_k_scores(scores_BI, k, exclude.slice(start, stop)).rows_BK)
            return np.concatenate(found)

        assert self.job.held_out is not None
        return lists_quality(best, self.job.histories, self.job.held_out)
