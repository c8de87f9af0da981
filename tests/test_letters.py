"""The letters that array names end in, read from the syntax trees: one table for the package, no legend beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from recsys_ray.base.types import SUFFIXES
from tests.test_layers import MODULES, Module, module

SHAPED = re.compile(r"_*[a-z][a-z0-9_]*_([A-Z][A-Z0-9]*)")
LEGEND = re.compile(r"(?i:\bsuffix(es)?\b)[^.]*?\b[A-Z]1?[ :]")
TABLE = "recsys_ray.base.arrays"


def names(mod: Module) -> Iterator[tuple[int, str]]:
    """Every name that the file gives to something: a variable, an attribute, an argument, a function."""
    for node in ast.walk(mod.tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.FunctionDef(name=name):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name
            case _:
                pass


def letters(name: str) -> set[str]:
    """The letters of its suffix; none where it has none."""
    found = SHAPED.fullmatch(name)
    return set(filter(str.isalpha, found[1])) if found else set()


def unknown_letters(mod: Module) -> list[str]:
    """Names whose suffix is not made of letters of the table and digits."""
    problems = []
    for line, name in names(mod):
        unknown = letters(name) - SUFFIXES.keys()
        if unknown:
            problems.append(f"{mod.name}:{line} {name}: {sorted(unknown)} not in SUFFIXES of {TABLE}")
    return problems


def legends(mod: Module) -> list[str]:
    """Docstrings that explain suffixes anew."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(mod.tree) if isinstance(node, nodes)]
    return [f"{mod.name} {text.splitlines()[0]}" for text in texts if LEGEND.search(text)]


@pytest.mark.parametrize("mod", MODULES, ids=lambda mod: mod.name)
def test_array_names_end_in_letters_of_the_table(mod: Module) -> None:
    assert unknown_letters(mod) == []
    assert legends(mod) == []


def test_every_letter_is_in_use() -> None:
    assert SUFFIXES.keys() == {letter for mod in MODULES for _, name in names(mod) for letter in letters(name)}


def test_a_letter_is_one_and_has_one_meaning() -> None:
    assert all(re.fullmatch("[A-Z]", letter) for letter in SUFFIXES)
    assert len(set(SUFFIXES.values())) == len(SUFFIXES)


@pytest.mark.parametrize(
    "source",
    [
        "rows_O = 1",
        "rows_BO: int = 1",
        "class A:\n    rows_O: int",
        "def f(rows_O): pass",
        "def f(*, rows_BO: int = 1): pass",
        "def rows_O(self): pass",
        "self.rows_O = 1",
        "self._rows_O += 1",
        "for rows_O, other in pairs: pass",
        "[rows_O for rows_O in pairs]",
        "lambda rows_O: 1",
        "with open() as rows_O: pass",
        "(rows_O := 1)",
        "import numpy as rows_O",
        "offsets_B1O = 1",
    ],
)
def test_the_letter_rule_catches(source: str) -> None:
    assert len(unknown_letters(module("recsys_ray.made.up", source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "rows_BK, offsets_B1, lab_NYX3, points_R2, table_256, _hidden_BLL = some",
        "MAX_O = LARGEST_OF_O = 1\nclass Some_O: pass",
        "rows_of = other.rows_O",
        "print(rows_O=1)",
    ],
)
def test_the_letter_rule_lets_through(source: str) -> None:
    assert unknown_letters(module("recsys_ray.made.up", source)) == []


@pytest.mark.parametrize(
    "source",
    [
        '"""Scores.\n\nShape suffixes: B rows of a table.\n"""',
        '"""Scores. Suffixes: B rows."""',
        'class A:\n    """Items. Suffix I: items in vocabulary order."""',
        'def f():\n    """Suffixes as elsewhere: B rows."""',
    ],
)
def test_the_legend_rule_catches(source: str) -> None:
    assert len(legends(module("recsys_ray.made.up", source))) == 1


def test_the_legend_rule_lets_a_meaning_be_narrowed() -> None:
    narrowed = '"""Scores.\n\nP are the positions of the scan.\n"""\nEXTENSIONS = "suffixes: of files"'
    assert legends(module("recsys_ray.made.up", narrowed)) == []
