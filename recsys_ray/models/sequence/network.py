"""Sequence models on the training loop: states against item vectors, whatever positions they are asked at.

P are the positions that predict something, N all embeddings: items, then special tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_ray.base.types import FloatArray, Histories, ItemContent, ItemLists, LongArray
from recsys_ray.models.holdout import ranking_quality
from recsys_ray.models.sequence.padding import newest, newest_times
from recsys_ray.models.sequence.transformer import SequenceEncoder, TransformerShape
from recsys_ray.training.checkpoint import Progress, snapshot
from recsys_ray.training.loop import Task, generator, stream, train
from recsys_ray.training.losses import (
    HIDDEN,
    binary_cross_entropy,
    direct_au,
    generalized_bce,
    hardest,
    ranking_softmax,
    softmax_over_all,
)
from recsys_ray.training.negatives import NegativeSampler, is_member
from recsys_ray.training.worker import Worker
from recsys_ray.training.workers import batch_rows, gather_rows, num_steps, own_rows

if TYPE_CHECKING:
    from recsys_ray.models.sequence.config import SequenceConfig

ENCODE_ROWS = 256  # histories encoded at once

Examples = tuple[LongArray, LongArray, LongArray | None]
"""(B, L) what the network sees, what it should say at each position, the padding where nothing, and when the events
were, None where the network does not ask."""


@dataclass(frozen=True, slots=True)
class SequenceJob:
    """All that a worker needs; travels as it is."""

    histories: Histories
    held_out: ItemLists | None
    num_items: int
    shape: TransformerShape
    config: SequenceConfig
    seed: int
    content: ItemContent | None = None
    """Vectors of the items' texts and posters, where the model takes them."""


Batch = tuple[LongArray, LongArray, LongArray, torch.Generator, LongArray | None]
"""(B,) users, their inputs and targets, the step's random numbers, and the times of the inputs."""


class NextItem(nn.Module):
    """The encoder and its loss; what is predicted from what, ``examples`` of the subclass says."""

    name: str

    def __init__(self, job: SequenceJob, worker: Worker) -> None:
        super().__init__()
        self.job, self.worker, self.config = job, worker, job.config
        torch.manual_seed(stream(job.seed, 0))
        trained_I = np.bincount(job.histories.items_E, minlength=job.num_items) > 0
        self.encoder = SequenceEncoder(job.shape, job.content, trained_I).to(worker.device)
        self.users = np.flatnonzero(job.histories.lengths_B >= 2)
        counts_I = np.bincount(job.histories.items_E, minlength=job.num_items)
        self.negatives = NegativeSampler(
            torch.from_numpy(counts_I).to(worker.device),
            job.config.negatives,
            job.config.negative_strategy,
            power=job.config.popularity_power,
            candidates=job.config.hard_candidates,
        )
        self.keys_E = torch.zeros(0, dtype=torch.int64)
        if job.config.negative_strategy == "hard":
            keys = np.unique(job.histories.rows_E.astype(np.int64) * job.num_items + job.histories.items_E)
            self.keys_E = torch.from_numpy(keys).to(worker.device)

    def examples(self, users_B: LongArray, draws_BJ: FloatArray) -> Examples:
        """Those of the users; ``draws_BJ`` are uniform in [0, 1), J = max_length + 1, for the random part of them."""
        raise NotImplementedError

    def task(self) -> Task:
        steps = num_steps(len(self.users), self.config.batch_size)
        evaluate = None if self.job.held_out is None else self.quality
        return Task(self.name, self, steps, self.batches, self.loss, evaluate)

    def batches(self, epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng(stream(self.job.seed, epoch))
        parts = batch_rows(rng, len(self.users), self.config.batch_size, self.worker.world_size)
        for step, rows in enumerate(parts):
            # Drawn for all workers' rows: a row's example is the same however many share the batch.
            draws_BJ = rng.random((len(rows), self.config.max_length + 1), np.float32)
            own = own_rows(np.arange(len(rows)), self.worker)
            # Of like length together: the encoder takes groups of neighbours as rectangles.
            own = own[np.argsort(self.job.histories.lengths_B[self.users[rows[own]]], kind="stable")]
            users_B = self.users[rows[own]]
            inputs_BL, targets_BL, times_BL = self.examples(users_B, draws_BJ[own])
            yield users_B, inputs_BL, targets_BL, generator(self.worker.device, self.job.seed, epoch, step), times_BL

    def loss(self, batch: Batch) -> Tensor:
        users_B, inputs_BL, targets_BL = (torch.from_numpy(array).to(self.worker.device) for array in batch[:3])
        # The encoder gives real positions only, row by row: the targets in the same order, then those there are.
        real_BL = inputs_BL != self.encoder.padding
        targets = targets_BL[real_BL]
        wanted = targets != self.encoder.padding
        users_P = users_B[:, None].expand_as(inputs_BL)[real_BL][wanted]
        table_ND = self.encoder.table()
        times_BL = None if batch[4] is None else torch.from_numpy(batch[4]).to(self.worker.device)
        states_PD = self.encoder(inputs_BL, table_ND, times_BL)[wanted]
        return self._against_items(states_PD, table_ND, targets[wanted], users_P, batch[3])

    def _against_items(
        self, states_PD: Tensor, items_ND: Tensor, targets_P: Tensor, users_P: Tensor, random: torch.Generator
    ) -> Tensor:
        config = self.config
        if config.similarity == "cosine":
            states_PD = functional.normalize(states_PD, dim=1) / config.temperature
            items_ND = functional.normalize(items_ND, dim=1)
        if config.loss == "cross_entropy":
            return softmax_over_all(states_PD, items_ND[: self.job.num_items], targets_P)
        if config.loss == "direct_au":
            return direct_au(states_PD, items_ND[targets_P], config.uniformity_weight, self._of_all)
        sample = self.negatives.draw(random, targets_P)
        positive_P = (states_PD * items_ND[targets_P]).sum(dim=1)
        negative_PM = states_PD @ items_ND[sample.items].T
        expected_M = sample.log_expected if config.correct_popularity else None
        if config.negative_strategy == "hard":
            mine_PM = is_member(users_P, sample.items[None, :], self.keys_E, self.job.num_items)
            negative_PM, expected_M = hardest(negative_PM, config.negatives, mine_PM), None
        else:
            negative_PM = negative_PM.masked_fill(sample.items == targets_P[:, None], HIDDEN)
        if config.loss == "bce":
            return binary_cross_entropy(positive_P, negative_PM)
        if config.loss == "gbce":
            rate = min(1.0, config.negatives / max(self.job.num_items - 1, 1))
            return generalized_bce(positive_P, negative_PM, rate, config.calibration)
        if expected_M is not None:
            negative_PM = negative_PM - expected_M
        return ranking_softmax(positive_P, negative_PM, users_P, self.job.num_items, config)

    def _of_all(self, rows_PD: Tensor) -> Tensor:
        return gather_rows(rows_PD, self.worker)

    def quality(self) -> float:
        """NDCG of the held-out items of the watched users."""
        assert self.job.held_out is not None
        queries_UD = np.zeros((len(self.job.histories), self.job.shape.embedding_dim), np.float32)
        watched = np.flatnonzero(self.job.held_out.lengths_B > 0)
        queries_UD[watched] = encode(self.encoder, self.job.histories, watched, self.worker.device)
        items_ID = item_vectors(self.encoder, self.job.num_items, self.config.similarity)
        return ranking_quality(queries_UD, items_ID, self.job.histories, self.job.held_out)


def train_model(model: NextItem) -> tuple[dict[str, FloatArray], Progress]:
    """The encoder's weights by name; what content adds to items is in their vectors."""
    progress = train(model.task(), model.config, model.worker, model.job.seed)
    encoder = model.encoder
    weights = {name: value.numpy() for name, value in snapshot(encoder).items() if not name.startswith("content_map")}
    with torch.no_grad():
        weights["embedding.weight"] = np.ascontiguousarray(encoder.table().float().cpu().numpy())
    return weights, progress


def encode(encoder: SequenceEncoder, histories: Histories, rows_B: LongArray, device: str = "cpu") -> FloatArray:
    """(B, D) what follows the newest event of the rows, each of which has one: the state there, or in both directions
    that of a mask behind it."""
    queries_BD = np.zeros((len(rows_B), encoder.shape.embedding_dim), np.float32)
    events = encoder.shape.max_length if encoder.shape.causal else encoder.shape.max_length - 1
    # Of like length together: little is padded, and no row's numbers depend on which others are there.
    order_B = np.argsort(histories.lengths_B[rows_B], kind="stable")
    with torch.inference_mode():
        for start in range(0, len(order_B), ENCODE_ROWS):
            places = order_B[start : start + ENCODE_ROWS]
            items_BL = newest(histories, rows_B[places], events, encoder.padding)
            times_BL = newest_times(histories, rows_B[places], events) if encoder.shape.relative_time else None
            if not encoder.shape.causal:
                items_BL = np.pad(items_BL, ((0, 0), (0, 1)), constant_values=encoder.mask)
                # Nobody knows when the next event will be; the mask stands at the time of the newest.
                times_BL = None if times_BL is None else np.pad(times_BL, ((0, 0), (0, 1)), mode="edge")
            times = None if times_BL is None else torch.from_numpy(times_BL).to(device)
            states_PD = encoder(torch.from_numpy(items_BL).to(device), times_BL=times)
            # The encoder gives the states of real positions only, row by row: the last of a row is where these end.
            last_B = (items_BL != encoder.padding).sum(axis=1).cumsum() - 1
            queries_BD[places] = states_PD[torch.from_numpy(last_B)].float().cpu().numpy()
    return queries_BD


def item_vectors(encoder: SequenceEncoder, num_items: int, similarity: str) -> FloatArray:
    """(I, D) what a query is multiplied with."""
    items_ID = encoder.table().detach()[:num_items]
    if similarity == "cosine":
        items_ID = functional.normalize(items_ID, dim=1)
    return np.ascontiguousarray(items_ID.float().cpu().numpy())
