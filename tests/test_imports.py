"""What is imported, and what is not: a heavy library costs seconds and half a gigabyte in every process that has it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "faiss", "sentence_transformers", "transformers", "sklearn", "matplotlib")
IN_EVERY_WORKER = "numba"
DOORS = {
    "recsys_ray": ("cli", "pipeline", "deploy", "models", "retrieval", "evaluation"),
    "recsys_ray.recommend": ("rank", "explain", "similar"),
    "recsys_ray.runs": ("fit", "batch", "evaluate", "gate", "publish", "verify"),
    "recsys_ray.serving": ("service", "http.app"),
    "recsys_ray.content": ("table", "encode"),
    "recsys_ray.data": ("prepare.driver",),
    "recsys_ray.cluster": ("fit", "recommend", "embed", "serve"),
}

WATCH = '''
import os, sys, traceback
from importlib.machinery import PathFinder

class Watch:
    """Leaves a file for every process that runs a watched module; to look for one is no import."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in {watched}:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module):
            with open(os.path.join({folder!r}, f"{{name}}-{{os.getpid()}}"), "w") as file:
                file.write("".join(traceback.format_stack()))
            run(module)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Watch)
'''


def loaded(statement: str) -> set[str]:
    """The modules of a fresh process after a statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_the_package_itself_imports_next_to_nothing() -> None:
    found = loaded("import recsys_ray")
    assert not found & {*HEAVY, "ray", "numpy", "pandas", "pyarrow", "numba", "scipy", "pydantic"}


@pytest.mark.slow
def test_no_door_imports_a_heavy_library() -> None:
    found = loaded("import " + ", ".join(f"{room}.{name}" for room, names in DOORS.items() for name in names))
    assert not found & set(HEAVY)


def watch(folder: Path) -> tuple[dict[str, str], Path]:
    """Variables of a process that has its own imports and those of its children watched, and where they are noted."""
    seen, hook = folder / "seen", folder / "hook"
    seen.mkdir()
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(WATCH.format(watched={*HEAVY, IN_EVERY_WORKER}, folder=str(seen)))
    return {"PYTHONPATH": f"{hook}:{ROOT}"}, seen


def no_heavy_library(seen: Path) -> None:
    """What ``watch`` noted holds none; it did note what every worker imports."""
    stacks = {path.name: path.read_text() for path in seen.iterdir()}
    heavy = [f"{name}\n{stack}" for name, stack in stacks.items() if not name.startswith(f"{IN_EVERY_WORKER}-")]
    assert not heavy, heavy[0]
    assert len(stacks) > 1  # the watch works, and in workers, too
