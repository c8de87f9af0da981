"""The loop: epochs of a fixed number of steps, each a loss, a gradient averaged over the workers, and an Adam step.

What is trained is a ``Task``: a module, the examples' batches, a loss. All randomness of an epoch comes from (seed,
epoch), so a training that was stopped between two epochs continues as if it had not been. Workers hold the same module,
work on different rows of every batch, and average their gradients: the result is that of one worker up to rounding.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recsys_ray.base.errors import ModelError
from recsys_ray.training import checkpoint
from recsys_ray.training.checkpoint import Progress, Tensors
from recsys_ray.training.config import LoopConfig
from recsys_ray.training.schedule import learning_rate
from recsys_ray.training.worker import Worker
from recsys_ray.training.workers import all_mean, average_gradients, same_everywhere

CHECKPOINT_SHARE = 0.05  # of the time, at most, goes into checkpoints: a large model is not written every short epoch


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained."""

    name: str
    """The model's, for messages."""
    module: nn.Module
    steps: int
    """Steps of every epoch, the same on all workers: known before the loop, so that none waits for another for ever."""
    batches: Callable[[int], Iterator[Any]]
    """The batches of an epoch, at least ``steps`` of them; they hold this worker's rows."""
    loss: Callable[[Any], Tensor]
    """The mean loss of one batch."""
    evaluate: Callable[[], float] | None = None
    """How good the module is, higher is better; None where nothing is held out."""


def train(task: Task, config: LoopConfig, worker: Worker, seed: int) -> Progress:
    """Train ``task.module`` in place, to the parameters of the best evaluation or of the last epoch.

    Raises:
        ModelError: a loss or gradient is not finite (before the step that it would spoil), or memory ran out.
    """
    # fused: one pass over parameters, gradients and moments instead of one a moment.
    optimizer = torch.optim.AdamW(
        task.module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    best, progress = _restore(task, optimizer, worker)
    saved, cost = time.monotonic(), 0.0  # the first epoch is written, and says what writing costs
    while progress.epochs < config.epochs and not _stale(progress, config):
        started = time.perf_counter()
        mean = _epoch(task, optimizer, config, worker, seed, progress.epochs)
        progress.epochs += 1
        metrics = {"epoch": progress.epochs, "loss": mean, "seconds": time.perf_counter() - started}
        if task.evaluate is not None and progress.epochs % config.evaluate_every == 0:
            metrics["valid"] = same_everywhere(task.evaluate, worker)
            best = _compare(metrics["valid"], best, task.module, progress)
        progress.history.append(metrics)
        over = progress.epochs == config.epochs or _stale(progress, config)
        ended = time.monotonic()
        due = worker.keeps_checkpoints and (over or (ended - saved) * CHECKPOINT_SHARE >= cost)
        if same_everywhere(lambda due=due: float(due), worker):  # type: ignore[misc]
            _report(task, optimizer, best, progress, metrics, worker)
            saved = time.monotonic()
            cost = saved - ended
        else:
            worker.report(metrics, None)
    if best:
        task.module.load_state_dict(best)
    return progress


def _epoch(
    task: Task, optimizer: torch.optim.Optimizer, config: LoopConfig, worker: Worker, seed: int, epoch: int
) -> float:
    """All steps of one epoch; the mean loss over workers and steps."""
    torch.manual_seed(stream(seed, epoch, worker.rank))  # of dropout
    task.module.train()
    total = torch.zeros((), device=worker.device)
    batches = task.batches(epoch)
    for step in range(task.steps):
        number = epoch * task.steps + step
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, config.epochs * task.steps, config)
        with _memory_advice(task.name, config, epoch, step):
            total += training_step(task, optimizer, config, worker, next(batches), (epoch, step))
    task.module.eval()
    return float(total) / task.steps


def training_step(
    task: Task,
    optimizer: torch.optim.Optimizer,
    config: LoopConfig,
    worker: Worker,
    batch: Any,
    where: tuple[int, int],
) -> Tensor:
    """One step on one batch, ``where`` = (epoch, step); the loss, averaged over the workers."""
    optimizer.zero_grad(set_to_none=True)
    with precision(worker.device):
        loss = task.loss(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [parameter for parameter in task.module.parameters() if parameter.grad is not None]
    average_gradients(parameters, worker)
    mean = all_mean(loss.detach(), worker)
    norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip or float("inf"))
    if not bool(torch.isfinite(mean) & torch.isfinite(norm)):
        raise ModelError(
            f"{task.name}: loss {float(mean):g} with gradient norm {float(norm):g} in epoch {where[0] + 1}, step "
            f"{where[1] + 1}; nothing was changed by it; lower model.learning_rate or set model.gradient_clip"
        )
    optimizer.step()
    return mean


def stream(*keys: int) -> int:
    """A seed for torch from (seed, epoch, ...): independent of those of other keys."""
    import numpy as np

    return int(np.random.SeedSequence(list(keys)).generate_state(1, np.uint64)[0] >> 1)


def generator(device: str, *keys: int) -> torch.Generator:
    """A generator on the device for (seed, epoch, step, ...)."""
    return torch.Generator(device).manual_seed(stream(*keys))


def precision(device: str) -> AbstractContextManager[Any]:
    """bfloat16 matrix products on a GPU, float32 on a CPU, where few have fast ones."""
    return torch.autocast("cuda", torch.bfloat16) if device.startswith("cuda") else nullcontext()


def _stale(progress: Progress, config: LoopConfig) -> bool:
    return progress.stale >= config.patience


def _compare(value: float, best: Tensors, module: nn.Module, progress: Progress) -> Tensors:
    """The parameters to keep after an evaluation."""
    if progress.best is not None and value <= progress.best:
        progress.stale += 1
        return best
    progress.best, progress.best_epoch, progress.stale = value, progress.epochs, 0
    return checkpoint.snapshot(module)


def _restore(task: Task, optimizer: torch.optim.Optimizer, worker: Worker) -> tuple[Tensors, Progress]:
    with worker.latest() as directory:
        if directory is None:
            return {}, Progress()
        return checkpoint.load(Path(directory), task.module, optimizer)


def _report(
    task: Task,
    optimizer: torch.optim.Optimizer,
    best: Tensors,
    progress: Progress,
    metrics: dict[str, float],
    worker: Worker,
) -> None:
    """Metrics with a checkpoint; the first worker writes it, all hold the same."""
    if worker.rank > 0:
        worker.report(metrics, None)
        return
    directory = Path(tempfile.mkdtemp(prefix="checkpoint-"))
    try:
        checkpoint.save(directory, task.module, optimizer, best, progress)
        worker.report(metrics, str(directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _memory_advice(name: str, config: LoopConfig, epoch: int, step: int) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # The CPU allocator has no error class of its own.
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
            raise ModelError(
                f"{name}: out of memory in epoch {epoch + 1}, step {step + 1}; lower model.batch_size (now "
                f"{config.batch_size}) or model.embedding_dim"
            ) from error
        raise
