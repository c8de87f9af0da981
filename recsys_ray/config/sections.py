"""The configuration of a run: one YAML file, validated whole before anything starts.

    name: demo
    output: runs/demo            # any path or URL
    data: {source: movielens, path: ..., filters: {...}, split: {...}}
    model: {name: ease, regularization: 200.0}
    training: {refit: all}
    recommend: {n: 10}

A section is called like the part of the package that it is for. Sections that had other names in earlier versions
(``train``, ``evaluate``, ``serve``, ``publish``, ``embeddings``, ``analysis``) are read under those as well.

Every key can be overridden on the command line: ``model.regularization=500``. Unknown keys, wrong types and impossible
combinations are errors of one line that names the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from recsys_ray.base.secrets import masked
from recsys_ray.base.types import Settings
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.content.config import ContentSettings
from recsys_ray.data.config import FeatureSettings
from recsys_ray.data.sources.config import DataConfig
from recsys_ray.evaluation import EvaluationSettings
from recsys_ray.models import MODELS, ColdItemSettings, Model, Popularity, Transitions, model_section, without_name
from recsys_ray.recommend.config import GENRES, TRENDING, RankerSettings, RecommendSettings
from recsys_ray.runs.config import RunsSettings
from recsys_ray.runs.tuning import TuneSettings
from recsys_ray.serving import ServingSettings
from recsys_ray.tracking import TrackingSettings
from recsys_ray.training import LoopConfig, WorkerSettings

VERSION = 1
ORDERED_SPLITS = ("last_share", "leave_last_out", "temporal")
"""Splits that hold out what came last: what was right before it is then a fair guess."""


class TrainingSettings(Settings):
    """What the published model has seen, how it treats new items, and how much memory a fit may take."""

    refit: Literal["all", "train+valid"] = "all"
    """all: after evaluation fit once more on everything, and publish that. train+valid: publish exactly the model (and
    the Parquet) that the test numbers are computed on."""
    workers: WorkerSettings = WorkerSettings()
    """The processes that train a neural model."""
    cold_items: ColdItemSettings | None = None
    """Score items without training interactions by their embeddings, whatever the model; null leaves them out."""
    memory_limit_gib: float | None = Field(default=None, gt=0)
    """Refuse fits predicted to need more; by default what is free on the machine that fits."""
    seed: int | None = Field(default=None, ge=0)
    """Seed of initial values and sampling in fits, so that several can be measured on one split; null takes that of the
    run."""


class RankerSection(RankerSettings):
    """The second model of a run: fitted beside the first, on the same parts of the data."""

    model: model_section(MODELS.values())  # type: ignore[valid-type]
    """As the section ``model``."""


class RecommendSection(RecommendSettings):
    """What is asked of the batch job, with the model that ranks."""

    ranker: RankerSection | None = None
    """A model that scores the candidates of model.name anew; null leaves them as they are."""


class Config(Settings):
    """A whole run."""

    version: int = VERSION
    """Version of the configuration format."""
    name: str = Field(min_length=1)
    """Name of the run, for people."""
    output: str = Field(min_length=1)
    """Directory or URL under which everything is written."""
    seed: int = Field(default=0, ge=0)
    """Seed of splits, initial values and sampling."""
    data: DataConfig
    features: FeatureSettings = FeatureSettings()
    """Tables of features; only ``recsys-ray features`` reads it."""
    content: ContentSettings | None = None
    """Vectors of the items from their texts and posters; null makes none."""
    model: model_section(MODELS.values())  # type: ignore[valid-type]
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    recommend: RecommendSection = RecommendSection()
    runs: RunsSettings = RunsSettings()
    serving: ServingSettings = ServingSettings()
    cluster: ClusterSettings = ClusterSettings()
    tracking: TrackingSettings | None = None
    """An experiment tracker that is told of every run; null tells nobody."""
    tune: TuneSettings = TuneSettings()
    """What ``recsys-ray tune`` searches; a run reads nothing of it."""

    @property
    def model_name(self) -> str:
        return str(self.model.name)

    @property
    def fit_seed(self) -> int:
        """Of initial values and sampling; splits have ``seed``."""
        return self.seed if self.training.seed is None else self.training.seed

    def chosen_model(self) -> Model:
        """``model`` as the object that fits."""
        return without_name(self.model)

    def served(self) -> ServingSettings:
        """``serving``, with the posters of the catalogue where it names no others."""
        if self.serving.image is not None or self.content is None:
            return self.serving
        return self.serving.model_copy(update={"image": self.content.image})

    def chosen_ranker(self) -> Model | None:
        """The same of the model in ``recommend.ranker``; None without one."""
        return None if self.recommend.ranker is None else without_name(self.recommend.ranker.model)

    def named_baselines(self) -> list[str | dict[str, Any]]:
        """``evaluation.baselines``, or what stands for it where it is not given."""
        if self.evaluation.baselines is not None:
            return self.evaluation.baselines
        return [Popularity.key, *([Transitions.key] if self.data.split.kind in ORDERED_SPLITS else [])]

    def baselines(self) -> dict[str, Model]:
        """The models of ``evaluation.baselines`` by label, without one that is the chosen model itself.

        Raises:
            ValueError: there is no such model, it has no such setting, or two have one label.
        """
        found: dict[str, Model] = {}
        for entry in self.named_baselines():
            label, model = _named_model(entry, "evaluation.baselines")
            if model == self.chosen_model() or (isinstance(entry, str) and entry == self.model_name):
                continue
            if label in found or label == self.model_name:
                raise ValueError(f"evaluation.baselines: two are called {label!r}; give one a label of its own")
            found[label] = model
        return found

    def fallbacks(self) -> dict[str, Model]:
        """The models of ``recommend.fallback`` by label; those that are counted are none of them.

        Raises:
            ValueError: as ``baselines``.
        """
        found: dict[str, Model] = {}
        for entry in self.recommend.fallback:
            if entry in (TRENDING, GENRES):
                continue
            label, model = _named_model(entry, "recommend.fallback")
            if label in found:
                raise ValueError(f"recommend.fallback: two are called {label!r}; give one a label of its own")
            if model == self.chosen_model():
                raise ValueError(f"recommend.fallback: {label} is the model itself; name another one")
            found[label] = model
        return {label: model for label, model in found.items() if label != Popularity.key}

    def needs_content(self, model: Model) -> bool:
        """Whether the fit of a model takes item vectors."""
        return self.training.cold_items is not None or model.needs_content

    @property
    def trains_a_network(self) -> bool:
        """Whether a model of this run trains in the processes of ``training.workers``."""
        models = [self.chosen_model(), self.chosen_ranker(), *self.baselines().values(), *self.fallbacks().values()]
        return any(isinstance(model, LoopConfig) for model in models)

    @property
    def has_split(self) -> bool:
        return self.data.split.kind != "none"

    @model_validator(mode="after")
    def _possible(self) -> Config:
        if problems := dict.fromkeys([*self._unavailable_models(), *self._impossible_combinations()]):
            raise ValueError("; ".join(problems))
        return self

    def _unavailable_models(self) -> Iterator[str]:
        """What each model that is named lacks."""
        wanted: list[tuple[str, Model]] = [("evaluation.baselines", model) for model in self.baselines().values()]
        wanted.append(("model.name", self.chosen_model()))
        wanted += [("recommend.fallback", model) for model in self.fallbacks().values()]
        if (ranker := self.chosen_ranker()) is not None:
            wanted.append(("recommend.ranker.model.name", ranker))
        for setting, model in wanted:
            if self.content is None and self.needs_content(model):
                cause = f"{setting}: {model.key} needs" if model.needs_content else "training.cold_items needs"
                yield f"{cause} item vectors; add a section content (content={{}} will do)"
            if self.content is not None and (missing := model.content_kinds - set(self.content.kinds)):
                yield f"{setting}: {model.key} needs vectors of each item's {min(missing)}; set content.{min(missing)}"

    def _impossible_combinations(self) -> Iterator[str]:
        if self.version != VERSION:
            yield f"version: {self.version} is not supported; this is version {VERSION} of the format"
        largest, as_fitted = max(self.evaluation.k), self.training.refit == "train+valid"
        if as_fitted and self.has_split and self.recommend.n < largest:
            yield (
                f"recommend.n: {self.recommend.n} rows can't show metrics at evaluation.k={largest} with "
                "training.refit=train+valid; set recommend.n higher or evaluation.k lower"
            )
        if as_fitted and not self.has_split:
            yield "training.refit: train+valid needs a split; set data.split.kind or training.refit=all"
        if as_fitted and self.evaluation.on == "valid":
            yield "evaluation.on: valid with training.refit=train+valid would score what the model has seen"


def _named_model(entry: str | dict[str, Any], setting: str) -> tuple[str, Model]:
    """A model by its name, or by its section with a label; ``setting`` is what names it.

    Raises:
        ValueError: there is no such model, or it has no such setting.
    """
    section: dict[str, Any] = {"name": entry} if isinstance(entry, str) else dict(entry)
    label = str(section.pop("label", None) or section.get("name"))
    name = section.pop("name", None)
    if name not in MODELS:
        raise ValueError(f"{setting}: no model {name!r}; models are {', '.join(MODELS)}")
    try:
        return label, MODELS[name].model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{setting}: {label}: {key}: {first['msg']}") from error


def dump(settings: BaseModel) -> dict[str, Any]:
    """A section as JSON-ready values, for fingerprints and manifests: without its secrets."""
    result: dict[str, Any] = masked(settings.model_dump(mode="json"))
    return result


FIT_SECTIONS = ("version", "name", "seed", "data", "content", "model", "training")
"""What the stages up to a fitted model read, beside ``recommend.fallback``."""
RUN_SECTIONS = (*FIT_SECTIONS, "evaluation", "recommend", "runs")
"""What the stages up to a published run read."""


def dump_sections(config: Config, sections: Sequence[str]) -> dict[str, Any]:
    """``dump`` of these sections, by name: what a manifest of a stage keeps."""
    return {name: value for name, value in dump(config).items() if name in sections}
