"""A training's state on disk, without pickle: tensors as safetensors, numbers as JSON.

model.safetensors      parameters and buffers
best.safetensors       those of the best evaluation, when there was one
optimizer.safetensors  what the optimizer keeps per parameter, "<number>.<name>"
progress.json          written last: epochs done, best value, history of the metrics
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recsys_ray.base.errors import ModelError

Tensors = dict[str, Tensor]
PROGRESS = "progress.json"


@dataclass(slots=True)
class Progress:
    """How far a training is."""

    epochs: int = 0
    """Epochs finished."""
    best: float | None = None
    best_epoch: int = 0
    stale: int = 0
    """Evaluations since the best one."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics of every epoch."""


def snapshot(module: nn.Module) -> Tensors:
    """A copy of the module's parameters and buffers, on the CPU."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in module.state_dict().items()}


def save(
    directory: Path, module: nn.Module, optimizer: torch.optim.Optimizer, best: Tensors, progress: Progress
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    save_file(snapshot(module), directory / "model.safetensors")
    if best:
        save_file(best, directory / "best.safetensors")
    state = optimizer.state_dict()["state"]
    kept = {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in kept.items()}, directory / "optimizer.safetensors"
    )
    (directory / PROGRESS).write_text(json.dumps(asdict(progress)))


def load(directory: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Tensors, Progress]:
    """Put the saved state into ``module`` and ``optimizer``; returns the best parameters so far and the progress.

    Raises:
        ModelError: the files are incomplete, damaged, or of another model.
    """
    try:
        progress = Progress(**json.loads((directory / PROGRESS).read_text()))
        module.load_state_dict(load_file(directory / "model.safetensors"))
        state: dict[int, Tensors] = {}
        for key, value in load_file(directory / "optimizer.safetensors").items():
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        best_file = directory / "best.safetensors"
        return (load_file(best_file) if best_file.exists() else {}), progress
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{directory}: not a checkpoint of this training ({first}); remove it to start over"
        ) from error
