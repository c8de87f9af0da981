"""A library of an extra that is not installed is one line that names the extra."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.optional import require
from recsys_ray.content.report.page import embedding_report
from recsys_ray.serving.users.redis_state import Redis

ROOT = Path(__file__).parent.parent.parent


def test_an_installed_module_is_handed_out() -> None:
    assert require("json.decoder", extra="report", what="this test") is sys.modules["json.decoder"]


def test_a_missing_one_is_one_line() -> None:
    expected = 'a thing needs nosuchlibrary, which is not installed: pip install "recsys_ray[report]"'
    with pytest.raises(ConfigError) as caught:
        require("nosuchlibrary.inner", extra="report", what="a thing")
    assert str(caught.value) == expected


def test_a_broken_one_says_what_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brokenlibrary.py").write_text("import nosuchlibrary\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=r"brokenlibrary, which can't be imported \(No module named 'nosuchlibrary'\)"
    ):
        require("brokenlibrary", extra="report", what="a thing")


def test_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("redis", "redis.asyncio"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r'serving\.redis needs redis.*pip install "recsys_ray\[redis\]"$'):
        Redis("redis://127.0.0.1:6379/0", "prefix")


@pytest.mark.parametrize("library", ["jinja2", "matplotlib", "sklearn"])
def test_report(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    nothing: Any = None  # it is said before anything is looked at
    with pytest.raises(ConfigError, match=rf'report embeddings needs {library}.*pip install "recsys_ray\[report\]"$'):
        embedding_report(nothing, nothing, nothing, nothing, nothing, nothing, nothing)


def test_s3() -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from recsys_ray.base.errors import StorageError\n"
        "from recsys_ray.base.storage import Location\n"
        "try: Location.of('s3://bucket/x').exists()\n"
        "except StorageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.stdout.startswith("s3://bucket/x: no filesystem") and done.stdout.count("\n") == 1, done.stderr
    assert done.stdout.endswith('pip install "recsys_ray[s3]"\n')


def test_every_extra_that_the_code_names_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    code = "\n".join(path.read_text() for path in sorted((ROOT / "recsys_ray").rglob("*.py")))
    named = {*re.findall(r'extra="(\w+)", what=', code), *re.findall(r"the extra `*(\w+)", code)}
    assert {"redis", "report"} <= named <= set(extras)
