"""Pages of the reference that are made from the code while the site is built."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from recsys_ray import cli
from recsys_ray.config import reference

sys.path.insert(0, str(Path(__file__).parent))
import tables
from tables import cell


def commands_page() -> str:
    """Every command with its arguments and examples."""
    lines = ["# Commands", "", "`recsys-ray COMMAND CONFIG [key=value ...]`", ""]
    for group, name, function in cli.functions():
        text, examples = cli.help_of(function)
        lines += [f"## `{name}`", "", f"*{group}.* {text}", "", *_arguments(function)]
        lines += ["```bash", *examples, "```", ""] if examples else []
    return "\n".join(lines)


def _arguments(function: Any) -> list[str]:
    """A line for each argument that says what it is for."""
    lines = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if get_origin(parameter.annotation) is Annotated:
            told = [getattr(one, "help", None) for one in get_args(parameter.annotation)[1:]]
            word = name if parameter.default is inspect.Parameter.empty else f"--{name.replace('_', '-')}"
            lines += [
                f"- `{word}`: {text}" for text in told if text and name not in ("config", "overrides", "settings")
            ]
    return [*lines, ""] if lines else []


def configuration_page() -> str:
    """One table for each section, and for each kind of one: key, type, default, bounds and meaning."""
    lines = ["# Configuration", "", "Every key of a YAML file, and of `key=value` behind a command.", ""]
    for section in reference.sections():
        kind = "" if section.kind is None else f": `{section.kind}`"
        lines += [f"## `{section.path or 'the whole'}`{kind}", "", section.text.split("\n\n")[0], ""]
        lines += ["| key | type | default | bounds | meaning |", "|---|---|---|---|---|"]
        for key in section.keys:
            default = "required" if key.default is None else f"`{cell(key.default)}`"
            cells = (f"`{key.path}`", cell(key.type), default, cell(key.bounds), cell(key.text))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def models_page() -> str:
    """Every model: formula, source, memory and time, and its settings."""
    lines = [
        "# Models",
        "",
        "`model: {name: NAME, ...}`; the settings of each are in [Configuration](configuration.md).",
        "",
    ]
    for model in reference.models():
        traits = {"personal": model.personal, "looks at the order of a history": model.ordered}
        traits |= {"needs texts or posters": model.needs_content, "predicts ratings": model.predicts_ratings}
        said = ", ".join(trait for trait, has in traits.items() if has) or "the same for everybody"
        lines += [f"## `{model.name}`", "", f"{model.summary} *{said}.*", "", "```text", model.text, "```", ""]
    return "\n".join(lines)


PAGES = {
    "reference/commands.md": commands_page,
    "reference/configuration.md": configuration_page,
    "reference/models.md": models_page,
    "reference/http.md": tables.http_page,
    "reference/tables.md": tables.tables_page,
    "reference/metrics.md": tables.metrics_page,
    "reference/prometheus.md": tables.prometheus_page,
}


def on_files(files: Any, config: Any) -> Any:
    """The hook of mkdocs: the generated pages stand among the written ones."""
    from mkdocs.structure.files import File

    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=write()))
    return files
