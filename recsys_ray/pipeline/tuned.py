"""A search for the settings of a configuration: what is searched, and what is written of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import yaml

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.provenance import fingerprint
from recsys_ray.base.storage import Location
from recsys_ray.cluster.tune import Search, Trial, run_search, short
from recsys_ray.config import Config, changed, dump
from recsys_ray.models import Model
from recsys_ray.pages import check_libraries, render
from recsys_ray.pages.figures import draw_points
from recsys_ray.pipeline.stages import Stages
from recsys_ray.runs.trial import TrialData
from recsys_ray.runs.tuning import Range, TuneSettings

WHAT = "recsys-ray tune"
SEARCHED = ("model",)
"""Sections that a search may change; the others decide what the trials are compared on."""
SHOWN = 10


@dataclass(frozen=True, slots=True)
class ModelOf:
    """The model of a configuration whose values at some keys are others."""

    config: Config

    def __call__(self, values: Mapping[str, Any]) -> Model:
        return changed(self.config, values).chosen_model()


@dataclass(frozen=True, slots=True)
class Tuned:
    """A finished search: its trials, best first, and the files."""

    trials: list[Trial]
    start: float | None
    """The score of the configuration as it is."""
    best_file: Location
    page: Location


def tune(stages: Stages) -> Tuned:
    """Search, and write ``best.yaml``, ``trials.json`` and ``search.html`` under ``tune/`` of the output.

    Raises:
        ConfigError: ``tune.space`` is empty, or a key or value of it is none of the configuration's. DataError: there
            is no validation part. ModelError: no trial could be fitted.
    """
    config, settings = stages.config, stages.config.tune
    check_space(config)
    check_libraries(WHAT)
    data = trial_data(stages, [config.chosen_model()])
    place = stages.output / "tune" / fingerprint(data.prepared.name, dump(config), config.seed)[:12]
    search = Search(data, settings, ModelOf(config), start_values(config), config.seed, place / "state")
    stages.session.progress(f"tune: {settings.trials} trials of {', '.join(settings.space)} -> {place}")
    trials = run_search(stages.session, search)
    (place / "trials.json").write_json({"trials": [asdict(trial) for trial in trials]})
    ranked = sorted((one for one in trials if one.score is not None), key=lambda one: (one.stopped, -(one.score or 0)))
    if not ranked or ranked[0].stopped:
        problem = next((one.problem for one in trials if one.problem), "nothing was reported")
        raise ConfigError(f"tune: none of {len(trials)} trials came to an end, the first: {problem}")
    start = next((one.score for one in trials if one.values == search.start and not one.stopped), None)
    (place / "best.yaml").write_bytes(best_yaml(config, ranked[0]).encode())
    (place / "search.html").write_bytes(search_page(config, trials, ranked, start).encode())
    return Tuned(ranked, start, place / "best.yaml", place / "search.html")


def trial_data(stages: Stages, models: Sequence[Model]) -> TrialData:
    """What trials of these models share; item vectors are made where one of them asks for them."""
    config = stages.config
    wants = any(config.needs_content(model) for model in models)
    table = Location(stages.embed()["path"]) if wants else None
    evaluation = config.evaluation.model_copy(update={"on": "valid", "auc": False, "liked": None})
    data = TrialData(stages.prepared.location, evaluation, config.recommend, table, config.training.cold_items)
    data.check()
    return data


def check_space(config: Config) -> None:
    """ConfigError for a key that is no setting of the model, or for a value that it can't have."""
    if not config.tune.space:
        raise ConfigError("tune.space is empty; say what to search, e.g. tune.space.model.regularization=[1.0, 10.0]")
    for key, choices in config.tune.space.items():
        if key.split(".")[0] not in SEARCHED:
            raise ConfigError(f"tune.space: {key} can't be searched; keys of the section model can")
        for value in [choices.low, choices.high] if isinstance(choices, Range) else choices:
            try:
                changed(config, {key: value})
            except (ConfigError, IndexError, ValueError) as error:
                raise ConfigError(f"tune.space: {key}={value!r}: {error}") from error


def start_values(config: Config) -> dict[str, Any]:
    """The configuration's own values; none where one is outside the space, so that it can't be among the trials."""
    tree, found = dump(config), {}
    for key, choices in config.tune.space.items():
        value: Any = tree
        for name in key.split("."):
            value = value[int(name)] if isinstance(value, list) else value.get(name)
        if isinstance(choices, Range):
            inside = isinstance(value, int | float) and choices.low <= value <= choices.high
        else:
            inside = value in choices
        if not inside:
            return {}
        found[key] = value
    return found


def best_yaml(config: Config, best: Trial) -> str:
    """The configuration with the best settings; it is compared with the one it came from where that is another."""
    better = changed(config, best.values)
    tree = json.loads(config.model_dump_json(exclude_unset=True)) | {"model": dump(better.model)}
    tree.pop("tune", None)
    tree["name"] = f"{config.name}-tuned"
    if better.model != config.model:
        known = [entry for entry in config.named_baselines() if entry != config.model_name]
        tree.setdefault("evaluation", {})["baselines"] = [*known, dump(config.model) | {"label": "before_tuning"}]
    head = f"# Found by recsys-ray tune: {best.score:.4f} on the validation part.\n"
    return head + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def table(tuned: Tuned, settings: TuneSettings) -> str:
    """The best trials for a terminal."""
    keys = list(settings.space)
    wide = [max(len(key), 12) for key in keys]
    header = "".join(f"{key:<{width + 2}}" for key, width in zip(keys, wide, strict=True))
    lines = [f"{'score':<9}{header}{'epochs':>7}{'seconds':>9}"]
    for trial in tuned.trials[:SHOWN]:
        values = "".join(f"{short(trial.values[key]):<{width + 2}}" for key, width in zip(keys, wide, strict=True))
        early = "  stopped early" if trial.stopped else ""
        lines.append(f"{trial.score:<9.4f}{values}{trial.epochs or '-':>7}{trial.seconds:>9.1f}{early}")
    return "\n".join(lines)


def search_page(config: Config, trials: list[Trial], ranked: list[Trial], start: float | None) -> str:
    """The search as one HTML file: score by trial, score by each setting, the table."""
    told = [(number, one) for number, one in enumerate(trials, 1) if one.score is not None]
    numbers = np.array([number for number, _ in told], np.float64)
    scores = np.array([one.score for _, one in told], np.float64)
    whole = np.array([np.nan if one.stopped else one.score for _, one in told], np.float64)
    best = np.fmax.accumulate(whole)
    metric = f"{config.tune.metric}@{config.evaluation.max_k}"
    pictures = [("Trials in the order in which they began; the line is the best of those that ran to their end.",
                 draw_points("trials", numbers, scores, best, "trial", metric, f"{metric} by trial"))]  # fmt: skip
    for place, (key, choices) in enumerate(config.tune.space.items()):
        values = [one.values[key] for _, one in told]
        log, listed = isinstance(choices, Range) and choices.log, ""
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            values = [choices.index(value) for value in values] if isinstance(choices, list) else values
            listed = f" ({', '.join(map(str, choices))}, in this order)"
        drawn = draw_points(f"by-{place}", values, scores, None, key, metric, f"{metric} by {key}", logarithmic=log)
        pictures.append((f"By {key}{listed}.", drawn))
    return render(
        "recsys_ray.pipeline", "search.html.jinja", WHAT, name=config.name, metric=metric, pictures=pictures,
        trials=ranked, keys=list(config.tune.space), start=start, short=short,
        failed=[one for one in trials if one.problem],
    )  # fmt: skip
