"""The documentation names every key, command and model; and no page, command or file that is not there."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from recsys_ray.cli import STAGES
from recsys_ray.commands import COMMANDS
from recsys_ray.config.sections import Config
from recsys_ray.models.registry import MODELS

ROOT = Path(__file__).parent.parent
WRITTEN = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#:\s]+\.md)(?:#[^)]*)?\)")
KIND = re.compile(r"\| `(?:name|kind|source)` \| `\w+` \|")
PLAIN = {"user_id", "item_id", "title", "low", "high", "users", "items", "genres"}
"""Keys whose docstring is that of their section."""
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section_of(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_key_of_the_schema_has_a_row_in_the_table_of_its_section(generate: ModuleType) -> None:
    page = generate.configuration_page()
    schema = Config.model_json_schema()
    for title, section in [("Config", schema), *schema["$defs"].items()]:
        if keys := section.get("properties"):
            rows = re.findall(r"^\| `(\w+)` \|", section_of(page, title), re.MULTILINE)
            assert rows == list(keys), title


def test_a_key_says_what_it_means_or_leads_to_a_section_or_names_its_kind(generate: ModuleType) -> None:
    rows = [row for row in generate.configuration_page().splitlines() if row.startswith("| `")]
    silent = [row for row in rows if row.endswith("|  |") and "](#" not in row and not KIND.match(row)]
    assert {row.split("`")[1] for row in silent} <= PLAIN, silent


def test_a_link_to_a_section_has_a_section(generate: ModuleType) -> None:
    page = generate.configuration_page()
    titles = {title.lower() for title in re.findall(r"^## (\w+)$", page, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert links and links <= titles


def test_every_command_and_every_model_is_described(generate: ModuleType) -> None:
    described = re.findall(r"^## `(\w+)`$", generate.commands_page(), re.MULTILINE)
    assert sorted(described) == sorted([*STAGES, *COMMANDS])
    page = generate.models_page()
    for name in MODELS:
        assert len(section_of(page, f"`{name}`")) > 100, name


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_pages(path: Path, generate: ModuleType) -> None:
    made = {(ROOT / "docs" / page).resolve() for page in generate.PAGES}
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        target = (path.parent / link).resolve()
        assert target.exists() or target in made, link


def typed() -> Iterator[tuple[str, str]]:
    """(page, line) of what a reader is told to type."""
    for path in WRITTEN:
        for block in FENCED.findall(path.read_text(encoding="utf-8")):
            for line in block.splitlines()[1:-1]:
                yield str(path.relative_to(ROOT)), line


def test_commands_and_files_that_a_reader_is_told_to_type_exist() -> None:
    names = [(page, name) for page, line in typed() for name in re.findall(r"\brecsys-ray (\w+)", line)]
    files = [(page, name) for page, line in typed() for name in re.findall(r"\b(?:configs|jobs)/[\w/-]+\.\w+", line)]
    assert names and files
    assert [one for one in names if one[1] not in {*STAGES, *COMMANDS}] == []
    assert [one for one in files if not (ROOT / one[1]).exists()] == []


def test_every_page_stands_in_the_navigation(generate: ModuleType) -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = {page for entry in nav for page in ([entry] if isinstance(entry, str) else next(iter(entry.values())))}
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert listed == pages | set(generate.PAGES)
