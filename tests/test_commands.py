"""The command line itself: groups, examples, near misses, and what it imports to say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recsys_ray import __version__
from recsys_ray.cli import functions, help_of, main
from recsys_ray.commands import GROUPS

ROOT = Path(__file__).parent.parent
NAMES = [name for _, name, _ in functions()]


def said(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


def test_help_lists_every_command_in_its_group_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said("--help", capsys=capsys)
    assert status == 0
    places = [out.index(f" {group} ") for group in GROUPS]
    assert places == sorted(places) and all(f"│ {name} " in out for name in NAMES)
    assert "recsys-ray init --example demo" in out


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_a_sentence_and_examples_of_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    function = next(function for _, known, function in functions() if known == name)
    text, examples = help_of(function)
    assert text and examples and all(example.startswith(f"recsys-ray {name}") for example in examples)
    status, out, _ = said(name, "--help", capsys=capsys)
    assert status == 0 and "".join(examples[0].split()) in "".join(out.split()) and "--log-format" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rnu"], "did you mean 'run'"),
        (["rolback", "x.yaml"], "did you mean 'rollback'"),
        (["run"], "missing argument 'config'; see recsys-ray run --help"),
        (["run", "x.yaml", "--recommend"], "settings are given as recommend.n=20"),
        (["redo", "everything", "x.yaml"], "'everything' is not one of"),
        (["audience", "x.yaml", "3", "--users", "0"], "greater than or equal to 1"),
    ],
)
def test_wrong_words_are_one_line_with_what_to_type(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(*words, capsys=capsys)
    assert status == 2 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and told in err.lower()


def test_overrides_may_have_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    demo = str(ROOT / "configs" / "demo.yaml")
    status, _, err = said("plan", demo, "--recommend.n=0", capsys=capsys)
    assert status == 1 and "recommend.n: input should be greater than or equal to 1" in err


@pytest.mark.parametrize("word", ["-V", "--version", "version"])
def test_the_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(word, capsys=capsys) == (0, f"{__version__}\n", "")


def test_the_package_runs_as_a_module_and_help_imports_nothing_heavy() -> None:
    code = (
        "import runpy, sys\nsys.argv = ['recsys-ray', '--help']\n"
        "try:\n    runpy.run_module('recsys_ray', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'ray', 'torch', 'numba', 'scipy', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0 and "Usage: recsys-ray" in done.stdout, done.stderr
