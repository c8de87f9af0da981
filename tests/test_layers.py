"""The shape of the package, read from its syntax trees: who may import whom, no cycle, no side effect, no huge file.

A *room* is a module or subpackage directly under ``recsys_ray``, or ``jobs``. Rooms on one floor stand side by side:
they don't see each other, only the floors below.
"""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 350

FLOORS = [
    {"base"},
    {"pages", "console"},
    {"data", "training", "retrieval", "evaluation"},
    {"models", "content"},
    {"recommend", "testing"},
    {"runs"},
    {"serving", "api", "tracking"},
    {"cluster"},
    {"config"},
    {"planning"},
    {"pipeline", "deploy"},
    {"commands"},
    {"cli"},
    {"jobs", "__main__"},
]
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}
MAY_IMPORT_RAY = {"cluster", "jobs"}

# A call at module level may only make a constant, a type, or a logger; lower-case names would be hidden state.
# Decorators used as functions make functions, which are named like functions.
MAKES_A_FUNCTION = {"njit", "intrinsic", "partial"}
CONSTANT = re.compile(r"_?[A-Z][A-Za-z0-9_]*|log|logger")


@dataclass(frozen=True)
class Module:
    name: str
    tree: ast.Module
    lines: int = 0
    is_package: bool = False

    @property
    def room(self) -> str:
        parts = self.name.split(".")
        return parts[0] if parts[0] == "jobs" else (parts[1] if len(parts) > 1 else "")


@dataclass(frozen=True)
class Import:
    line: int
    name: str
    """The full name after ``import``, or module.name for ``from module import name``."""
    only_for_types: bool


def module(name: str, source: str, is_package: bool = False) -> Module:
    return Module(name, ast.parse(source), source.count("\n") + 1, is_package)


def all_modules() -> list[Module]:
    found = []
    for top in ("recsys_ray", "jobs"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            found.append(module(".".join(parts[:-1] if is_package else parts), path.read_text(), is_package))
    return found


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING"


def imports(mod: Module) -> Iterator[Import]:
    """Every import of the file, those inside functions too."""
    for_types = {id(inner) for node in mod.tree.body if is_type_checking(node) for inner in ast.walk(node)}
    for node in ast.walk(mod.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, id(node) in for_types)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = mod.name.split(".")
                above = node.level - 1 if mod.is_package else node.level
                base = ".".join([*parts[: len(parts) - above], *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(node.lineno, f"{base}.{alias.name}", id(node) in for_types)


def wrong_imports(mod: Module) -> list[str]:
    """Imports that look up, look sideways, or bring in Ray where it does not belong."""
    problems = []
    for found in imports(mod):
        top, _, rest = found.name.partition(".")
        room = "jobs" if top == "jobs" else rest.partition(".")[0]
        if top == "ray" and mod.room not in MAY_IMPORT_RAY:
            problems.append(f"{mod.name}:{found.line} imports ray; only {sorted(MAY_IMPORT_RAY)} may")
        if top not in ("recsys_ray", "jobs") or room == mod.room or room.startswith("__"):
            continue
        if mod.name == "recsys_ray" and found.only_for_types:
            continue  # the face tells type checkers where its names stand, and imports them when they are asked for
        if room not in HEIGHT:
            problems.append(f"{mod.name}:{found.line} imports {found.name}, which stands on no floor")
        elif HEIGHT[room] >= HEIGHT.get(mod.room, -1):
            problems.append(f"{mod.name}:{found.line} imports {found.name}, which is not on a floor below")
    return problems


def cycles(modules: list[Module]) -> list[str]:
    """One cycle of modules if there is any. A package's own ``__init__`` counts where it is imported by name."""
    names = {mod.name for mod in modules}
    graph: dict[str, set[str]] = {}
    for mod in modules:
        targets = (found.name for found in imports(mod) if not found.only_for_types)
        known = {name if name in names else name.rpartition(".")[0] for name in targets}
        graph[mod.name] = {name for name in known if name in names and name != mod.name}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def side_effects(mod: Module) -> list[str]:
    """Statements that do more than define something when the module is imported."""
    return [f"{mod.name}:{node.lineno} {ast.unparse(node)[:60]}" for node in _acting(mod.tree.body)]


def _acting(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _acting([inner for inner in node.body if isinstance(inner, ast.Expr)])
        elif not (_defines(node) or _assigns_quietly(node) or _is_guard(node)):
            yield node


def _defines(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef)


def _assigns_quietly(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [name for target in targets for name in (target.elts if isinstance(target, ast.Tuple) else [target])]
    if not all(isinstance(name, ast.Name) for name in names):
        return False
    if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).split(".")[-1] in MAKES_A_FUNCTION:
        return True
    calls = node.value is not None and any(isinstance(inner, ast.Call) for inner in ast.walk(node.value))
    return not calls or all(CONSTANT.fullmatch(ast.unparse(name)) for name in names)


def _is_guard(node: ast.stmt) -> bool:
    return is_type_checking(node) or (
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" and not node.orelse
    )


MODULES = all_modules()


def test_the_package_was_found() -> None:
    assert {"recsys_ray", "recsys_ray.base.types", "recsys_ray.evaluation"} <= {mod.name for mod in MODULES}


@pytest.mark.parametrize("mod", MODULES, ids=lambda mod: mod.name)
def test_a_room_imports_only_from_below(mod: Module) -> None:
    assert mod.room == "" or mod.room in HEIGHT, f"{mod.name}: give the room {mod.room!r} a floor in FLOORS"
    assert wrong_imports(mod) == []


@pytest.mark.parametrize("mod", MODULES, ids=lambda mod: mod.name)
def test_importing_a_module_only_defines_things(mod: Module) -> None:
    assert side_effects(mod) == []


@pytest.mark.parametrize("mod", MODULES, ids=lambda mod: mod.name)
def test_files_stay_readable(mod: Module) -> None:
    assert mod.lines <= MAX_LINES


def test_no_import_cycle() -> None:
    assert cycles(MODULES) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("recsys_ray.models.als", "import ray"),
        ("recsys_ray.models.als", "def fit():\n    from ray import data"),
        ("recsys_ray.models.als", "import ray.data as rd"),
        ("recsys_ray.models.als", "from recsys_ray.recommend.bundle import Bundle"),
        ("recsys_ray.models.als", "from recsys_ray import recommend"),
        ("recsys_ray.models.als", "from ..recommend.bundle import Bundle"),
        ("recsys_ray.data.split", "import recsys_ray.retrieval.exact.index"),
        ("recsys_ray.data.split", "if TYPE_CHECKING:\n    from recsys_ray.models import MODELS"),
        ("recsys_ray.base.storage", "from recsys_ray.data.split import assign"),
        ("recsys_ray.cluster.recommend", "from jobs.pipeline import main"),
        ("recsys_ray.models.als", "from recsys_ray.elsewhere import thing"),
        ("recsys_ray", "from recsys_ray.models.als import ALS"),
    ],
)
def test_the_import_rule_catches(name: str, source: str) -> None:
    assert len(wrong_imports(module(name, source))) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("recsys_ray.cluster.recommend", "import ray\nfrom recsys_ray.models import MODELS"),
        ("jobs.train", "import ray\nfrom recsys_ray.cli import main"),
        ("recsys_ray.data.split", "from recsys_ray.data.vocab import Vocabulary\nfrom . import sources"),
        ("recsys_ray.models.als", "import rays\nfrom recsys_ray import __version__"),
        ("recsys_ray", "if TYPE_CHECKING:\n    from recsys_ray.models.als import ALS as ALS"),
    ],
)
def test_the_import_rule_lets_through(name: str, source: str) -> None:
    assert wrong_imports(module(name, source)) == []


def test_the_cycle_check_catches_two_modules_and_a_package_and_its_part() -> None:
    one = module("recsys_ray.data.one", "def f():\n    from recsys_ray.data import two")
    two = module("recsys_ray.data.two", "from recsys_ray.data.one import thing")
    package = module("recsys_ray.data", "from recsys_ray.data.part import thing", is_package=True)
    part = module("recsys_ray.data.part", "from recsys_ray.data import thing")
    assert cycles([one, two]) and cycles([package, part])
    only_types = module("recsys_ray.data.one", "if TYPE_CHECKING:\n    from recsys_ray.data.two import thing")
    assert cycles([only_types, two]) == []


@pytest.mark.parametrize(
    "source",
    [
        "print('hello')",
        "cache = dict()",
        "os.environ['KEY'] = 'value'",
        "for name in names: pass",
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
        "if sys.platform == 'linux':\n    import resource",
        "with open('file') as file: pass",
        "total += 1",
        "class A:\n    register('A')",
        "LEFT, right = make()",
    ],
)
def test_the_side_effect_rule_catches(source: str) -> None:
    assert len(side_effects(module("m", source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""Text."""\nimport os\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy',
        "TABLE = dict(a=1)\n_PATTERN: re.Pattern = re.compile('x')\nBlock = TypeVar('Block')\nlogger = getLogger('a')",
        "fast = numba.njit(cache=True)\nONE, TWO = 1, 2\nnames = ['a', 'b']\n__all__ = ['x']",
        "@njit(cache=True)\ndef f(): print(1)\nclass A:\n    x = field(1)\n    '''Meaning.'''\n    def g(self): pass",
        "if __name__ == '__main__':\n    main()",
    ],
)
def test_the_side_effect_rule_lets_through(source: str) -> None:
    assert side_effects(module("m", source)) == []
