"""What can be set, as data: sections with their keys, models, the JSON schema. All words are the docstrings'."""

from __future__ import annotations

import difflib
import inspect
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recsys_ray.base.descriptions import descriptions
from recsys_ray.base.errors import ConfigError
from recsys_ray.config.kinds import Kind
from recsys_ray.config.sections import Config
from recsys_ray.models import MODELS

RANKED = "recommend.ranker.model"
"""It takes what ``model`` takes."""
DRAFT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True)
class Key:
    """One setting."""

    path: str
    """Dotted, from the top of the configuration."""
    type: str
    """As it is written in YAML: int, text, one of "a", "b", list of ..., section, or null."""
    default: str | None
    """As YAML; None where it must be set."""
    bounds: str
    """Such as ``>= 1``; empty without."""
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """A section, or one kind of it."""

    path: str
    """Dotted; empty for the whole configuration."""
    kind: str | None
    """The value of the key that tells kinds apart: ``als`` of ``model``."""
    text: str
    keys: list[Key]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model as it can be chosen."""

    name: str
    summary: str
    text: str
    """Formula, source paper, memory and time."""
    personal: bool
    ordered: bool
    needs_content: bool
    predicts_ratings: bool
    section: Section


def sections() -> list[Section]:
    """Every section with settings, in the order of the configuration; one of several kinds comes once for each."""
    found: dict[tuple[str, str | None], Section] = {}
    for one in _walk(Kind((Config,)), ""):
        found.setdefault((one.path, one.kind), one)
    return list(found.values())


def section(name: str) -> list[Section]:
    """What a name stands for: a section by its key, a kind of one (``leave_last_out``), or a model.

    Raises:
        ConfigError: there is none of this name, and what may have been meant.
    """
    known = sections()
    found = [one for one in known if one.path == name] or [one for one in known if one.kind == name]
    if not found:  # a single key
        found = [
            Section(one.path, one.kind, one.text, [key])
            for one in known
            for key in one.keys
            if key.path == name or key.path.endswith(f".{name}")
        ]
    if not found:
        names = {*(one.path for one in known), *(str(one.kind) for one in known if one.kind)}
        names |= {part for key in keys() for part in (key, key.rpartition(".")[2])}
        close = difflib.get_close_matches(name, sorted(names), 1, 0.6)
        hint = f"; did you mean {close[0]!r}?" if close else "; recsys-ray describe lists the sections"
        raise ConfigError(f"{name!r} is no section, key or model{hint}")
    return found


def keys() -> list[str]:
    """Every dotted key, of all kinds of all sections."""
    return list(dict.fromkeys(key.path for one in sections() for key in one.keys))


def kinds(name: str) -> list[str]:
    """The kinds of a section by its dotted key; none where it has one kind alone."""
    return [str(one.kind) for one in sections() if one.path == name and one.kind is not None]


def models() -> list[ModelEntry]:
    """The models in the order of the registry."""
    by_name = {one.kind: one for one in sections() if one.path == "model"}
    found = []
    for name, model in MODELS.items():
        text = inspect.cleandoc(str(sys.modules[model.__module__].__doc__))
        summary = inspect.cleandoc(str(model.__doc__)).split("\n\n")[0].replace("\n", " ")
        needs = bool(model.model_construct().needs_content) if name not in ("blend", "lambdamart") else False
        found.append(
            ModelEntry(name, summary, text, model.personal, model.ordered, needs, model.predicts_ratings, by_name[name])
        )
    return found


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, with what every key says of itself: for editors."""
    schema = Config.model_json_schema()
    classes = {kind.__name__: kind for kind in _classes(Config)}
    for name, definition in {**schema.get("$defs", {}), Config.__name__: schema}.items():
        if (kind := classes.get(name)) is None:
            continue
        for field, text in descriptions(kind).items():
            if field in definition.get("properties", {}):
                definition["properties"][field]["description"] = text
    shortened: dict[str, Any] = _with_short_forms(schema)
    return {"$schema": DRAFT} | shortened


def _with_short_forms(node: Any) -> Any:
    """The kind of a section may stand for it: ``model: ease``."""
    if isinstance(node, list):
        return [_with_short_forms(one) for one in node]
    if not isinstance(node, dict):
        return node
    inner = {name: _with_short_forms(value) for name, value in node.items()}
    if isinstance(told := node.get("discriminator"), dict):
        return {"anyOf": [{"enum": list(told["mapping"])}, inner]}
    return inner


def _walk(kind: Kind, outer: str) -> Iterator[Section]:
    single: list[tuple[str | None, type[BaseModel]]] = [(None, member) for member in _models_of(kind)]
    for name, one in list(kind.sections.items()) or single:
        told = descriptions(one)
        listed = []
        for field_name, field in one.model_fields.items():
            key = f"{outer}.{field_name}" if outer else field_name
            listed.append(
                Key(key, written(field.annotation), _default(field), _bounds(field), told.get(field_name, ""))
            )
        yield Section(outer, name, inspect.cleandoc(_told(one)), listed)
        for field_name, field in one.model_fields.items():
            inner = Kind.of(field.annotation, field.discriminator if isinstance(field.discriminator, str) else None)
            key = f"{outer}.{field_name}" if outer else field_name
            if _models_of(inner) and key != RANKED:
                yield from _walk(inner, key)


def _told(one: type[BaseModel]) -> str:
    """The docstring of a class, or of the one that it was made from."""
    return str(next((kind.__doc__ for kind in one.__mro__ if kind.__doc__), ""))


def _models_of(kind: Kind) -> list[type[BaseModel]]:
    return [one for one in kind.members if isinstance(one, type) and issubclass(one, BaseModel)]


def _classes(root: type[BaseModel]) -> set[type[BaseModel]]:
    """All classes of sections below one."""
    found: set[type[BaseModel]] = set()
    waiting: list[Any] = [root]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            if one not in found:
                found.add(one)
                waiting += [field.annotation for field in one.model_fields.values()]
        else:
            waiting += list(get_args(one))
    return found


def written(annotation: Any) -> str:
    """A type in the words of YAML."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        parts = dict.fromkeys(written(part) for part in inside)
        return " or ".join(sorted(parts, key=lambda part: part == "null"))
    if origin is Literal:
        return "one of " + ", ".join(map(str, inside)) if len(inside) > 1 else str(inside[0])
    if origin in (list, tuple):
        return f"list of {written(inside[0])}"
    if origin is dict:
        return f"mapping to {written(inside[1])}"
    if origin is not None:
        return written(inside[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {str: "text", bool: "true or false", int: "whole number", float: "number", type(None): "null"}
    return names.get(annotation, "value")


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "{}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in signs.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join(found)
