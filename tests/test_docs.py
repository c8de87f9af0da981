"""The documentation names every key, command and model; and no page, command or file that is not there."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from recsys_ray import cli
from recsys_ray.config.reference import keys as every_key
from recsys_ray.models.registry import MODELS
from tests.here import without_ray
from tests.pages import ROOT, WRITTEN, code_of, read
from tests.worlds import TINY, World

LINK = re.compile(r"\]\(([^)#:\s]+\.md)(?:#[^)]*)?\)")
COMMANDS = [name for _, name, _ in cli.functions()]
PLAIN = {"user_id", "item_id", "title", "low", "high", "users", "items", "genres", "name", "kind", "source"}
"""Keys whose docstring is that of their section, and the names of kinds."""


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_has_a_row_that_says_what_it_means(generate: ModuleType) -> None:
    page = generate.configuration_page()
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    assert set(rows) >= set(every_key())
    silent = {path: row for path, row in rows.items() if row.endswith("|  |") and "| section |" not in row}
    silent = {path: row for path, row in silent.items() if path.rpartition(".")[2] not in PLAIN}
    assert silent == {}


def test_every_command_and_every_model_is_described(generate: ModuleType) -> None:
    page = generate.commands_page()
    assert re.findall(r"^## `([\w-]+)`$", page, re.MULTILINE) == COMMANDS
    assert all(f"recsys-ray {name}" in page for name in COMMANDS)
    page = generate.models_page()
    parts = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(parts) == list(MODELS) and all(len(text) > 100 for text in parts.values())


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_pages(path: Path, generate: ModuleType) -> None:
    made = {(ROOT / "docs" / page).resolve() for page in generate.PAGES}
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        target = (path.parent / link).resolve()
        assert target.exists() or target in made, link


def typed() -> Iterator[tuple[str, str]]:
    """(page, line) of what a reader is told to type."""
    for path in WRITTEN:
        for block in code_of(path.read_text(encoding="utf-8")):
            for line in block.splitlines():
                yield str(path.relative_to(ROOT)), line


def test_commands_and_files_that_a_reader_is_told_to_type_exist() -> None:
    names = [(page, name) for page, line in typed() for name in re.findall(r"\brecsys-ray (\w+)", line)]
    files = [(page, name) for page, line in typed() for name in re.findall(r"\b(?:configs|jobs)/[\w/-]+\.\w+", line)]
    assert names and files
    assert [one for one in names if one[1] not in set(COMMANDS)] == []
    assert [one for one in files if not (ROOT / one[1]).exists()] == []


def test_keys_of_yaml_exist() -> None:
    known = set(every_key())
    blocks = [
        (path.name, yaml.safe_load(block))
        for path in WRITTEN
        for block in code_of(path.read_text(encoding="utf-8"), "yaml")
    ]
    assert len(blocks) >= 5
    assert [(page, path) for page, block in blocks for path in paths_of(block) if not is_key(path, known)] == []


def paths_of(block: object, above: str = "") -> Iterator[str]:
    if isinstance(block, dict):
        for name, value in block.items():
            yield f"{above}{name}"
            yield from paths_of(value, f"{above}{name}.")


def is_key(path: str, known: set[str]) -> bool:
    """A key, or inside one whose own keys are the reader's."""
    while path not in known:
        path, inside, _ = path.rpartition(".")
        if not inside or any(key.startswith(f"{path}.") for key in known):
            return False
    return True


def test_the_keys_of_manifests_are_told(tmp_path: Path) -> None:
    world = World(tmp_path, data=TINY["data"] | {"posters": True}, content={"image": {"encoder": "palette"}})
    with without_ray():
        assert world.command("run").status == 0
    told = set(re.findall(r"`([\w*./-]+)`", read("reference/files.md")))
    written = {
        file.relative_to(tmp_path / "out"): set(json.loads(file.read_text()))
        for file in (tmp_path / "out").rglob("*.json")
        if not file.name.startswith("part-")
    }
    assert {file.parts[0] for file in written} == {"prepared", "embeddings", "models", "evaluation", "recommendations"}
    assert {str(file): keys - told for file, keys in written.items() if keys - told} == {}


def test_the_numbers_of_the_readme_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| .* \| .* \| `.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 5 and set(rows) <= set(read("explanation/numbers.md").splitlines())


def test_every_page_stands_in_the_navigation(generate: ModuleType) -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = {page for entry in nav for page in ([entry] if isinstance(entry, str) else next(iter(entry.values())))}
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert listed == pages | set(generate.PAGES)
