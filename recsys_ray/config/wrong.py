"""What is wrong with a configuration, all of it, in one line that names every key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from recsys_ray.base.secrets import mask, masked
from recsys_ray.config.kinds import Kind, kind_at

MOST = 12
"""Errors that one line lists."""
CLOSE = 0.7


def explain(error: ValidationError, tree: dict[str, Any], root: type[BaseModel]) -> str:
    """Every error with its key; those of one key, which may hold things of several types, as alternatives."""
    by_key: dict[str, list[str]] = {}
    for one in error.errors():
        key = _key(one["loc"], tree)
        said = _said(one, key, tree, root)
        if said not in by_key.setdefault(key, []):
            by_key[key].append(said)
    lines = [_line(key, said) for key, said in by_key.items()]
    more = f"; and {len(lines) - MOST} more" if len(lines) > MOST else ""
    return mask("; ".join(lines[:MOST]) + more)


def _line(key: str, said: list[str]) -> str:
    text = " or ".join(said)
    whole = not key or any(one.startswith((f"{key}.", f"{key}:")) for one in said)
    return text if whole else f"{key}: {text}"


def _said(one: Any, key: str, tree: dict[str, Any], root: type[BaseModel]) -> str:
    """What is wrong at one place, without its key."""
    kind, message, context = one["type"], str(one["msg"]), one.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{_unknown_key(key, tree, root)}"
    if kind.startswith("union_tag"):
        field, known = context["discriminator"].strip("'"), _kind(key, tree, root).sections
        listed = ", ".join(map(repr, known))
        if "tag" not in context:
            return f"{key}.{field}: missing; set one of {listed}"
        return f"{key}.{field}: {context['tag']!r} is none of {listed}{_close(context['tag'], known)}"
    if kind == "value_error":
        message = message.removeprefix("Value error, ")
        return message
    if kind == "missing":
        return "field required"
    found = masked(one["input"])
    if kind in ("model_type", "model_attributes_type", "dict_type") or message.startswith("Input should be an object"):
        return f"holds further keys, found {_short(found)}"
    expected = context.get("expected")
    hint = _close(found, [text.strip("'") for text in expected.replace(" or ", ", ").split(", ")]) if expected else ""
    return f"{message[0].lower()}{message[1:]}, found {_short(found)}{hint}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _key(location: tuple[int | str, ...], tree: Any) -> str:
    """The dotted key of an error; the tags that pydantic puts in for the chosen member of a union are left out."""
    names, node = [], tree
    for place, name in enumerate(location):
        inside = isinstance(node, dict) and name in node
        counts = isinstance(node, list) and isinstance(name, int) and name < len(node)
        if inside or counts:
            names.append(str(name))
            node = node[name]
        elif place == len(location) - 1 and isinstance(node, dict) and not _is_tag(name, node):
            names.append(str(name))  # a key that is missing
    return ".".join(names)


def _is_tag(name: int | str, node: dict[str, Any]) -> bool:
    return isinstance(name, str) and (name in node.values() or "[" in name or name in ("str", "int", "float", "bool"))


def _kind(key: str, tree: dict[str, Any], root: type[BaseModel]) -> Kind:
    return kind_at(root, tree, key.split(".")) if key else Kind((root,))


def _unknown_key(key: str, tree: dict[str, Any], root: type[BaseModel]) -> str:
    """What an unknown key may have been meant to be: one of its section before those of other sections."""
    section, _, name = key.rpartition(".")
    node: Any = tree
    for part in section.split(".") if section else ():
        node = node[int(part)] if isinstance(node, list) else node[part]
    kind = _kind(section, tree, root)
    own = kind.section(node)
    known = [] if own is None else list(own.model_fields)
    if hint := _close(name, known):
        return hint
    elsewhere = [other for other in _all_keys(Kind((root,)), tree) if other.rpartition(".")[0] != section]
    same = [other for other in elsewhere if other.rpartition(".")[2] == name]
    if len(same) == 1:
        return f"; did you mean {same[0]!r}?"
    close = [] if section else difflib.get_close_matches(name, [one.rpartition(".")[2] for one in elsewhere], 1, 0.8)
    if close:
        return f"; did you mean {next(one for one in elsewhere if one.endswith(f'.{close[0]}'))!r}?"
    if kind.discriminator is not None:
        others = [field for field in known if field != kind.discriminator]
        return f"; {node[kind.discriminator]} has {', '.join(sorted(others)) or 'no settings'}"
    return ""


def _all_keys(kind: Kind, node: Any, outer: str = "") -> Iterator[str]:
    """The keys of the sections as they were chosen."""
    section = kind.section(node)
    for name in [] if section is None else section.model_fields:
        inner = kind.inside(name, node)
        yield outer + name
        if any(_is_section(member) for member in inner.members):
            yield from _all_keys(inner, node.get(name) if isinstance(node, dict) else None, f"{outer}{name}.")


def _is_section(member: Any) -> bool:
    return get_origin(member) is None and isinstance(member, type) and issubclass(member, BaseModel)


def _close(found: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(found), list(known), 1, CLOSE)
    return f"; did you mean {close[0]!r}?" if close else ""
