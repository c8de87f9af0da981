"""A search for settings on Ray Tune: Optuna proposes (TPE), trials run beside each other, bad ones are stopped early.

Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS 2011). The state of the search lies in a
directory: a search that was killed goes on where it stopped.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys_ray.base.errors import RecsysError, StorageError
from recsys_ray.base.optional import require
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext
from recsys_ray.cluster.session import Session, set_threads
from recsys_ray.models import Model
from recsys_ray.runs.trial import TrialData, try_model
from recsys_ray.runs.tuning import Range, TuneSettings
from recsys_ray.training import LoopConfig

SCORE, EPOCH, ERROR, SECONDS = "score", "training_iteration", "problem", "fit_seconds"
LAST_EPOCH = 10_000
"""More than any training has."""
SAVE_SECONDS = "5"
"""How often the state of a search is written, at most."""

Chooser = Callable[[Mapping[str, Any]], Model]
"""Values by key to the model that the changed configuration describes."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched."""

    data: TrialData
    settings: TuneSettings
    choose: Chooser
    start: dict[str, Any]
    """The configuration's own values, which are tried first; of keys that it leaves open there are none."""
    seed: int
    place: Location
    """Directory of the state of the search."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings and what they were worth."""

    values: dict[str, Any]
    score: float | None
    """None: it failed, see ``problem``."""
    epochs: int
    seconds: float
    stopped: bool
    """It was given up early: the score is the last that it reported, on events held out of the training part."""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _TrialWorker:
    """The process of a trial: what a neural model measures after an epoch decides whether it goes on."""

    report_epoch: Callable[[dict[str, float]], None]
    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    keeps_checkpoints: bool = False

    def latest(self) -> AbstractContextManager[str | None]:
        return nullcontext(None)

    def report(self, metrics: dict[str, float], checkpoint: str | None) -> None:
        self.report_epoch(metrics)


def run_search(session: Session, search: Search) -> list[Trial]:
    """All trials, in the order in which they were begun.

    Raises:
        ConfigError: Optuna is not installed. StorageError: the state of the search can't be read or written.
    """
    require("optuna", extra="tune", what="recsys-ray tune")
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = SAVE_SECONDS
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its banner comes at any verbosity
    session.connect()
    with _quiet():
        tuner = _tuner(session, search)
        results = tuner.fit()
    trials = []
    for result in results:
        metrics = result.metrics or {}
        score = metrics.get(SCORE)
        trials.append(
            Trial(
                values=dict(result.config or {}),
                score=None if metrics.get(ERROR) or score is None else float(score),
                epochs=int(metrics.get("epochs", 0)),
                seconds=float(metrics.get("time_total_s", 0.0)),
                stopped=not metrics.get("whole", False),
                problem=metrics.get(ERROR) or (None if result.error is None else str(result.error).splitlines()[-1]),
            )
        )
    return trials


def _tuner(session: Session, search: Search) -> Any:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    path = Path(str(search.place)) if search.place.is_local else None
    if path is None:
        raise StorageError(f"{search.place}: the state of a search needs a local directory; set output to one")
    trainable = tune.with_resources(tune.with_parameters(_try, search=search), {"cpu": 1})
    if tune.Tuner.can_restore(str(path)):
        session.progress(f"tune: goes on where it stopped ({path})")
        return tune.Tuner.restore(str(path), trainable, resume_unfinished=True, restart_errored=True)
    stop = search.settings.stop_early
    scheduler = None
    if stop is not None:
        scheduler = ASHAScheduler(
            time_attr=EPOCH,
            max_t=LAST_EPOCH,
            grace_period=stop.first,
            reduction_factor=stop.keep,
            stop_last_trials=False,
        )
    searcher = OptunaSearch(points_to_evaluate=[search.start] if search.start else None, seed=search.seed)
    return tune.Tuner(
        trainable,
        param_space={key: _domain(choices) for key, choices in search.settings.space.items()},
        tune_config=tune.TuneConfig(
            metric=SCORE,
            mode="max",
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=search.settings.trials,
            max_concurrent_trials=search.settings.parallel or session.num_cpus,
        ),
        run_config=tune.RunConfig(
            name=path.name,
            storage_path=str(path.parent),
            verbose=0,
            callbacks=[_telling(session.progress, search.settings.trials)],
        ),
    )


def _domain(choices: Range | list[Any]) -> Any:
    from ray import tune

    if isinstance(choices, list):
        return tune.choice(choices)
    if choices.whole:
        low, high = int(choices.low), int(choices.high) + 1
        return tune.lograndint(low, high) if choices.log else tune.randint(low, high)
    return (tune.loguniform if choices.log else tune.uniform)(float(choices.low), float(choices.high))


def _try(values: dict[str, Any], search: Search) -> None:
    """One trial, in a process of its own."""
    from ray import tune

    set_threads(1)
    epochs = 0

    def after_epoch(metrics: dict[str, float]) -> None:
        nonlocal epochs
        epochs += 1
        if "valid" in metrics:
            tune.report({SCORE: metrics["valid"], "epochs": epochs, "whole": False})

    def train(fn: Callable[[Any, Any], Any], shared: Any, key: str) -> Any:
        return fn(shared, _TrialWorker(after_epoch))

    try:
        model = search.choose(values)
        # Of models made of models the epochs of one say nothing about the whole.
        context = FitContext(search.seed, run_workers=train if isinstance(model, LoopConfig) else None)
        tried = try_model(search.data, model, context)
    except RecsysError as error:
        tune.report({SCORE: 0.0, ERROR: " ".join(str(error).split()), "epochs": epochs, "whole": True})
        return
    name = f"{search.settings.metric}@{search.data.evaluation.max_k}"
    tune.report({SCORE: tried.report.metrics[name], "epochs": epochs, "whole": True, SECONDS: tried.fit_seconds})


def _telling(progress: Callable[[str], None], trials: int) -> Any:
    """A line for every trial that ends."""
    from ray.tune import Callback

    class Telling(Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ended = 1 + sum(other.is_finished() for other in trials if other is not trial)
            result = trial.last_result or {}
            shown = ", ".join(f"{key}={short(value)}" for key, value in trial.config.items())
            how = result.get(ERROR) or f"{result.get(SCORE, float('nan')):.4f}"
            early = "" if result.get("whole") else " (stopped early)"
            progress(f"tune: {ended} of {total}: {shown} -> {how}{early}")

    total = trials
    return Telling()


def short(value: Any) -> str:
    """A setting for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _quiet:
    """Nothing of Ray Tune's and Optuna's own."""

    def __enter__(self) -> None:
        self.levels = {name: logging.getLogger(name).level for name in ("ray.tune", "optuna", "ray.train", "ray.air")}
        for name in self.levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.warned = warnings.catch_warnings()
        self.warned.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *error: Any) -> None:
        self.warned.__exit__(*error)
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
