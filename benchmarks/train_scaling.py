"""What a second worker brings: the same training of SASRec by one process and by two, with gloo on CPUs.

    python benchmarks/train_scaling.py [--users 2048] [--epochs 3] [--repeats 2]

Every process has one thread, whatever their number, and the batch is that of all together. Users have histories of
equal length, so that the mean of the workers' losses is the mean over the examples. The two take turns. Shown:

examples_seen, examples_shared   of an epoch: users that any of two workers trained on, and users that both did
loss_difference                  the largest between the two loss curves, relative to the loss
samples_per_second_...           users per second in the median epoch, by all workers and by each
ratio_samples_per_second         two workers over one: 2 would be a second worker that costs nothing
ratio_per_worker                 the same for each worker: 1 would be that
ratio_per_cpu_second             users per second of processor time, two over one: what sharing costs beside waiting,
                                 and the speed that other work on the machine disturbs least
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing

from recsys_ray.base.types import FloatArray, Histories, LongArray
from recsys_ray.models.sequence.network import Examples, SequenceJob
from recsys_ray.models.sequence.sasrec import SASRec
from recsys_ray.models.sequence.sasrec_network import SASRecNetwork
from recsys_ray.models.sequence.transformer import TransformerShape
from recsys_ray.training import LocalWorker
from recsys_ray.training.loop import train

ITEMS, LENGTH, DIM = 2000, 50, 64


class Watched(SASRecNetwork):
    """SASRecNetwork that keeps whom it trained on."""

    seen: list[int]

    def examples(self, users_B: LongArray, draws_BJ: FloatArray) -> Examples:
        self.seen += users_B.tolist()
        return super().examples(users_B, draws_BJ)


def job(users: int, epochs: int, batch_size: int) -> SequenceJob:
    """Every user walks through the items in steps of a size of their own: something to learn."""
    random = np.random.default_rng(0)
    first, step = random.integers(0, ITEMS, (2, users, 1))
    walks = (first + (step % 7 + 1) * np.arange(LENGTH + 1)) % ITEMS
    config = SASRec(
        epochs=epochs, batch_size=batch_size, embedding_dim=DIM, max_length=LENGTH, dropout=0.0, negatives=256
    )
    shape = TransformerShape(
        num_embeddings=ITEMS + 1, embedding_dim=DIM, hidden_dim=4 * DIM, blocks=2, heads=2, max_length=LENGTH,
        dropout=0.0, causal=True, activation="gelu",
    )  # fmt: skip
    return SequenceJob(Histories.from_lists(walks.tolist()), None, ITEMS, shape, config, seed=0)


def work(rank: int, world_size: int, given: SequenceJob, folder: str) -> None:
    """One process; what it saw and how fast goes into a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    model = Watched(given, LocalWorker(rank=rank, world_size=world_size))
    model.seen = []
    started = time.process_time()
    progress = train(model.task(), given.config, model.worker, given.seed)
    per_epoch = len(model.seen) // given.config.epochs
    facts = {
        "users": model.seen[:per_epoch],
        "losses": [epoch["loss"] for epoch in progress.history],
        "cpu_seconds": time.process_time() - started,
        "seconds": [epoch["seconds"] for epoch in progress.history],
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(facts))
    dist.destroy_process_group()


def run(world_size: int, given: SequenceJob) -> list[dict[str, Any]]:
    """What each worker said."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (world_size, given, folder), nprocs=world_size)
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(world_size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    given = job(options.users, options.epochs, options.batch_size)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    cpu_seconds: dict[int, list[float]] = {1: [], 2: []}
    said: dict[int, list[dict[str, Any]]] = {}
    for _ in range(options.repeats):
        for count in seconds:
            said[count] = run(count, given)
            seconds[count] += said[count][0]["seconds"]
            cpu_seconds[count].append(sum(worker["cpu_seconds"] for worker in said[count]))
    first, second = (set(worker["users"]) for worker in said[2])
    alone, together = (np.array(said[count][0]["losses"]) for count in (1, 2))
    speed = {count: options.users / statistics.median(times) for count, times in seconds.items()}
    result = {
        "benchmark": "train_scaling",
        "users": options.users,
        "batch_size": options.batch_size,
        "threads_per_worker": 1,
        "examples_seen": len(first | second),
        "examples_shared": len(first & second),
        "losses_one": [round(float(loss), 5) for loss in alone],
        "losses_two": [round(float(loss), 5) for loss in together],
        "loss_difference": float(f"{np.abs(together / alone - 1).max():.2g}"),
        "samples_per_second_one": round(speed[1]),
        "samples_per_second_two": round(speed[2]),
        "samples_per_second_per_worker_of_two": round(speed[2] / 2),
        "ratio_samples_per_second": round(speed[2] / speed[1], 3),
        "ratio_per_worker": round(speed[2] / speed[1] / 2, 3),
        "ratio_per_cpu_second": round(min(cpu_seconds[1]) / min(cpu_seconds[2]), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
