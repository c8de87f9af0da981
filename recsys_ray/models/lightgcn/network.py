"""LightGCN as a module on the training loop; ``fit.py`` beside it says what it computes.

N are the nodes: users, then items. E are pairs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_ray.base.types import FloatArray, LongArray
from recsys_ray.models.holdout import ranking_quality
from recsys_ray.models.linalg.graph import Graph, Propagator, equal_weights
from recsys_ray.models.observed_pairs import ObservedPairs, PairJob
from recsys_ray.models.scorers.base import with_length_power
from recsys_ray.training.checkpoint import Progress
from recsys_ray.training.loop import Task, train
from recsys_ray.training.losses import bpr
from recsys_ray.training.negatives import NegativeSampler
from recsys_ray.training.worker import Worker

if TYPE_CHECKING:
    from recsys_ray.models.lightgcn.config import LightGCNConfig


def train_lightgcn(job: PairJob[LightGCNConfig], worker: Worker) -> tuple[FloatArray, Progress]:
    """(N, D) the trained layer-0 embeddings, users first."""
    model = LightGCNNetwork(job, worker)
    progress = train(model.task(), job.config, worker, job.seed)
    return model.embeddings_ND.detach().cpu().numpy(), progress


class LightGCNNetwork(nn.Module):
    """The embeddings of layer 0 and their propagation."""

    def __init__(self, job: PairJob[LightGCNConfig], worker: Worker) -> None:
        super().__init__()
        self.job, self.worker, self.config = job, worker, job.config
        matrix = job.histories.matrix(job.num_items)
        self.pairs = ObservedPairs(matrix, worker)
        self.num_users = matrix.shape[0]
        self.embeddings_ND = nn.Parameter(torch.from_numpy(job.initial_ND.copy()).to(worker.device))
        self.graph = Graph.of(matrix)
        self.propagation = propagation(self.graph, equal_weights(job.config.layers), worker.device)
        self.negatives = NegativeSampler(
            self.pairs.counts_I,
            job.config.negatives,
            job.config.negative_strategy,
            power=job.config.popularity_power,
            candidates=job.config.hard_candidates,
        )

    def task(self) -> Task:
        return Task(
            "lightgcn",
            self,
            self.pairs.num_steps(self.config.batch_size),
            self.batches,
            self.loss,
            None if self.job.held_out is None else self.quality,
        )

    def batches(self, epoch: int) -> Iterator[tuple[LongArray, torch.Generator]]:
        return self.pairs.batches(self.job.seed, epoch, self.config.batch_size)

    def loss(self, batch: tuple[LongArray, torch.Generator]) -> Tensor:
        rows, random = batch
        users_B, items_B, own = self.pairs.of(rows)
        at_end = self.config.propagate == "end"
        final_ND = self.embeddings_ND if at_end else self.propagation(self.embeddings_ND)
        compute = self._bpr if self.config.loss == "bpr" else self._softmax
        return compute(final_ND, users_B, items_B, own, random)

    def _bpr(self, final_ND: Tensor, users_B: Tensor, items_B: Tensor, own: Tensor, random: torch.Generator) -> Tensor:
        vectors = final_ND[users_B], final_ND[self.num_users + items_B]

        def score(items_BM: Tensor) -> Tensor:
            return torch.einsum("bd,bmd->bm", vectors[0].detach(), final_ND[self.num_users + items_BM].detach())

        drawn_BM = self.pairs.unseen_negatives(self.negatives, users_B, items_B, random, score)[own]
        negatives = final_ND[self.num_users + drawn_BM]
        positive_B = (vectors[0][own] * vectors[1][own]).sum(dim=1)
        negative_BM = torch.einsum("bd,bmd->bm", vectors[0][own], negatives)
        loss = bpr(positive_B, negative_BM)
        return loss + self._penalty(users_B[own], items_B[own], drawn_BM)

    def _softmax(
        self, final_ND: Tensor, users_B: Tensor, items_B: Tensor, own: Tensor, random: torch.Generator
    ) -> Tensor:
        users_BD = final_ND[users_B[own]]
        positives_BD = final_ND[self.num_users + items_B[own]]
        if self.config.loss == "direct_au":
            loss = self.pairs.direct_au(users_BD, positives_BD, self.config.uniformity_weight)
            return loss + self._penalty(users_B[own], items_B[own])
        sample = self.negatives.draw(random, items_B)
        negatives_MD = final_ND[self.num_users + sample.items]
        if self.config.similarity == "cosine":
            users_BD, positives_BD, negatives_MD = (
                functional.normalize(values, dim=1) for values in (users_BD, positives_BD, negatives_MD)
            )
        users_BD = users_BD / self.config.temperature
        positive_B, negative_BM = (users_BD * positives_BD).sum(dim=1), users_BD @ negatives_MD.T
        scores = positive_B, negative_BM
        loss = self.pairs.softmax(scores, sample, users_B[own], items_B[own], self.config)
        return loss + self._penalty(users_B[own], items_B[own])

    def _penalty(self, users_B: Tensor, *items: Tensor) -> Tensor:
        """Half the squared length of the rows of layer 0 that a pair of the batch takes part with, per pair."""
        if self.config.regularization == 0:
            return torch.zeros((), device=users_B.device)
        rows = torch.cat([users_B, *(self.num_users + values.flatten() for values in items)])
        return self.config.regularization * 0.5 * self.embeddings_ND[rows].square().sum() / len(users_B)

    def quality(self) -> float:
        """NDCG of the held-out items of the watched users."""
        assert self.job.held_out is not None
        with torch.no_grad():
            final_ND = self.propagation(self.embeddings_ND.detach()).cpu().numpy()
        users_UD, items_ID = np.split(final_ND, [self.num_users])
        ranked_ID = with_length_power(items_ID, self.config.length_power)
        known_I = (self.pairs.counts_I > 0).cpu().numpy()
        queries_UD = self.config.recent.added(users_UD, self.job.histories, ranked_ID, known_I)
        return ranking_quality(queries_UD, ranked_ID, self.job.histories, self.job.held_out)


class _Propagate(torch.autograd.Function):
    """The compiled product with its gradient, which is the same product: A is symmetric."""

    @staticmethod
    def forward(ctx: Any, values_ND: Tensor, forward: Propagator, backward: Propagator) -> Tensor:
        ctx.backward_product = backward
        return torch.from_numpy(forward(values_ND.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return torch.from_numpy(ctx.backward_product(gradients[0].contiguous().numpy())), None, None


class _OnCPU(nn.Module):
    def __init__(self, graph: Graph, layer_weights: tuple[float, ...]) -> None:
        super().__init__()
        self.once = Propagator(graph, layer_weights)
        self.steps = Propagator(graph, layer_weights, reuse=True), Propagator(graph, layer_weights, reuse=True)

    def forward(self, values_ND: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return torch.from_numpy(self.once(values_ND.detach().numpy()))
        return _Propagate.apply(values_ND, *self.steps)  # type: ignore[no-any-return]


class SparseProduct(nn.Module):
    """(N, D) -> (N, D) by torch's sparse product: what GPUs have."""

    def __init__(self, graph: Graph, layer_weights: tuple[float, ...], device: str) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support")  # no news to who trains
            self.matrix = torch.sparse_csr_tensor(
                torch.from_numpy(graph.offsets_N1),
                torch.from_numpy(graph.neighbors_E.astype(np.int64)),
                torch.from_numpy(graph.values_E),
                (graph.num_nodes, graph.num_nodes),
                device=device,
                check_invariants=True,
            )
        self.layer_weights = layer_weights

    def forward(self, values_ND: Tensor) -> Tensor:
        return _PropagateSparse.apply(values_ND, self.matrix, self.layer_weights)  # type: ignore[no-any-return]


class _PropagateSparse(torch.autograd.Function):
    """The sparse product with its gradient, which is the same product."""

    @staticmethod
    def forward(ctx: Any, values_ND: Tensor, matrix: Tensor, layer_weights: tuple[float, ...]) -> Tensor:
        ctx.matrix, ctx.layer_weights = matrix, layer_weights
        return _horner(values_ND, matrix, layer_weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _horner(gradients[0], ctx.matrix, ctx.layer_weights), None, None


def _horner(values_ND: Tensor, matrix: Tensor, layer_weights: tuple[float, ...]) -> Tensor:
    # Outside the loop's autocast: sparse products are bound by memory, and mixed types are not among them.
    with torch.autocast(values_ND.device.type, enabled=False):
        sums_ND = values_ND.float() * layer_weights[-1]
        for weight in reversed(layer_weights[:-1]):
            sums_ND = torch.addmm(values_ND.float(), matrix, sums_ND, beta=weight)
    return sums_ND


def propagation(graph: Graph, layer_weights: tuple[float, ...], device: str) -> nn.Module:
    """(N, D) -> (N, D), differentiable: the fastest product that the device has."""
    return _OnCPU(graph, layer_weights) if device == "cpu" else SparseProduct(graph, layer_weights, device)
