"""YAML to values that keep how they were written, so that a key of text can take them as they are.

name: 010            the text "010", where name holds text
n: 010               no number: YAML 1.1 would read 8, others 10
evaluate: {on: valid}    a key is text, also where YAML 1.1 has a word for true
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from recsys_ray.base.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value that was written without quotes and is no text to YAML: what it is, and how it was written."""

    text: str
    value: Any


@dataclass(frozen=True, slots=True)
class Words:
    """The value of an override, as it was typed."""

    text: str

    @property
    def value(self) -> Any:
        """What it is to a key that holds something else than text."""
        return parse_words(self.text)


_TAG = "tag:yaml.org,2002:"
_NUMBERS = {
    f"{_TAG}int": re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"),
    f"{_TAG}float": re.compile(
        r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
    ),
}
_DROPPED = {*_NUMBERS, f"{_TAG}timestamp", f"{_TAG}value"}


class _Loader(yaml.SafeLoader):
    """YAML without its traps: 1e-3 is a number, 010 and 1:30 are not, dates stay text, keys are text and stand once."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name and type are the library's
        first: [(tag, pattern) for tag, pattern in _NUMBERS.items() if first in "-+0123456789."]
        + [(tag, pattern) for tag, pattern in resolvers if tag not in _DROPPED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        plain = isinstance(node, yaml.ScalarNode) and node.style is None and not isinstance(value, str)
        return Scalar(node.value, value) if plain else value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
            if key.value in mapping:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            mapping[key.value] = self.construct_object(value, deep)
        return mapping


def plain(value: Any) -> Any:
    """The value without how it was written."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.value if isinstance(value, Scalar) else plain(value.value) if isinstance(value, Words) else value


def parse_file(data: bytes, path: str) -> Any:
    """A YAML file.

    Raises:
        ConfigError: one sentence: where it is wrong, and how.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"{path}: is UTF-16; save the configuration as UTF-8")
    try:
        return yaml.load(data.decode("utf-8-sig"), _Loader)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8; save the configuration as UTF-8"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}{_sentence(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not valid YAML: nested too deeply") from error


def _sentence(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f": not valid YAML: the character {error.character!r} at {error.position} can't stand there"
    problem = str(getattr(error, "problem", None) or error).strip()
    context, mark = getattr(error, "context", None), getattr(error, "problem_mark", None)
    where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    if problem.startswith("key "):
        return f"{where}: {problem}"
    if "block" in f"{context} {problem}" or "mapping values" in problem:
        problem += "; look at the indentation of this line and the one before"
    elif "\\t" in problem:
        problem += "; indent with blanks"
    elif context is not None and context.startswith("while scanning a quoted"):
        problem += ", where a quoted text has no end"
    return f"{where}: not valid YAML: {' '.join(problem.split())}"


def parse_words(text: str) -> Any:
    """What an override says: a whole YAML scalar, list or mapping; everything else is text, as it was typed."""
    if text.lstrip()[:1] in ("&", "*", "!", "%", "@", "`", "|", ">", "#"):
        return text
    try:
        node = yaml.compose(text, _Loader)
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError):
        return text
    return value if node is None or _end(node) >= len(text.rstrip()) else text


def _end(node: yaml.Node) -> int:
    """Where the last thing of a node ends. A block goes on, by its own mark, over comments behind it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    return int(node.end_mark.index)
