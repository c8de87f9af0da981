"""What a training knows of the processes that share it. No torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from recsys_ray.base.types import FitContext

Result = TypeVar("Result")


class TrainedSoFar(Protocol):
    """The epochs of a training."""

    @property
    def history(self) -> list[dict[str, float]]: ...


Trained = TypeVar("Trained", bound=TrainedSoFar)


class Worker(Protocol):
    """One of the processes that train a module together."""

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def device(self) -> str:
        """As torch names it: "cpu", "cuda:0"."""
        ...

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether a checkpoint that is reported can ever be asked for again."""
        ...

    def latest(self) -> AbstractContextManager[str | None]:
        """The directory of the last checkpoint of this training, None at its start."""
        ...

    def report(self, metrics: dict[str, float], checkpoint: str | None) -> None:
        """Once an epoch, by all workers: its metrics, and a directory whose files are copied before this returns."""
        ...


@dataclass(frozen=True, slots=True)
class LocalWorker:
    """This process, without checkpoints."""

    progress: Callable[[str], None] = field(default=lambda message: None)
    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    keeps_checkpoints: bool = False

    def latest(self) -> AbstractContextManager[str | None]:
        return nullcontext(None)

    def report(self, metrics: dict[str, float], checkpoint: str | None) -> None:
        self.progress(progress_line(metrics))


def progress_line(metrics: dict[str, float]) -> str:
    """The metrics of an epoch for people."""
    return "train: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def run_workers(
    context: FitContext, fn: Callable[[Any, Worker], tuple[Result, Trained]], shared: Any, key: str
) -> tuple[Result, Trained]:
    """``fn(shared, worker)`` where the context says, by default here. What it measured goes into the context."""
    if context.run_workers is None:
        result = fn(shared, LocalWorker(context.progress))
    else:
        result = context.run_workers(fn, shared, key)
    context.epochs.extend(result[1].history)
    return result
