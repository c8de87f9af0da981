"""What a reader is told to type is taken by the command: words, options, keys and values, calls and targets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from scipy.sparse import coo_matrix

from recsys_ray import cli
from recsys_ray.config import load_config
from recsys_ray.config.reference import keys as every_key
from recsys_ray.serving.http.routes import ROUTES
from tests.here import without_ray
from tests.pages import ROOT, WRITTEN, code_of, read
from tests.test_docs import is_key, typed

PLACEHOLDER = re.compile(r"\.\.\.|^[A-Z_]+(=|$)|=[A-Z_]+$")
OPTIONAL = re.compile(r"\[[^\]=]*=value \.\.\.\]|\[--?[\w-]+\]")
MADE = {"shop.yaml", "demo.yaml", "movielens.yaml", "orders.yaml"}
"""Files that the reader makes with ``init`` first."""


def said(program: str) -> Iterator[tuple[str, str]]:
    """(page, what follows the program) of every line of code that calls it."""
    for page, line in typed():
        for part in re.split(r"&&|\|\||;|\s\|\s|\$\(|\)", OPTIONAL.sub("", line)):
            words = part.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            found = re.search(rf"(?:^|/|\s){program}\s+(.*)", words) if program in words else None
            if found:
                yield page, found.group(1)


LINES = sorted(set(said("recsys-ray")))


@pytest.fixture(scope="module")
def commands() -> Any:
    return typer.main.get_command(cli.application())


@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda value: value[:60])
def test_a_command_is_taken_as_it_is_written(page: str, line: str, commands: Any) -> None:
    name, *words = [cli.OVERRIDE.sub("", word) for word in shlex.split(line, comments=True)]
    if name.startswith("-"):
        assert name in ("--help", "-V", "--version", "--install-completion")
        return
    assert name in commands.commands, page
    context = commands.commands[name].make_context(name, list(words))
    settings = [word for word in words if re.match(r"[a-z_]+(\.\w+)*=", word) and not PLACEHOLDER.search(word)]
    configs = [word for word in words if word.endswith(".yaml")]
    written = [word for word in configs if (ROOT / word).exists()]
    assert set(configs) - set(written) <= MADE or any(word.startswith("/") for word in configs), page
    if written:
        load_config(str(ROOT / written[0]), settings)
    known = set(every_key())
    assert [word for word in settings if not is_key(word.partition("=")[0], known)] == [], page
    assert context.command.name == name


def test_calls_lead_to_routes() -> None:
    paths = [re.sub(r"\{\w+\}", "[^/]+", route.path) for route in ROUTES] + ["/", "/ops", "/docs"]
    called = [
        (page, url)
        for page, line in typed()
        for url in re.findall(r"(?:localhost|127\.0\.0\.1|HOST):8000(/[^\s'\"?)]*)", line)
    ]
    assert called
    assert [one for one in called if not any(re.fullmatch(path, one[1]) for path in paths)] == []


def test_targets_and_scripts_exist() -> None:
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert [one for one in said("make") if (word := one[1].split()[0])[0].isalpha() and word not in targets] == []
    scripts = [(page, name) for page, line in said("python") for name in re.findall(r"^[\w/]+\.py", line)]
    assert scripts and [one for one in scripts if not (Path(ROOT) / one[1]).exists()] == []


@pytest.mark.parametrize("library", ["implicit", "RecTools", "LensKit"])
def test_who_comes_from_another_library_gets_lists(library: str) -> None:
    (section,) = re.findall(rf"^## {library}\n(.*?)(?=^## )", read("how-to/coming-from.md"), re.DOTALL | re.MULTILINE)
    (code,) = code_of(section, "python")
    rows = [
        (user, (user * 3 + step) % 17, 4.0 + step % 2, 1_700_000_000 + step) for user in range(40) for step in range(8)
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])
    given: dict[str, Any] = {"ratings": frame, "interactions": frame.rename(columns={"rating": "weight"})}
    given["interactions"] = given["interactions"].rename(columns={"timestamp": "datetime"})
    given["matrix"] = coo_matrix((frame["rating"], (frame["user_id"], frame["item_id"])))
    exec(code, given)
    if library == "LensKit":
        assert given["model"].recommend([0, 1], n=3)["user_id"].tolist() == [0] * 3 + [1] * 3
    else:
        assert given["recs"]["user_id"].nunique() == (2 if library == "implicit" else 40)


def test_the_first_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = read("tutorials/five-minutes.md")
    lines = [line for block in code_of(page, "bash") for line in block.splitlines()]
    ours = [shlex.split(line)[1:] for line in lines if line.startswith("recsys-ray")]
    assert [words[0] for words in ours] == ["init", "plan", "run", "report", "report", "serve", "verify"]
    monkeypatch.chdir(tmp_path)
    smaller = ["data.users=120", "data.items=60", "content.text=null", "content.image.encoder=palette"]
    with without_ray():
        for words in ours:
            if words[0] != "serve" and "--url" not in words:
                assert cli.main([*words, *(smaller if words[0] != "init" else [])]) == 0, words
    (code,) = code_of(page, "python")
    given: dict[str, Any] = {}
    exec(code, given)
    assert given["rows"]["user_id"].nunique() == 120 and len(list(tmp_path.rglob("*.html"))) == 2


def test_what_needs_more_than_this_machine_says_so() -> None:
    elsewhere = re.compile(
        r"^(ray job submit|ray up|serve deploy|kubectl|docker|redis-cli|psql|run=\$\(redis-cli)", re.MULTILINE
    )
    pages = [path.read_text(encoding="utf-8") for path in WRITTEN]
    needing = [block for text in pages for block in code_of(text) if elsewhere.search(block)]
    assert needing
    assert set(needing) <= {block for text in pages for block in code_of(text, r'bash title="Needs a [^\n]*"')}
