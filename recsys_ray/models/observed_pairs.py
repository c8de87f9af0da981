"""Observed pairs of users and items as the examples of a training.

E are pairs; N = U + I: users, then items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from recsys_ray.base.types import FloatArray, Histories, ItemLists, LongArray
from recsys_ray.training.loop import generator, stream
from recsys_ray.training.losses import HIDDEN, Ranking, direct_au, hardest, ranking_softmax
from recsys_ray.training.negatives import NegativeSampler, Sample, is_member
from recsys_ray.training.worker import Worker
from recsys_ray.training.workers import batch_rows, gather_rows, num_steps, own_rows

if TYPE_CHECKING:
    import scipy.sparse as sp

Config = TypeVar("Config")


class Sampling(Ranking, Protocol):
    """What the settings of a model say of its loss and its negatives."""

    @property
    def negatives(self) -> int: ...

    @property
    def negative_strategy(self) -> str: ...

    @property
    def correct_popularity(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class PairJob(Generic[Config]):
    """All that a worker of such a training needs; travels as it is."""

    histories: Histories
    held_out: ItemLists | None
    """Targets of the users that are watched, empty lists for the others."""
    num_items: int
    initial_ND: FloatArray
    """Where the trained vectors start, users first."""
    config: Config
    seed: int
    item_features_IF: FloatArray | None = None
    """What a model may take of the items beside their vectors."""
    user_features_UA: FloatArray | None = None


class ObservedPairs:
    """The non-zeros of a (U, I) matrix, on the worker's device."""

    def __init__(self, matrix: sp.csr_matrix, worker: Worker) -> None:
        matrix.sort_indices()
        self.worker, self.num_items = worker, matrix.shape[1]
        users_E = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
        self.users_E = torch.from_numpy(users_E).to(worker.device)
        self.items_E = torch.from_numpy(matrix.indices.astype(np.int64)).to(worker.device)
        self.keys_E = self.users_E * self.num_items + self.items_E
        self.counts_I = torch.bincount(self.items_E, minlength=self.num_items)

    def __len__(self) -> int:
        return len(self.users_E)

    def num_steps(self, batch_size: int) -> int:
        return num_steps(len(self), batch_size)

    def batches(self, seed: int, epoch: int, batch_size: int) -> Iterator[tuple[LongArray, torch.Generator]]:
        """The pairs of every batch, of all workers: each takes its share after the negatives are drawn."""
        rng = np.random.default_rng(stream(seed, epoch))
        for step, rows in enumerate(batch_rows(rng, len(self), batch_size, self.worker.world_size)):
            yield rows, generator(self.worker.device, seed, epoch, step)

    def of(self, rows: LongArray) -> tuple[Tensor, Tensor, Tensor]:
        """(users_B, items_B) of a batch, of all workers, and the places in it that are this worker's."""
        own = torch.from_numpy(own_rows(np.arange(len(rows)), self.worker)).to(self.worker.device)
        pairs = torch.from_numpy(rows).to(self.worker.device)
        return self.users_E[pairs], self.items_E[pairs], own

    def unseen_negatives(
        self,
        sampler: NegativeSampler,
        users_B: Tensor,
        items_B: Tensor,
        random: torch.Generator,
        score: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """(B, M) drawn items; one that is among the user's own is drawn once more."""
        drawn_BM = sampler.draw(random, items_B, score, per_row=True).items
        again_BM = sampler.draw(random, items_B, score, per_row=True).items
        return torch.where(self.are_mine(users_B, drawn_BM), again_BM, drawn_BM)

    def softmax(
        self, scores: tuple[Tensor, Tensor], sample: Sample, users_B: Tensor, items_B: Tensor, settings: Sampling
    ) -> Tensor:
        """The loss of (B,) positive and (B, M) negative scores, negatives being those of a shared ``sample``."""
        positive_B, negative_BM = scores
        if settings.negative_strategy == "hard":
            mine_BM = self.are_mine(users_B, sample.items[None, :])
            negative_BM = hardest(negative_BM, settings.negatives, mine_BM)
        else:
            if settings.correct_popularity:
                negative_BM = negative_BM - sample.log_expected
            negative_BM = negative_BM.masked_fill(sample.items == items_B[:, None], HIDDEN)
        # A user's pairs are spread over the workers: what counts a user as a whole is told of all.
        together = settings.loss == "bilateral_softmax" and self.worker.world_size > 1
        others = (gather_rows(positive_B, self.worker), gather_rows(users_B, self.worker)) if together else None
        return ranking_softmax(positive_B, negative_BM, users_B, self.num_items, settings, others)

    def direct_au(self, users_BD: Tensor, items_BD: Tensor, weight: float) -> Tensor:
        """The loss of the pairs' vectors."""
        return direct_au(users_BD, items_BD, weight, lambda rows: gather_rows(rows, self.worker))

    def are_mine(self, users_B: Tensor, items_BM: Tensor) -> Tensor:
        """(B, M) whether the users have the items; (1, M) items are the same for all."""
        return is_member(users_B, items_BM, self.keys_E, self.num_items)
