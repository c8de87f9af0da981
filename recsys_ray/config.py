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

import difflib
import json
import re
from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from recsys_ray.base.errors import ConfigError
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
MODEL_SECTIONS = ("model", "recommend.ranker.model")
FORMER = {
    "embeddings": "content",
    "analysis": "content.report",
    "train": "training",
    "evaluate": "evaluation",
    "publish": "runs",
    "serve": "serving",
}
"""What sections were called before, and what they are called now. A file and an override may say either."""


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


def load_config(path: str, overrides: Sequence[str] = (), note: Callable[[str], None] = lambda line: None) -> Config:
    """Read a YAML file, apply ``key.key=value`` overrides, validate. Sections may have their former names in both.

    An override that names another model drops what the file sets for its own; ``note`` is told, in one line.

    Raises:
        ConfigError: one line: the file, the key, what is wrong with it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: can't read the configuration ({error.strerror})") from error
    tree = _parse(text, path)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: the configuration must be a mapping of keys, found {type(tree).__name__}")
    _rename_sections(tree, path)
    notes = [_drop_other_model(tree, overrides, section) for section in MODEL_SECTIONS]
    for override in overrides:
        _apply(tree, override)
    _rename_sections(tree, path)
    tree.pop("analysis", None)  # there is no content, so it has nothing to report on, and never had
    try:
        config = Config.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, tree)}") from error
    for line in filter(None, notes):
        note(line)
    return config


def _rename_sections(tree: dict[str, Any], path: str) -> None:
    """Sections with former names get their present ones; one that belongs in another section waits until that is there.

    Raises:
        ConfigError: a section is given under both names.
    """
    for former, present in FORMER.items():
        outer, _, name = present.rpartition(".")
        place = tree.get(outer) if outer else tree
        if former not in tree or not isinstance(place, dict):
            continue
        if name in place:
            raise ConfigError(
                f"{path}: {former} is the former name of the section {present}, and both are given; keep one"
            )
        place[name] = tree.pop(former)


def _present_key(key: str, tree: dict[str, Any]) -> str:
    """The key of an override under the present name of its section; the rule of ``_rename_sections``."""
    section, dot, rest = key.partition(".")
    present = FORMER.get(section, section)
    outer = present.rpartition(".")[0]
    waits = outer and not isinstance(tree.get(outer), dict)
    return key if waits else f"{present}{dot}{rest}"


def _drop_other_model(tree: dict[str, Any], overrides: Sequence[str], section: str) -> str | None:
    """Where an override gives a model section of the file another name, only that name is left of it."""
    node = _inside(tree, section)
    named = [override for override in overrides if override.startswith(f"{section}.name=")]
    if not isinstance(node, dict) or not named:
        return None
    old, new = node.get("name"), _parse(named[-1].partition("=")[2], named[-1])
    dropped = {key: value for key, value in node.items() if key != "name"}
    if old is None or old == new or not dropped:
        return None
    for key in dropped:
        del node[key]
    listed = ", ".join(f"{key}={json.dumps(value)}" for key, value in dropped.items())
    was = "was" if len(dropped) == 1 else "were"
    return f"note: {section}.name={new}: dropped {listed}, which {was} set for {old}"


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    names = _present_key(key, tree).split(".")
    if not equals or not all(names):
        raise ConfigError(f"{override!r} is not an override; write key=value, for example recommend.n=20")
    node = tree
    for name in names[:-1]:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{override!r}: {name} holds a value, not further keys")
    node[names[-1]] = _parse(value, override)


_FLOAT = re.compile(r"^[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+)$")
_FLOAT_TAG, _DATE_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """YAML without its traps: 1e-3 is a number, dates stay text, a repeated key is an error."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name and type are the library's
        first: [(_FLOAT_TAG, _FLOAT)] * (first in "-+0123456789.")
        + [(tag, pattern) for tag, pattern in resolvers if tag not in (_FLOAT_TAG, _DATE_TAG)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise yaml.YAMLError(f"key {sorted(repeated)[0]!r} is given twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


def _explain(error: ValidationError, tree: dict[str, Any]) -> str:
    first, *others = error.errors()
    more = f" (and {len(others)} more)" if others else ""
    key = _key(first["loc"], tree)
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{_hint(key, tree)}{more}"
    if first["type"].startswith("union_tag"):
        context = first["ctx"]
        said = f"{context['tag']!r} is none of {context['expected_tags']}" if "tag" in context else "missing"
        field = context["discriminator"].strip("'")
        return f"{key}.{field}: {said}{more}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" or not key:
        return message + more
    given = "" if first["type"] == "missing" else f", found {first['input']!r}"
    return f"{key}: {message[0].lower()}{message[1:]}{given}{more}"


def _key(location: tuple[int | str, ...], tree: Any) -> str:
    """The dotted key of an error; the tags that pydantic puts in for the chosen member of a union are left out."""
    names, node = [], tree
    for name in location:
        inside = isinstance(node, dict) and name in node
        if isinstance(node, dict) and not inside and name in node.values() and name != location[-1]:
            continue
        names.append(str(name))
        node = node[name] if inside else node[name] if isinstance(node, list) and isinstance(name, int) else None
    return ".".join(names)


def _inside(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _hint(key: str, tree: dict[str, Any]) -> str:
    """What an unknown key may have been meant to be: a setting of the chosen model, elsewhere any key of the schema."""
    section, _, name = key.rpartition(".")
    model = _inside(tree, f"{section}.name") if section in MODEL_SECTIONS else None
    if model in MODELS:
        known = sorted(MODELS[model].model_fields)
    else:
        schema = Config.model_json_schema()
        tables = [schema, *schema.get("$defs", {}).values()]
        known = sorted({name for table in tables for name in table.get("properties", {})} - {name})
    close = difflib.get_close_matches(name, known, 1, 0.7)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; {model} has {', '.join(known) or 'no settings'}" if model in MODELS else ""


def dump(settings: BaseModel) -> dict[str, Any]:
    """A section as JSON-ready values, for fingerprints and manifests."""
    result: dict[str, Any] = settings.model_dump(mode="json")
    return result
