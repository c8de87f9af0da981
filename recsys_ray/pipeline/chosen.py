"""Which model suits the data: all that are affordable, tried on the validation part, and a blend of the best."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from recsys_ray.base.errors import ConfigError, RecsysError
from recsys_ray.base.memory import available_memory
from recsys_ray.base.provenance import fingerprint
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext
from recsys_ray.config import Config, dump
from recsys_ray.data.genres import item_genres
from recsys_ray.evaluation import Report
from recsys_ray.evaluation.comparison import Comparison, compare_reports, holm
from recsys_ray.evaluation.report import EVERYONE
from recsys_ray.models import MODELS, Model, check_size
from recsys_ray.models.sized import sized_models
from recsys_ray.pipeline.stages import Stages
from recsys_ray.pipeline.tuned import trial_data
from recsys_ray.runs.trial import TRAIN, TrialData, try_model

BLENDED = 4
"""The best models that are blended."""
BLEND = "blend"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that was tried."""

    label: str
    section: dict[str, Any]
    memory: int
    """Bytes that the fit was predicted to need."""
    report: Report | None = None
    fit_seconds: float = 0.0
    rank_seconds: float = 0.0
    problem: str | None = None

    def score(self, metric: str) -> float:
        return -1.0 if self.report is None else self.report.metrics[metric]


@dataclass(frozen=True, slots=True)
class Chosen:
    """All candidates, best first, and the configurations of the best and of the blend."""

    candidates: list[Candidate]
    metric: str
    best_file: Location
    blend_file: Location | None


def choose(stages: Stages, *, networks: bool) -> Chosen:
    """Try, compare, write ``best.yaml`` and ``blend.yaml`` under ``choice/`` of the output.

    Raises:
        DataError: there is no validation part. ConfigError: no model could be fitted.
    """
    config = stages.config
    sections = _sections(stages, networks)
    models = {label: _model(section) for label, section in sections.items()}
    data = trial_data(stages, list(models.values()))
    counts, limit = stages.prepared.counts(TRAIN), config.training.memory_limit_gib
    memory_limit = available_memory() if limit is None else int(limit * 2**30)
    wanted, found = [], []
    for label, model in models.items():
        needed = model.memory(counts).bytes
        try:
            check_size(model, counts, memory_limit)
            wanted.append(Candidate(label, sections[label], needed))
        except RecsysError as error:
            found.append(Candidate(label, sections[label], needed, problem=str(error)))
    tried = stages.session.map_blocks(_try, wanted, (data, config.fit_seed), "choose")
    for candidate in tried:
        found.append(candidate)
        stages.session.progress(f"choose: {_said(candidate, _metric(config))}")
    metric = _metric(config)
    ranked = sorted(found, key=lambda one: -one.score(metric))
    whole = [one for one in ranked if one.report is not None]
    if not whole:
        raise ConfigError(f"choose: no model could be fitted, {ranked[0].label}: {ranked[0].problem}")
    if blend := _blend(whole):
        (candidate,) = stages.session.map_blocks(_try, [blend], (data, config.fit_seed), "choose")
        stages.session.progress(f"choose: {_said(candidate, metric)}")
        ranked = sorted([*ranked, candidate], key=lambda one: -one.score(metric))
    place = stages.output / "choice" / fingerprint(data.prepared.name, dump(config), networks)[:12]
    best_file, blend_file = place / "best.yaml", None
    best_file.write_bytes(_yaml(config, whole[0], metric).encode())
    if blend:
        blend_file = place / "blend.yaml"
        blend_file.write_bytes(_yaml(config, candidate, metric).encode())
    return Chosen(ranked, metric, best_file, blend_file)


def _sections(stages: Stages, networks: bool) -> dict[str, dict[str, Any]]:
    """What is tried; the configuration's own model too, where it is another."""
    prepared, config = stages.prepared, stages.config
    has_genres = len(item_genres(prepared.items)[1]) > 0 or "year" in prepared.items.schema.names
    found = sized_models(
        prepared.counts(TRAIN), attributes=has_genres, content=config.content is not None, networks=networks
    )
    own = dump(config.model)
    models = [_model(section) for section in found.values()]
    return found if _model(own) in models else {"as configured": own} | found


def _model(section: dict[str, Any]) -> Model:
    return MODELS[section["name"]].model_validate({key: value for key, value in section.items() if key != "name"})


def _try(candidate: Candidate, shared: tuple[TrialData, int]) -> Candidate:
    data, seed = shared
    try:
        tried = try_model(data, _model(candidate.section), FitContext(seed))
    except RecsysError as error:
        return Candidate(candidate.label, candidate.section, candidate.memory, problem=" ".join(str(error).split()))
    return Candidate(
        candidate.label, candidate.section, candidate.memory, tried.report, tried.fit_seconds, tried.rank_seconds
    )


def _blend(ranked: list[Candidate]) -> Candidate | None:
    """The best models of different kinds as one, weights by events held out of the training part."""
    kinds: dict[str, Candidate] = {}
    for one in ranked:
        if one.section["name"] not in ("popularity", "blend", "lambdamart"):
            kinds.setdefault(f"{one.section['name']}{one.section.get('vectors', '')}", one)
    members = list(kinds.values())[:BLENDED]
    if len(members) < 2:
        return None
    section = {"name": "blend", "weights": "validation", "members": [{"model": one.section} for one in members]}
    return Candidate(BLEND, section, sum(one.memory for one in members))


def _metric(config: Config) -> str:
    return f"{config.tune.metric}@{config.evaluation.max_k}"


def _said(candidate: Candidate, metric: str) -> str:
    if candidate.report is None:
        return f"{candidate.label}: {candidate.problem}"
    seconds = candidate.fit_seconds + candidate.rank_seconds
    return f"{candidate.label}: {metric} {candidate.score(metric):.4f} in {seconds:.1f} s"


def comparisons(chosen: Chosen) -> dict[str, Comparison]:
    """By label, the difference of the best to each, p-values adjusted together (Holm)."""
    best, *others = [one for one in chosen.candidates if one.report is not None]
    assert best.report is not None
    found: dict[str, Comparison] = {}
    for one in others:
        assert one.report is not None
        compared = compare_reports(best.report, one.report, [chosen.metric])
        found.update((one.label, place) for place in compared if place.segment == EVERYONE)
    return dict(zip(found, holm(list(found.values())), strict=True))


def choice_table(chosen: Chosen) -> str:
    """For a terminal: every model, the best first, and how far it is from the best."""
    apart = comparisons(chosen)
    header = f"{'model':<18}{chosen.metric:<9}  {'best is ahead by':<30}{'p (Holm)':<10}"
    lines = [f"{header}{'fit s':>7}{'rank s':>8}{'GiB':>7}"]
    for one in chosen.candidates:
        if one.report is None:
            lines.append(f"{one.label:<18}{'-':<9}  {one.problem}")
            continue
        ahead, p_value = "", ""
        if (found := apart.get(one.label)) is not None:
            ahead = f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
            p_value = f"{found.p_value:.2g}"
        cost = f"{one.fit_seconds:>7.1f}{one.rank_seconds:>8.1f}{one.memory / 2**30:>7.2f}"
        lines.append(f"{one.label:<18}{one.score(chosen.metric):<9.4f}  {ahead:<30}{p_value:<10}{cost}")
    return "\n".join(lines)


def _yaml(config: Config, candidate: Candidate, metric: str) -> str:
    changes = {"model": candidate.section, "name": f"{config.name}-{candidate.label.split()[0]}"}
    tree = json.loads(config.model_dump_json(exclude_unset=True)) | changes
    tree.pop("tune", None)  # its keys are those of the model before
    Config.model_validate_json(json.dumps(tree))
    head = f"# Found by recsys-ray choose: {metric} {candidate.score(metric):.4f} on the validation part.\n"
    return head + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
