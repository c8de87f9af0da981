"""Neural training on Ray Train: a group of workers, checkpoints in the run's storage, restarts after failures.

A worker that dies takes its group down; the training starts again and continues from the last checkpoint, at most
``max_failures`` times. An error of ours ends it at once: trying it again would end the same. When the driver dies, the
same command finds the checkpoints again: they lie under a name that is made of everything that decides the result.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import TrainingFailedError, WorkerGroupError

from recsys_ray.base.errors import ModelError, RecsysError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import RunWorkers
from recsys_ray.cluster.progress import Outlet
from recsys_ray.cluster.session import largest_machine, set_threads
from recsys_ray.training import WorkerSettings, progress_line

ENVIRONMENT = {
    # A watcher for machines about to be taken away: checkpoints are regular, and on one machine it fills the log.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # A report waits until the controller looks for it, by default every two seconds: epochs can be shorter.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}
"""Ray Train's switches; one that is set already stays."""


def ray_workers(
    settings: WorkerSettings, storage: Location, fingerprint: str, outlet: Outlet | None = None
) -> RunWorkers:
    """``FitContext.run_workers`` on Ray Train.

    ``storage`` is where checkpoints go, reached from every machine; it is empty again after a training that ended well.
    ``fingerprint`` stands for data, model and settings: under another one no checkpoint is found. ``outlet`` takes a
    line an epoch, and one for every new start.
    """

    def run(fn: Callable[[Any, Any], Any], shared: Any, key: str) -> Any:
        name = hashlib.sha256(f"{fingerprint}/{key}/{settings.count}".encode()).hexdigest()[:16]
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        config = {"fn": fn, "shared": ray.put(shared), "threads": _cpus(settings), "outlet": outlet}
        with _telling(outlet) as tell:
            for failures in range(settings.max_failures + 1):
                if failures:
                    tell(f"train: a worker was lost, starting again ({failures} of {settings.max_failures})")
                try:
                    answer = _trainer(settings, storage, name, config).fit().return_value  # type: ignore[attr-defined]
                except TrainingFailedError as error:
                    if ours := _our_error(error):
                        raise ours from None
                    if failures == settings.max_failures or not isinstance(error, WorkerGroupError):
                        raise _lost(error, settings) from None
                else:
                    break
        (storage / name).remove()
        return answer

    return run


def _trainer(
    settings: WorkerSettings, storage: Location, name: str, config: dict[str, Any]
) -> ray.train.torch.TorchTrainer:
    """One attempt; under the same name it continues where the one before was lost."""
    resources = {"CPU": config["threads"], **({"GPU": settings.gpus} if settings.gpus else {})}
    return ray.train.torch.TorchTrainer(
        _in_worker,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.count, use_gpu=settings.gpus > 0, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=0),  # failures are judged in ``ray_workers``
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            logging_config=ray.train.LoggingConfig(log_level="CRITICAL"),  # type: ignore[call-arg]
        ),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if settings.gpus else "gloo"),
    )


class RayWorker:
    """``training.Worker`` in a process of Ray Train."""

    keeps_checkpoints = True

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = str(ray.train.torch.get_device())

    @contextmanager
    def latest(self) -> Iterator[str | None]:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as directory:
                yield directory

    def report(self, metrics: dict[str, float], checkpoint: str | None) -> None:
        kept = None if checkpoint is None else ray.train.Checkpoint.from_directory(checkpoint)
        ray.train.report(metrics, checkpoint=kept)
        if self.rank == 0:
            self._tell(progress_line(metrics))


def _in_worker(config: dict[str, Any]) -> Any:
    set_threads(config["threads"])
    with _telling(config["outlet"]) as tell:
        return config["fn"](ray.get(config["shared"]), RayWorker(tell))


def _telling(outlet: Outlet | None) -> AbstractContextManager[Callable[[str], None]]:
    return nullcontext(lambda message: None) if outlet is None else outlet.open()


def _cpus(settings: WorkerSettings) -> int:
    return settings.cpus or max(1, largest_machine() // settings.count)


def _our_error(error: TrainingFailedError) -> RecsysError | None:
    """The error of ours that a worker ended with. The others may have ended too, for want of that one."""
    for failure in _failures(error):
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, RecsysError):
                return seen
            seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def _lost(error: TrainingFailedError, settings: WorkerSettings) -> ModelError:
    """One line on how workers were lost."""
    first = (str(next(iter(_failures(error)), error)).strip() or "no message").splitlines()
    return ModelError(
        f"training: workers failed more than training.workers.max_failures={settings.max_failures} times; the last one "
        f"with: {first[0]}"
    )


def _failures(error: TrainingFailedError) -> list[BaseException]:
    return list(getattr(error, "worker_failures", {}).values())
