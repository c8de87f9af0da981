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

from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model, model_validator

from recsys_ray.base.types import Settings
from recsys_ray.cluster.session import ClusterSettings
from recsys_ray.content.config import ContentSettings
from recsys_ray.data.sources.config import DataConfig
from recsys_ray.evaluation import EvaluationSettings
from recsys_ray.models import MODELS, ColdItemSettings, Model
from recsys_ray.recommend.config import RankerSettings, RecommendSettings
from recsys_ray.runs.config import RunsSettings
from recsys_ray.serving import ServingSettings
from recsys_ray.training import WorkerSettings

VERSION = 1


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


def _model_section() -> Any:
    """``model:`` as a union over MODELS, told apart by ``name``."""
    sections = []
    for name, model in MODELS.items():
        named: Any = (Literal[name], name)
        sections.append(create_model(f"Model_{name}", __base__=model, name=named))
    return Annotated[reduce(or_, sections), Field(discriminator="name")]


class RankerSection(RankerSettings):
    """The second model of a run: fitted beside the first, on the same parts of the data."""

    model: _model_section()  # type: ignore[valid-type]
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
    content: ContentSettings | None = None
    """Vectors of the items from their texts and posters; null makes none."""
    model: _model_section()  # type: ignore[valid-type]
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    recommend: RecommendSection = RecommendSection()
    runs: RunsSettings = RunsSettings()
    serving: ServingSettings = ServingSettings()
    cluster: ClusterSettings = ClusterSettings()

    @property
    def model_name(self) -> str:
        return str(self.model.name)

    def chosen_model(self) -> Model:
        """``model`` as the object that fits."""
        return _without_name(self.model)

    def chosen_ranker(self) -> Model | None:
        """The same of the model in ``recommend.ranker``; None without one."""
        return None if self.recommend.ranker is None else _without_name(self.recommend.ranker.model)

    def needs_content(self, model: Model) -> bool:
        """Whether the fit of a model takes item vectors."""
        return self.training.cold_items is not None or model.needs_content

    @property
    def has_split(self) -> bool:
        return self.data.split.kind != "none"

    @model_validator(mode="after")
    def _models_can_be_had(self) -> Config:
        for name in self.evaluation.baselines:
            if name not in MODELS:
                raise ValueError(f"evaluation.baselines: no model {name!r}; models are {', '.join(MODELS)}")
        others = [name for name in self.evaluation.baselines if name != self.model_name]
        wanted: list[tuple[str, Model]] = [("evaluation.baselines", MODELS[name]()) for name in others]
        wanted.append(("model.name", self.chosen_model()))
        if (ranker := self.chosen_ranker()) is not None:
            wanted.append(("recommend.ranker.model.name", ranker))
        for setting, model in wanted:
            if self.content is None and self.needs_content(model):
                cause = setting if self.training.cold_items is None else "training.cold_items"
                raise ValueError(
                    f"{cause}: {model.key} needs item vectors; add a section content (content={{}} will do)"
                )
        return self

    @model_validator(mode="after")
    def _possible(self) -> Config:
        if self.version != VERSION:
            raise ValueError(f"version: {self.version} is not supported; this is version {VERSION} of the format")
        largest = max(self.evaluation.k)
        if self.training.refit == "train+valid" and self.has_split and self.recommend.n < largest:
            raise ValueError(
                f"recommend.n: {self.recommend.n} rows can't show metrics at evaluation.k={largest} with "
                "training.refit=train+valid; set recommend.n higher or evaluation.k lower"
            )
        if self.training.refit == "train+valid" and not self.has_split:
            raise ValueError("training.refit: train+valid needs a split; set data.split.kind or training.refit=all")
        if self.training.refit == "train+valid" and self.evaluation.on == "valid":
            raise ValueError("evaluation.on: valid with training.refit=train+valid would score what the model has seen")
        return self


def _without_name(section: Any) -> Model:
    """The model that a section describes and names."""
    return MODELS[section.name].model_validate(section.model_dump(exclude={"name"}))


def dump(settings: BaseModel) -> dict[str, Any]:
    """A section as JSON-ready values, for fingerprints and manifests."""
    result: dict[str, Any] = settings.model_dump(mode="json")
    return result
