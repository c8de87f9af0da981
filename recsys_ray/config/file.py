"""A configuration file and its overrides to a validated ``Config``, and what is wrong with them in one line."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from recsys_ray.base.errors import ConfigError
from recsys_ray.config.sections import Config
from recsys_ray.models import MODELS

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


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values at dotted keys; a number counts the members of a list from 0.

    Raises:
        ConfigError: a key is none of the configuration's, or a value is impossible there.
    """
    tree: dict[str, Any] = json.loads(config.model_dump_json())
    for key, value in values.items():
        *outer, last = key.split(".")
        node: Any = tree
        for name in outer:
            node = node[int(name)] if isinstance(node, list) and name.isdigit() else node.setdefault(name, {})
            if not isinstance(node, dict | list):
                raise ConfigError(f"{key}: {name} holds a value, not further keys")
        node[int(last) if isinstance(node, list) else last] = value
    try:
        return Config.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError(_explain(error, tree)) from error


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
