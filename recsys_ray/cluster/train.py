"""Neural training on Ray Train: a group of workers, checkpoints in the run's storage, restarts after failures.

A worker that dies takes its group down; Ray starts a new one, which continues from the last checkpoint, at most
``max_failures`` times. An error of ours ends the training at once: trying it again would end the same. When the driver
dies, the same command finds the checkpoints again: they lie under a name that is made of everything that decides the
result.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train.v2._internal.execution import context as reports
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.exceptions import TrainingFailedError

from recsys_ray.base.errors import ModelError, RecsysError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import RunWorkers
from recsys_ray.cluster.session import WorkerSettings, set_threads
from recsys_ray.training import progress_line


def ray_workers(settings: WorkerSettings, storage: Location, fingerprint: str) -> RunWorkers:
    """``FitContext.run_workers`` on Ray Train.

    ``storage`` is where checkpoints go, reached from every machine; it is empty again after a training that ended well.
    ``fingerprint`` stands for data, model and settings: under another one no checkpoint is found.
    """

    def run(fn: Callable[[Any, Any], Any], shared: Any, key: str) -> Any:
        name = hashlib.sha256(f"{fingerprint}/{key}/{settings.count}".encode()).hexdigest()[:16]
        # A watcher for machines about to be taken away: checkpoints are regular, and on one machine it fills the log.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # A report waits until the controller looks for it, by default every two seconds: epochs can be shorter.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        quiet = LoggingConfig(log_level="CRITICAL")  # what goes wrong is raised, once
        trainer = _Trainer(
            _in_worker,
            train_loop_config={"fn": fn, "shared": ray.put(shared), "threads": _cpus(settings)},
            scaling_config=ray.train.ScalingConfig(
                num_workers=settings.count,
                use_gpu=settings.gpus > 0,
                resources_per_worker={"CPU": _cpus(settings), **({"GPU": settings.gpus} if settings.gpus else {})},
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=str(storage),
                failure_config=ray.train.FailureConfig(max_failures=settings.max_failures),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
                logging_config=quiet,  # type: ignore[call-arg]
            ),
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if settings.gpus else "gloo"),
        )
        try:
            answer = trainer.fit().return_value  # type: ignore[attr-defined]
        except TrainingFailedError as error:
            raise _our_error(error) or _lost(error, settings) from None
        (storage / name).remove()
        return answer

    return run


class RayWorker:
    """``training.Worker`` in a process of Ray Train."""

    keeps_checkpoints = True

    def __init__(self) -> None:
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
            sys.stderr.write(progress_line(metrics) + "\n")  # Ray Train has a print of its own, which says it twice
            sys.stderr.flush()


class _Trainer(ray.train.torch.TorchTrainer):
    """With failures judged by ``_Failures``, and without the actor that asks the dashboard's State API every second
    whether the controller is alive.

    A Ray of our own has no dashboard, and each question would be an error in the log. What it would clean up, the
    workers' placement group, goes with the job anyway.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        arguments["failure_policy"] = _Failures(arguments["failure_policy"].failure_config)
        return super()._initialize_and_run_controller(**arguments)  # type: ignore[misc]


class _Failures(DefaultFailurePolicy):
    """A lost worker is replaced; an error of ours is final."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        if _our_error(training_failed_error) is not None:
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


def _in_worker(config: dict[str, Any]) -> Any:
    for name in ("ray.train", reports.__file__):  # a line for every report; the second is named after its file
        logging.getLogger(name).setLevel(logging.ERROR)
    set_threads(config["threads"])
    return config["fn"](ray.get(config["shared"]), RayWorker())


def _cpus(settings: WorkerSettings) -> int:
    if settings.cpus is not None:
        return settings.cpus
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return max(1, int(max(nodes, default=os.cpu_count() or 1)) // settings.count)


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
        f"training: workers failed more than train.workers.max_failures={settings.max_failures} times; the last one "
        f"with: {first[0]}"
    )


def _failures(error: TrainingFailedError) -> list[BaseException]:
    return list(getattr(error, "worker_failures", {}).values())
