"""A configuration file and its overrides to a validated ``Config``, and all that is wrong with them in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recsys_ray.base.errors import ConfigError
from recsys_ray.config.kinds import Kind, shaped
from recsys_ray.config.overrides import FORMER, assignments, override
from recsys_ray.config.sections import Config
from recsys_ray.config.text import parse_file, plain
from recsys_ray.config.wrong import explain


def load_config(
    path: str,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    note: Callable[[str], None] = lambda line: None,
) -> Config:
    """Read a YAML file, apply overrides, validate. Sections may have their former names in both.

    Args:
        overrides: ``key.key=value``, as typed: a key of text takes the value as it is, others read it as YAML. Or
            values by key.
        note: is told, in one line, what an override dropped: an override that gives a section another kind drops what
            the file sets for the kind before.

    Raises:
        ConfigError: one line: the file, every key that is wrong, what is wrong with it.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: can't read the configuration ({reason})") from error
    tree = parse_file(data, path)
    if not isinstance(tree, dict):
        found = "nothing" if plain(tree) is None else type(plain(tree)).__name__
        raise ConfigError(f"{path}: the configuration must be a mapping of keys, found {found}")
    _rename_sections(tree, path)
    notes = override(tree, assignments(overrides), Config)
    _rename_sections(tree, path)
    tree.pop("analysis", None)  # there is no content, so it has nothing to report on, and never had
    config = _validated(shaped(tree, Kind((Config,))), f"{path}: ")
    for line in notes:
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
    return _validated(tree, "")


def _validated(tree: dict[str, Any], where: str) -> Config:
    try:
        return Config.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError(where + explain(error, tree, Config)) from error


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
