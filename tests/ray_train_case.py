"""A small training that a test runs in Ray's workers; in a module of its own, because workers import it by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys_ray.base.errors import ModelError
from recsys_ray.training import LoopConfig, Worker, loop
from recsys_ray.training.loop import Task, train
from recsys_ray.training.workers import batch_rows, own_rows

EPOCHS, ROWS = 5, 16


@dataclass
class Case:
    """``die_once`` is a file whose absence makes a worker end without a word in epoch 3. ``poisoned`` is one to which
    the last of the workers adds a byte before it fails, with an error of ours, in the same epoch."""

    die_once: Path | None = None
    poisoned: Path | None = None


def fit_line(case: Case, worker: Worker) -> tuple[list[float], list[float], list[int]]:
    """(weights, losses, epochs that this process worked on) of a linear regression, with a checkpoint every epoch."""
    loop.CHECKPOINT_SHARE = 1e9
    epochs: list[int] = []
    torch.manual_seed(0)
    module = torch.nn.Linear(2, 1, bias=False)
    inputs = torch.randn((ROWS, 2), generator=torch.Generator().manual_seed(1))
    targets = inputs @ torch.tensor([1.0, -2.0])

    def batches(epoch: int) -> Any:
        epochs.append(epoch)
        if epoch == 2 and case.die_once is not None and not case.die_once.exists():
            case.die_once.touch()
            os._exit(1)
        if epoch == 2 and case.poisoned is not None and worker.rank == worker.world_size - 1:
            with case.poisoned.open("ab") as tries:
                tries.write(b".")
            raise ModelError("line: loss nan in epoch 3, step 1")
        for rows in batch_rows(np.random.default_rng(epoch), ROWS, 8, worker.world_size):
            yield torch.from_numpy(own_rows(rows, worker))

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return (module(inputs[rows])[:, 0] - targets[rows]).square().mean()

    config = LoopConfig(epochs=EPOCHS, batch_size=8, learning_rate=0.1)
    progress = train(Task("line", module, 2, batches, loss), config, worker, seed=0)
    losses = [metrics["loss"] for metrics in progress.history]
    return module.weight.detach().flatten().tolist(), losses, epochs
