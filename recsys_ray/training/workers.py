"""What workers do together. With one worker every function is the identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys_ray.base.types import LongArray
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


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def all_sum(values: Tensor, worker: Worker) -> Tensor:
    """The sum over the workers, differentiable: the gradient is summed over what all of them do with it."""
    return values if worker.world_size == 1 else _AllSum.apply(values)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_BD: Tensor, worker: Worker) -> Tensor:
        lengths_S = torch.zeros(worker.world_size, dtype=torch.int64, device=rows_BD.device)
        lengths_S[worker.rank] = len(rows_BD)
        dist.all_reduce(lengths_S)
        lengths = lengths_S.tolist()
        ctx.own = slice(sum(lengths[: worker.rank]), sum(lengths[: worker.rank + 1]))
        # Collectives want equal shapes.
        padded = rows_BD.new_zeros(max(lengths), *rows_BD.shape[1:])
        padded[: len(rows_BD)] = rows_BD
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total[ctx.own], None


def gather_rows(rows_BD: Tensor, worker: Worker) -> Tensor:
    """The rows of the first worker, then those of the second, and so on, on all of them.

    Each may hold a different number. Differentiable: a row's gradient is summed over what all workers do with it, so
    that, for a loss that is the mean of the workers' losses, averaging the parameters' gradients stays right.
    """
    return rows_BD if worker.world_size == 1 else _GatherRows.apply(rows_BD, worker)


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


def own_part(rows: LongArray, worker: Worker) -> LongArray:
    """This worker's share as one piece: ``gather_rows`` of all shares is in the order of ``rows``."""
    return np.array_split(rows, worker.world_size)[worker.rank]
