"""Two-Tower on the training loop; ``fit.py`` beside it says what it computes.

A batch is a number of users with all they have, or a draw of it as targets. Every item that a batch meets is encoded
once: each worker encodes a part of them, all get all vectors, and gradients flow back to where a vector was made. So
in-batch negatives come from all workers, and nothing is computed twice.

E are the pairs of a batch's users, P those whose items are targets, R this worker's share of these; N are the distinct
items of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_ray.base.ragged import places_in_rows
from recsys_ray.base.types import BoolArray, FloatArray, ItemLists, LongArray, Requests
from recsys_ray.data.attributes import AttributeEncoder
from recsys_ray.data.features import HistorySums
from recsys_ray.models.holdout import ranking_quality
from recsys_ray.models.scorers.base import with_length_power
from recsys_ray.models.two_tower.inputs import CONTENT, HistoryFeatures, ItemInputs, Pairs, TowerShape
from recsys_ray.models.two_tower.objective import Compared, objective
from recsys_ray.models.two_tower.scorer import TowerScorer
from recsys_ray.models.two_tower.towers import Tower
from recsys_ray.training.checkpoint import Progress, snapshot
from recsys_ray.training.loop import Task, generator, stream, train
from recsys_ray.training.negatives import NegativeSampler, is_member
from recsys_ray.training.worker import Worker
from recsys_ray.training.workers import batch_rows, gather_rows, num_steps, own_part

if TYPE_CHECKING:
    from recsys_ray.models.two_tower.config import TwoTowerConfig

ENCODE_ROWS = 8192  # items encoded at once when all are wanted


@dataclass(frozen=True, slots=True)
class TwoTowerJob:
    """All that a worker needs; travels as it is."""

    pairs: Pairs
    items: ItemInputs
    history_weight_I: FloatArray
    """Weight of each item in a pooled history."""
    features: HistoryFeatures | None
    sums: HistorySums | None
    """What the features of all users are made of."""
    attributes: AttributeEncoder | None
    attributes_UA: FloatArray | None
    """What the table of users says of each, encoded."""
    watched: Requests | None
    held_out: ItemLists | None
    """Held-out items of the watched users, in their order."""
    initial_ND: FloatArray
    """Where the vectors of ids start, users first."""
    item_shape: TowerShape
    user_shape: TowerShape
    config: TwoTowerConfig
    seed: int


def train_two_tower(job: TwoTowerJob, worker: Worker) -> tuple[TowerScorer, Progress]:
    model = TwoTowerNetwork(job, worker)
    progress = train(model.task(), job.config, worker, job.seed)
    return model.scorer(), progress


@dataclass(frozen=True, slots=True)
class Batch:
    """The users of one step, of all workers, and its random numbers; the same on every worker."""

    users_B: LongArray
    """Worker r's are those at r, r + S, r + 2 S, ..., as many for each of the S workers."""
    rows_E: LongArray
    """The place in ``users_B`` of every pair of theirs."""
    pairs_E: LongArray
    is_target_E: BoolArray
    random: torch.Generator


class ItemEncoder(nn.Module):
    """The item tower with all its inputs."""

    trained_I: Tensor
    catalogue_IF: Tensor | None
    interactions_IF: Tensor
    content_IF: Tensor | None
    text_IF: Tensor | None
    image_IF: Tensor | None

    def __init__(self, job: TwoTowerJob, worker: Worker) -> None:
        super().__init__()
        self.unknown = job.items.num_items
        self.ids = _embedding(job.initial_ND[-job.items.num_items :])
        self.tower = Tower(job.item_shape, worker)
        for name, array in asdict(job.items).items():
            self.register_buffer(name, None if array is None else torch.from_numpy(np.array(array)), persistent=False)

    def forward(self, items_N: Tensor, dropped_N: Tensor | None = None) -> Tensor:
        """(N, D); a dropped item is taken for one that nobody has touched."""
        known_N = self.trained_I[items_N]
        if dropped_N is not None:
            known_N = known_N & ~dropped_N
        inputs = {"id": self.ids(torch.where(known_N, items_N, self.unknown))}
        if self.catalogue_IF is not None:
            learned_NF = self.interactions_IF[items_N] * known_N[:, None]
            inputs["features"] = torch.cat([self.catalogue_IF[items_N], learned_NF], dim=1)
        for name, vectors_IF in zip(CONTENT, (self.content_IF, self.text_IF, self.image_IF), strict=True):
            if vectors_IF is not None:
                inputs[name] = vectors_IF[items_N]
        vectors_ND: Tensor = self.tower(inputs)
        return vectors_ND

    def all_vectors(self) -> FloatArray:
        """(I, D)"""
        with torch.inference_mode():
            everything = torch.arange(self.unknown, device=self.ids.weight.device)
            blocks = torch.split(everything, ENCODE_ROWS)
            return np.concatenate([self(block).float().cpu().numpy() for block in blocks])


class TwoTowerNetwork(nn.Module):
    """Both towers and their loss."""

    def __init__(self, job: TwoTowerJob, worker: Worker) -> None:
        super().__init__()
        self.job, self.worker, self.config = job, worker, job.config
        torch.manual_seed(stream(job.seed, 0))
        self.items = ItemEncoder(job, worker)
        self.history = ItemEncoder(job, worker) if self.config.history_items == "own" else None
        self.users = Tower(job.user_shape, worker)
        lengths_U = job.pairs.lengths_B
        self.user_ids = _embedding(job.initial_ND[: len(lengths_U)]) if self.config.user_id else None
        self.rating_line = nn.Parameter(torch.tensor([1.0, 0.0])) if "mse" in self.config.loss else None
        self.to(worker.device)
        self.counts_I = torch.from_numpy(np.bincount(job.pairs.items_E, minlength=job.items.num_items)).to(
            worker.device
        )
        self.negatives = NegativeSampler(
            self.counts_I,
            self.config.negatives,
            self.config.negative_strategy,
            power=self.config.popularity_power,
            candidates=self.config.hard_candidates,
        )
        self.keys_E = torch.zeros(0, dtype=torch.int64)
        if self.config.negative_strategy == "hard":
            keys_E = job.pairs.rows_E.astype(np.int64) * job.items.num_items + job.pairs.items_E
            self.keys_E = torch.from_numpy(keys_E).to(worker.device)
        self.active = np.flatnonzero(lengths_U)

    def task(self) -> Task:
        steps = num_steps(len(self.active), self.config.batch_size)
        return Task(
            "two_tower", self, steps, self.batches, self.loss, None if self.job.watched is None else self.quality
        )

    def batches(self, epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng(stream(self.job.seed, epoch))
        parts = batch_rows(rng, len(self.active), self.config.batch_size, self.worker.world_size)
        for step, rows in enumerate(parts):
            # The batch's users, and all their pairs end to end: the place of its user in the batch, its own among all.
            users_B = self.active[rows]
            rows_E, pairs_E = self.job.pairs.entries_of(users_B)
            is_target_E = _first_of_row(rng.permutation(len(rows_E)), rows_E, self.config.positives_per_user)
            yield Batch(
                users_B, rows_E, pairs_E, is_target_E, generator(self.worker.device, self.job.seed, epoch, step)
            )

    def loss(self, batch: Batch) -> Tensor:
        """The mean over this worker's targets, scaled so that the workers' mean is that over all targets."""
        # The item of every pair of the batch; those of the pairs that are targets.
        history_E = self.job.pairs.items_E[batch.pairs_E]
        targets_P = self._tensor(history_E[batch.is_target_E])
        drawn_M, expected_M = torch.zeros(0, dtype=torch.int64), None
        if self.config.loss not in ("info_nce", "direct_au", "mse"):
            sample = self.negatives.draw(batch.random, targets_P)
            drawn_M, expected_M = sample.items.cpu(), sample.log_expected
        # N: the items of all histories and the drawn ones, each once; a spot is an item's place among them.
        items_N, spots = np.unique(np.concatenate([history_E, drawn_M.numpy()]), return_inverse=True)
        spots_E, spots_M = np.split(spots, [len(history_E)])
        items_ND, history_ND = self._vectors(items_N, batch.random)
        queries_RD, own_R = self._queries(batch, history_ND, spots_E)
        items_ND = self._comparable(items_ND)
        users_P = batch.users_B[batch.rows_E[batch.is_target_E]]
        compared = Compared(
            mine_RM=self._mine(users_P[own_R], drawn_M),
            queries_RD=self._comparable(queries_RD),
            own_R=self._tensor(own_R),
            targets_PD=functional.embedding(self._tensor(spots_E[batch.is_target_E]), items_ND),
            items_P=targets_P,
            users_P=self._tensor(batch.rows_E[batch.is_target_E]),
            ratings_P=self._tensor(self.job.pairs.ratings_E[batch.pairs_E[batch.is_target_E]]),
            negatives_MD=functional.embedding(self._tensor(spots_M), items_ND),
            items_M=self._tensor(drawn_M.numpy()),
            expected_M=expected_M,
        )
        loss = objective(compared, self.config, self.counts_I, self.rating_line, self._of_all)
        return loss * (len(own_R) * self.worker.world_size / len(targets_P))

    def _of_all(self, rows_RD: Tensor) -> Tensor:
        return gather_rows(rows_RD, self.worker)

    def _mine(self, users_R: LongArray, drawn_M: Tensor) -> Tensor | None:
        """(R, M) which drawn items the users have, where negatives are chosen by their scores."""
        if self.config.negative_strategy != "hard":
            return None
        return is_member(self._tensor(users_R), self._tensor(drawn_M.numpy())[None, :], self.keys_E, len(self.counts_I))

    def _tensor(self, array: LongArray | FloatArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.worker.device)

    def _comparable(self, vectors_BD: Tensor) -> Tensor:
        return functional.normalize(vectors_BD, dim=1) if self.config.similarity == "cosine" else vectors_BD

    def _vectors(self, items_N: LongArray, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """((N, D) as candidates, (N, D) as parts of a history), every worker's share encoded by itself."""
        dropped = self._dropped(len(items_N), random)
        items, places = self._tensor(own_part(items_N, self.worker)), own_part(np.arange(len(items_N)), self.worker)
        dropped_N = None if dropped is None else dropped[self._tensor(places)]
        items_ND = gather_rows(self.items(items, dropped_N), self.worker)
        if self.history is None:
            return items_ND, items_ND
        return items_ND, gather_rows(self.history(items, dropped_N), self.worker)

    def _dropped(self, count: int, random: torch.Generator) -> Tensor | None:
        """(count,) whose ids are hidden in this step; drawn for all workers alike."""
        if self.config.id_dropout == 0:
            return None
        return torch.rand(count, generator=random, device=self.worker.device) < self.config.id_dropout

    def _queries(self, batch: Batch, history_ND: Tensor, spots_E: LongArray) -> tuple[Tensor, LongArray]:
        """((P, D) queries of this worker's targets, their places among all targets).

        A target is taken out of its history: sums over the whole history are made once for each user.
        """
        pairs, count = self.job.pairs, self.worker.world_size
        # Below, E, P and B are this worker's alone: places among the batch's pairs, and those of them that are targets.
        size = len(batch.users_B) // count
        own_E = np.flatnonzero(batch.rows_E % count == self.worker.rank)
        own_P = own_E[batch.is_target_E[own_E]]
        # Users r, r + S, r + 2 S, ... become rows 0, 1, 2, ... of this worker.
        rows_E, rows_P = batch.rows_E[own_E] // count, batch.rows_E[own_P] // count
        weights_E, weights_P = pairs.weights_E[batch.pairs_E[own_E]], pairs.weights_E[batch.pairs_E[own_P]]
        # The weight of a user's whole history, and what is left of it without each target.
        totals_B = np.bincount(rows_E, weights_E, minlength=size)
        rest_P = totals_B[rows_P] - weights_P
        # Nothing left: a mean of zero, which passes no gradient on.
        shares_P = np.where(rest_P > 1e-6 * totals_B[rows_P], 1 / np.maximum(rest_P, 1e-30), 0).astype(np.float32)
        # A bag is a user's history: its pairs follow each other, from where the user's row is first met.
        sums_BD = functional.embedding_bag(
            self._tensor(spots_E[own_E]),
            history_ND,
            self._tensor(np.searchsorted(rows_E, np.arange(size))),
            mode="sum",
            per_sample_weights=self._tensor(weights_E),
        )
        # A user's sum once for each target of theirs, without that target; then as a mean.
        targets_PD = functional.embedding(self._tensor(spots_E[own_P]), history_ND) * self._tensor(weights_P)[:, None]
        left_PD = functional.embedding(self._tensor(rows_P), sums_BD) - targets_PD
        inputs = {"history": left_PD * self._tensor(shares_P)[:, None]}
        if self.job.features is not None:
            inputs["features"] = self._tensor(self._features(batch, own_P))
        if self.job.attributes_UA is not None:
            inputs["attributes"] = self._tensor(self.job.attributes_UA[batch.users_B[batch.rows_E[own_P]]])
        if self.user_ids is not None:
            users_B = self._tensor(batch.users_B)
            dropped_B = self._dropped(len(users_B), batch.random)
            if dropped_B is not None:
                users_B = torch.where(dropped_B, self.user_ids.num_embeddings - 1, users_B)
            inputs["id"] = self.user_ids(users_B[self._tensor(batch.rows_E[own_P])])
        # own_P counts among the batch's pairs; looked up in the targets of all workers it counts among those.
        return self.users(inputs), np.searchsorted(np.flatnonzero(batch.is_target_E), own_P)

    def _features(self, batch: Batch, places_P: LongArray) -> FloatArray:
        """(P, F) of the histories without their targets."""
        pairs, features, sums = self.job.pairs, self.job.features, self.job.sums
        assert features is not None and sums is not None
        # Each target's pair among all pairs; its user's sums, once for each target, without it.
        pairs_P = batch.pairs_E[places_P]
        rest = sums.rows(batch.users_B[batch.rows_E[places_P]]).without(
            pairs.items_E[pairs_P],
            pairs.counts_E[pairs_P],
            pairs.sums_E[pairs_P],
            pairs.squares_E[pairs_P],
            features.genres_IG,
        )
        return features.of(rest)

    def quality(self) -> float:
        """NDCG of the held-out items of the watched users."""
        assert self.job.watched is not None and self.job.held_out is not None
        scorer = self.scorer()
        queries_BD = scorer.queries(self.job.watched)
        return ranking_quality(queries_BD, scorer.items_ID, self.job.watched.histories, self.job.held_out)

    def scorer(self) -> TowerScorer:
        """The finished model."""
        training = self.training
        self.eval()
        raw_ID = self.items.all_vectors()
        cosine = self.config.similarity == "cosine"
        items_ID = with_length_power(raw_ID, self.config.length_power) if cosine else raw_ID
        history_ID = raw_ID if self.history is None else self.history.all_vectors()
        known_U = self.job.pairs.lengths_B > 0
        users_UJ = None if self.user_ids is None else self.user_ids.weight.detach().float().cpu().numpy().copy()
        self.train(training)
        return TowerScorer(
            items_ID=items_ID,
            history_ID=history_ID,
            history_weight_I=self.job.history_weight_I,
            scorable_I=self.job.items.scorable_I,
            similarity=self.config.similarity,
            pooling=self.config.pooling,
            weights={name: value.numpy() for name, value in snapshot(self.users).items()},
            shape=asdict(self.job.user_shape),
            users_UJ=users_UJ,
            known_U=known_U if users_UJ is not None else None,
            features=self.job.features,
            attributes=self.job.attributes,
            recent=self.config.recent,
        )


def _embedding(initial_ND: FloatArray) -> nn.Embedding:
    """A row each, and a last one for the unknown, which is zero until ids are dropped in training."""
    rows_ND = torch.from_numpy(initial_ND.copy())  # what comes through Ray is read-only
    weight_ND = torch.cat([rows_ND, rows_ND.new_zeros(1, rows_ND.shape[1])])
    return nn.Embedding(len(weight_ND), weight_ND.shape[1], _weight=weight_ND)


def _first_of_row(order_E: LongArray, rows_E: LongArray, most: int | None) -> BoolArray:
    """(E,) which entries are among the ``most`` first of their row in this order; all where it is None."""
    if most is None:
        return np.ones(len(rows_E), np.bool_)
    # The entries row by row, inside a row in this order; an entry's place there is how many of its row come before.
    sorted_E = np.lexsort((order_E, rows_E))
    first_E = np.zeros(len(rows_E), np.bool_)
    first_E[sorted_E] = places_in_rows(np.bincount(rows_E)) < most
    return first_E
