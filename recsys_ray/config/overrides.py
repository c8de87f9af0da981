"""``key.key=value`` over the tree of a configuration file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.secrets import mask
from recsys_ray.config.kinds import Kind, kind_at
from recsys_ray.config.text import Scalar, Words, plain

FORMER = {
    "embeddings": "content",
    "analysis": "content.report",
    "train": "training",
    "evaluate": "evaluation",
    "publish": "runs",
    "serve": "serving",
}
"""What sections were called before, and what they are called now. A file and an override may say either."""

Assignment = tuple[list[str], Any]
"""The names of a key, and its value: ``Words``, or what was given from Python."""


def assignments(given: Sequence[str] | Mapping[str, Any]) -> list[Assignment]:
    """Overrides apart; those of a mapping have values, those of a command line what was typed.

    Raises:
        ConfigError: one is no assignment to a key.
    """
    pairs: list[tuple[str, str, Any]] = []
    if isinstance(given, Mapping):
        pairs = [(key, key, json.loads(json.dumps(value, default=str))) for key, value in given.items()]
    else:
        for override in given:
            key, equals, value = override.partition("=")
            pairs.append((override, key if equals else "", Words(value)))
    found = []
    for override, key, value in pairs:
        names = key.strip().split(".")
        if not all(names):
            raise ConfigError(f"{mask(override)!r} is not an override; write key=value, for example recommend.n=20")
        found.append((names, value))
    return found


def override(tree: dict[str, Any], given: Sequence[Assignment], root: type[BaseModel]) -> list[str]:
    """Set the keys in the tree; what has to be told of it, in lines.

    A section that is given another kind loses what the file sets for the kind before.
    """
    wanted = [_whole_key(tree, names, value, root) for names, value in given]
    notes = [_drop_other_kind(tree, names, value, root) for names, value in wanted]
    for names, value in wanted:
        _set(tree, names, value, root)
    return [note for note in notes if note is not None]


def _whole_key(tree: dict[str, Any], names: list[str], value: Any, root: type[BaseModel]) -> Assignment:
    """The key under the present name of its section, and down to the discriminator where the kind alone is given."""
    outer = FORMER.get(names[0], names[0]).rpartition(".")[0]
    if not outer or isinstance(tree.get(outer), dict):
        names = [*FORMER.get(names[0], names[0]).split("."), *names[1:]]
    discriminator = kind_at(root, tree, names).discriminator
    if discriminator is not None and isinstance(plain(value), str):
        names = [*names, discriminator]
    return names, value


def _drop_other_kind(tree: dict[str, Any], names: list[str], value: Any, root: type[BaseModel]) -> str | None:
    """Where a section of the file gets another kind, what the two do not have in common goes.

    In common they have what both inherit: a setting of the same name may mean another thing to another model.
    """
    *outer, last = names
    section: Any = tree
    for name in outer:
        section = section.get(name) if isinstance(section, dict) else None
    kind = kind_at(root, tree, outer)
    if not isinstance(section, dict) or kind.discriminator != last or section.get(last) is None:
        return None
    old, new = plain(section[last]), value.text if isinstance(value, Words) else value
    known = kind.sections
    if old == new or old not in known or new not in known:
        return None
    own = [key for key in section if key != last and not _shared(key, known, old, new)]
    dropped = {key: plain(section.pop(key)) for key in own}
    if not dropped:
        return None
    listed = ", ".join(f"{key}={mask(json.dumps(inner))}" for key, inner in dropped.items())
    was = "was" if len(dropped) == 1 else "were"
    return f"note: {'.'.join(names)}={new}: dropped {listed}, which {was} set for {old}"


def _shared(key: str, known: Mapping[str, type[BaseModel]], old: str, new: str) -> bool:
    if key not in known[old].model_fields:
        return True  # a mistake, which is told as one
    owners = [
        next((one for one in known[name].__mro__ if key in vars(one).get("__annotations__", {})), None)
        for name in (old, new)
    ]
    return owners[0] is not None and owners[0] is owners[1]


def _set(tree: dict[str, Any], names: list[str], value: Any, root: type[BaseModel]) -> None:
    node = tree
    for depth, name in enumerate(names[:-1], 1):
        inner = node.get(name)
        if isinstance(inner, Scalar | Words):
            inner = None if plain(inner) is None else inner.value
        if inner is None:
            inner = {}
        kind: Kind = kind_at(root, tree, names[:depth])
        if isinstance(inner, str) and kind.discriminator is not None:
            inner = {kind.discriminator: inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"{'.'.join(names)}: {name} holds a value, not further keys")
        node[name] = inner
        node = inner
    kind = kind_at(root, tree, names)
    at_once = isinstance(value, Words) and (kind.discriminator is not None or kind.section({}) is not None)
    node[names[-1]] = value.value if at_once else value
