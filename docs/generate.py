"""Pages of the reference that are made from the code while the site is built.

Each page has one function that gives its data and one that writes it down.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel

from recsys_ray.cli import STAGES
from recsys_ray.commands import COMMANDS, command
from recsys_ray.config.sections import Config
from recsys_ray.models.registry import CLASSES


def commands() -> Iterator[tuple[str, str, str]]:
    """Name, purpose and arguments of every command."""
    for name, purpose in STAGES.items():
        yield name, purpose, ""
    for name in COMMANDS:
        parser = argparse.ArgumentParser(f"recsys-ray {name}", add_help=False)
        command(name).add_arguments(parser)
        yield name, command(name).HELP, parser.format_help().strip()


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of a configuration."""
    return Config.model_json_schema()


@cache
def classes() -> dict[str, type[BaseModel]]:
    """The class of each section by its name in the schema."""
    found: dict[str, type[BaseModel]] = {}
    waiting: list[type[BaseModel]] = [BaseModel]
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        if one.__module__.startswith("recsys_ray."):
            found[one.__name__] = one
    return found


def meanings(section: type[BaseModel]) -> dict[str, str]:
    """The docstring under each key, those of the section itself before those of what it derives from."""
    found: dict[str, str] = {}
    for base in section.__mro__:
        found = _docstrings(base) | found if base.__module__.startswith("recsys_ray.") else found
    return found


@cache
def _docstrings(owner: type) -> dict[str, str]:
    tree = ast.parse(inspect.getsource(sys.modules[owner.__module__]))
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
            for key, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(key.target, ast.Name):
                    found[key.target.id] = str(ast.literal_eval(text.value))
    return found


def models() -> Iterator[tuple[str, str]]:
    """Name and description (formula, source, time and memory) of every model."""
    for model in CLASSES:
        yield model.key, inspect.getdoc(sys.modules[model.__module__]) or ""


def commands_page() -> str:
    lines = ["# Commands", "", "`recsys-ray COMMAND CONFIG [key=value ...]`", ""]
    for name, purpose, arguments in commands():
        lines += [f"## `{name}`", "", purpose[:1].upper() + purpose[1:] + ".", ""]
        lines += ["```text", arguments, "```", ""] if arguments else []
    return "\n".join(lines)


def configuration_page() -> str:
    """One table for each section: key, type, default, bounds and meaning."""
    whole = schema()
    lines = ["# Configuration", "", "Every key of a YAML file, and of `key=value` behind a command.", ""]
    for title, section in [("Config", whole), *sorted(whole["$defs"].items())]:
        if properties := section.get("properties"):
            told = inspect.cleandoc(classes()[title].__doc__ or "").split("\n\n")[0]
            lines += [f"## {title}", "", told, "", *_table(title, properties, section.get("required", [])), ""]
    return "\n".join(lines)


def models_page() -> str:
    lines = ["# Models", "", "The settings of each are in [Configuration](configuration.md).", ""]
    for name, text in models():
        lines += [f"## `{name}`", "", "```text", text, "```", ""]
    return "\n".join(lines)


def _table(title: str, properties: dict[str, Any], required: list[str]) -> list[str]:
    texts = meanings(classes()[title])
    rows = ["| key | type | default | bounds | meaning |", "|---|---|---|---|---|"]
    for key, value in properties.items():
        default = "required" if key in required else f"`{_cell(value.get('default'))}`"
        bounds = ", ".join(f"{name} {value[name]}" for name in BOUNDS if name in value)
        rows.append(f"| `{key}` | {_type(value)} | {default} | {bounds} | {_cell(texts.get(key, ''))} |")
    return rows


BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "pattern")


def _type(value: dict[str, Any]) -> str:
    """The type in words; a section is a link to its table."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if "properties" in schema()["$defs"][name] else name
    if choices := value.get("anyOf") or value.get("oneOf") or value.get("allOf"):
        return " or ".join(_type(one) for one in choices)
    if "enum" in value or "const" in value:
        return ", ".join(f"`{one}`" for one in value.get("enum", [value.get("const")]))
    return str(value.get("type", "any"))


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


PAGES = {
    "reference/commands.md": commands_page,
    "reference/configuration.md": configuration_page,
    "reference/models.md": models_page,
}


def on_files(files: Any, config: Any) -> Any:
    """The hook of mkdocs: the generated pages stand among the written ones."""
    from mkdocs.structure.files import File

    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=write()))
    return files
