"""What workers do together. With one worker every function is the identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys_ray.contracts import LongArray
from recsys_ray.training.worker import Worker


def average_gradients(parameters: Sequence[nn.Parameter], worker: Worker) -> None:
    """Every gradient becomes its mean over the workers."""
    if worker.world_size == 1:
        return
    for parameter in parameters:
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)
        parameter.grad /= worker.world_size


def all_mean(value: Tensor, worker: Worker) -> Tensor:
    """A number's mean over the workers."""
    if worker.world_size > 1:
        dist.all_reduce(value)
        value /= worker.world_size
    return value


def same_everywhere(compute: Callable[[], float], worker: Worker) -> float:
    """What the first worker computes, on all of them."""
    if worker.world_size == 1:
        return compute()
    value = torch.zeros((), dtype=torch.float64, device=worker.device)
    if worker.rank == 0:
        value += compute()
    dist.broadcast(value, src=0)
    return float(value)


def num_steps(num_examples: int, batch_size: int) -> int:
    """Steps of an epoch over all examples."""
    return max(1, -(-num_examples // batch_size))


def batch_rows(rng: np.random.Generator, num_examples: int, batch_size: int, world_size: int) -> list[LongArray]:
    """An epoch's examples in random order, cut into ``num_steps`` batches of nearly equal size.

    Each is a multiple of ``world_size`` long, so that all workers weigh the same: a batch loses fewer than
    ``world_size`` examples, others in every epoch. With fewer examples than workers they are repeated.
    """
    steps = num_steps(num_examples, batch_size)
    order = rng.permutation(max(num_examples, 1)) if num_examples else np.zeros(0, np.int64)
    order = np.resize(order, max(num_examples, steps * world_size))
    parts = np.array_split(order, steps)
    return [part[: len(part) // world_size * world_size] for part in parts]


def own_rows(rows: LongArray, worker: Worker) -> LongArray:
    """This worker's share of a batch's rows."""
    return rows[worker.rank :: worker.world_size]
