"""SASRec's training: ours against a plain PyTorch implementation of the paper's network, same sizes, batches and loss.

    python benchmarks/sequence_training.py [--data ../shared/datasets/amazon-beauty/Beauty.txt] [--steps 20]
        [--repeats 3] [--floor .064 --epochs 20]

Sizes and settings are those of configs/beauty-sasrec.yaml. The plain network pads every history to ``max_length``, as
the usual implementations do, adds a vector for each place, and runs torch's own transformer layers; both compare every
position with the same number of sampled items. Some steps of each are timed in turn after a warm-up; an example is a
user's history. ratio_examples_per_second is ours over plain: above 1 we are faster.

With ``--floor`` both are also trained, epoch by epoch in turn, until the NDCG@10 of the validation part (all items
ranked) is at least that, or the epochs are over; the seconds are those of the training alone, null where the floor was
not reached. Without --data the histories are synthetic, of Beauty's size and lengths, and no floor is asked for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_ray.base.types import FloatArray, Histories, ItemLists, LongArray
from recsys_ray.config import load_config
from recsys_ray.models.sequence.fit import shape_of
from recsys_ray.models.sequence.network import SequenceJob, encode, item_vectors
from recsys_ray.models.sequence.padding import newest
from recsys_ray.models.sequence.sasrec import SASRec
from recsys_ray.models.sequence.sasrec_network import SASRecNetwork
from recsys_ray.retrieval import ExactIndex
from recsys_ray.training import LocalWorker
from recsys_ray.training.loop import training_step
from recsys_ray.training.losses import HIDDEN
from recsys_ray.training.schedule import learning_rate
from recsys_ray.training.workers import batch_rows, num_steps

CONFIGURATION = Path(__file__).parent.parent / "configs" / "beauty-sasrec.yaml"
USERS, ITEMS = 22_363, 12_101  # of Beauty


def read(path: Path) -> tuple[list[list[int]], int]:
    """Histories of three events and more, oldest first, and the number of items."""
    rows = [[int(item) - 1 for item in line.split()[1:]] for line in path.read_text().splitlines()]
    kept = [row for row in rows if len(row) >= 3]
    return kept, 1 + max(max(row) for row in kept)


def synthetic(seed: int) -> tuple[list[list[int]], int]:
    rng = np.random.default_rng(seed)
    lengths = 5 + rng.geometric(1 / 4.9, USERS) - 1
    popularity = rng.lognormal(sigma=1.0, size=ITEMS)
    items = rng.choice(ITEMS, int(lengths.sum()), p=popularity / popularity.sum())
    return [row.tolist() for row in np.split(items, np.cumsum(lengths)[:-1])], ITEMS


class Plain(nn.Module):
    """The paper's network over (B, max_length) items, padded on the left; the last row of the table is the padding."""

    def __init__(self, num_items: int, config: SASRec) -> None:
        super().__init__()
        dim, self.padding = config.embedding_dim, num_items
        self.items = nn.Embedding(num_items + 1, dim, padding_idx=num_items)
        self.places = nn.Embedding(config.max_length, dim)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            dim, config.heads, config.hidden_multiple * dim, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, config.blocks, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.dropout, self.scale = nn.Dropout(config.dropout), dim**0.5
        self.register_buffer("causal", nn.Transformer.generate_square_subsequent_mask(config.max_length))

    def forward(self, items_BL: Tensor) -> Tensor:
        values_BLD = self.dropout(self.items(items_BL) * self.scale + self.places.weight)
        states: Tensor = self.blocks(values_BLD, mask=self.causal)
        return states


class PlainTraining:
    """Its loop, as it is usually written."""

    def __init__(self, histories: Histories, num_items: int, config: SASRec) -> None:
        torch.manual_seed(0)
        self.histories, self.num_items, self.config = histories, num_items, config
        self.model = Plain(num_items, config)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.users = np.flatnonzero(histories.lengths_B >= 2)

    def padded(self, users_B: LongArray, length: int) -> LongArray:
        found_BL = newest(self.histories, users_B, length, self.num_items)
        return np.pad(found_BL, ((0, 0), (length - found_BL.shape[1], 0)), constant_values=self.num_items)

    def batches(self, epoch: int) -> Iterator[LongArray]:
        for rows in batch_rows(np.random.default_rng(epoch), len(self.users), self.config.batch_size, 1):
            yield self.users[rows]

    def step(self, users_B: LongArray, rate: float) -> None:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        wide = torch.from_numpy(self.padded(users_B, self.config.max_length + 1))
        inputs_BL, targets_BL = wide[:, :-1], wide[:, 1:]
        states_BLD = self.model(inputs_BL)
        drawn_M = torch.randint(self.num_items, (self.config.negatives,))
        table = self.model.items.weight
        positive_BL = (states_BLD * table[targets_BL]).sum(dim=2)
        negative_BLM = states_BLD @ table[drawn_M].T - np.log(self.config.negatives / self.num_items)
        negative_BLM = negative_BLM.masked_fill(drawn_M == targets_BL[..., None], HIDDEN)
        losses_BL = functional.softplus(torch.logsumexp(negative_BLM, dim=2) - positive_BL)
        loss = losses_BL[inputs_BL != self.model.padding].mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def vectors(self) -> tuple[FloatArray, FloatArray]:
        """((U, D) queries, (I, D) items)"""
        self.model.eval()
        parts = []
        with torch.inference_mode():
            for users_B in np.array_split(np.arange(len(self.histories)), max(1, len(self.histories) // 256)):
                inputs = torch.from_numpy(self.padded(users_B, self.config.max_length))
                parts.append(self.model(inputs)[:, -1].numpy())
        return np.concatenate(parts), self.model.items.weight.detach()[: self.num_items].numpy()


class OurTraining:
    """The product's network and step."""

    def __init__(self, histories: Histories, num_items: int, config: SASRec) -> None:
        shape = shape_of(num_items, config, causal=True)
        self.config = config
        self.model = SASRecNetwork(SequenceJob(histories, None, num_items, shape, config, 0), LocalWorker())
        self.task = self.model.task()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), weight_decay=config.weight_decay, fused=True)

    def batches(self, epoch: int) -> Iterator[Any]:
        yield from self.task.batches(epoch)

    def step(self, batch: Any, rate: float) -> None:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        training_step(self.task, self.optimizer, self.config, self.model.worker, batch, (0, 0))

    def vectors(self) -> tuple[FloatArray, FloatArray]:
        self.model.eval()
        encoder, histories = self.model.encoder, self.model.job.histories
        queries = encode(encoder, histories, np.arange(len(histories)))
        return queries, item_vectors(encoder, self.model.job.num_items, self.config.similarity)


Training = PlainTraining | OurTraining


def step_seconds(training: Training, steps: int) -> Callable[[], list[float]]:
    """A function that times ``steps`` more steps."""
    batches = (batch for epoch in range(10**6) for batch in training.batches(epoch))

    def measure() -> list[float]:
        found = []
        for _ in range(steps):
            started = time.perf_counter()
            training.step(next(batches), training.config.learning_rate)
            found.append(time.perf_counter() - started)
        return found

    return measure


def ndcg(training: Training, histories: Histories, targets_U: LongArray) -> float:
    """NDCG@10 of one held-out item a user."""
    queries_UD, items_ID = training.vectors()
    seen = ItemLists(histories.offsets_B1, histories.items_E)
    best_UK = ExactIndex(np.ascontiguousarray(items_ID)).search(np.ascontiguousarray(queries_UD), 10, seen).rows_BK
    return float(((best_UK == targets_U[:, None]) / np.log2(np.arange(2, 12))).sum(axis=1).mean())


def to_floor(
    trainings: dict[str, Training], histories: Histories, targets_U: LongArray, floor: float
) -> dict[str, float | None]:
    """Seconds of training until the floor, epoch by epoch in turn."""
    spent, reached = dict.fromkeys(trainings, 0.0), dict[str, float | None](dict.fromkeys(trainings))
    config = next(iter(trainings.values())).config
    steps = num_steps(int((histories.lengths_B >= 2).sum()), config.batch_size)
    for epoch in range(config.epochs):
        for name, training in trainings.items():
            if reached[name] is not None:
                continue
            started = time.perf_counter()
            for step, batch in enumerate(training.batches(epoch)):
                training.step(batch, learning_rate(epoch * steps + step, config.epochs * steps, config))
            spent[name] += time.perf_counter() - started
            quality = ndcg(training, histories, targets_U)
            print(f"{name}: epoch {epoch + 1}, {spent[name]:.0f} s, valid NDCG@10 {quality:.4f}", flush=True)
            if quality >= floor:
                reached[name] = spent[name]
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="Beauty.txt")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--floor", type=float, help="NDCG@10 of the validation part; needs --data")
    parser.add_argument("--epochs", type=int, help="at most, with --floor; those of the configuration by default")
    options = parser.parse_args()
    if options.floor is not None and options.data is None:
        parser.error("--floor needs --data")
    rows, num_items = synthetic(0) if options.data is None else read(options.data)
    histories, targets_U = Histories.from_lists([row[:-2] for row in rows]), np.array([row[-2] for row in rows])
    overrides = [] if options.epochs is None else [f"model.epochs={options.epochs}"]
    config = load_config(str(CONFIGURATION), overrides).model
    assert isinstance(config, SASRec)
    kinds: dict[str, type[Training]] = {"ours": OurTraining, "plain": PlainTraining}
    timed = {name: step_seconds(kind(histories, num_items, config), options.steps) for name, kind in kinds.items()}
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for measure in timed.values():
        measure()
    for _ in range(options.repeats):
        for name, measure in timed.items():
            seconds[name] += measure()
    users = min(config.batch_size, int((histories.lengths_B >= 2).sum()))
    speed = {name: users / statistics.median(found) for name, found in seconds.items()}
    result: dict[str, Any] = {
        "benchmark": "sequence_training",
        "data": "synthetic" if options.data is None else options.data.stem,
        "threads": torch.get_num_threads(),
        "batch_size": config.batch_size,
        "examples_per_second_ours": round(speed["ours"]),
        "examples_per_second_plain": round(speed["plain"]),
        "ratio_examples_per_second": round(speed["ours"] / speed["plain"], 2),
    }
    if options.floor is not None:
        trainings = {name: kind(histories, num_items, config) for name, kind in kinds.items()}
        reached = to_floor(trainings, histories, targets_U, options.floor)
        ours, plain = reached["ours"], reached["plain"]
        result |= {"floor": options.floor, "seconds_to_floor_ours": ours, "seconds_to_floor_plain": plain}
        result["ratio_seconds_to_floor"] = None if ours is None or plain is None else round(plain / ours, 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
