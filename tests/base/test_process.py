"""How a process ends, and kernels that compile when they are called."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from recsys_ray import cli
from recsys_ray.base import kernels, process
from recsys_ray.base.errors import ConfigError
from recsys_ray.base.process import Terminated, kept_sigterm, require_open_files, sigterm_raises
from recsys_ray.commands import stages
from recsys_ray.console import Reporter
from recsys_ray.console.command import reported


def test_sigterm_raises_once_and_the_handler_of_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), sigterm_raises():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # what closes is not interrupted
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_library_may_make_an_interruption_of_it() -> None:
    with pytest.raises(Terminated), sigterm_raises():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
    with pytest.raises(KeyboardInterrupt) as plain, sigterm_raises():
        raise KeyboardInterrupt
    assert not isinstance(plain.value, Terminated)


def test_a_handler_that_a_library_sets_does_not_stay() -> None:
    with sigterm_raises():
        ours = signal.getsignal(signal.SIGTERM)
        with kept_sigterm():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is ours
    with pytest.raises(Terminated), kept_sigterm():
        sys.exit(signal.SIGTERM)  # as the handler of Ray does
    with pytest.raises(SystemExit), kept_sigterm():
        sys.exit(3)


def raising(error: BaseException) -> Callable[..., Any]:
    def run(*_: Any, **__: Any) -> Any:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (Terminated(), 143, "terminated; the same command resumes"),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes"),
        (OSError(errno.ENOSPC, "No space left", "/out"), 1, "error: /out: no space left"),
        (OSError(errno.EROFS, "Read-only file system", "/out"), 1, "error: /out: read-only file system"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "ulimit -n"),
        (MemoryError(), 1, "error: out of memory"),
        (ConfigError("redis://:hunter2@h is\nwrong"), 1, "error: redis://:***@h is wrong"),
    ],
)
def test_every_end_is_one_line(
    error: BaseException, status: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "open_pipeline", raising(error))
    assert cli.main(["prepare", "config.yaml"]) == status
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and not said.out


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "open_pipeline", raising(KeyError("x")))
    with pytest.raises(KeyError):
        cli.main(["prepare", "config.yaml"])


def test_an_ascii_terminal_gets_the_line_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_written, encoding="ascii"))
    say = Reporter()
    assert reported(say, lambda: print("Am\u00e9lie \U0001f600") or {"path": "x"}) == 0
    assert bytes_written.getvalue() == b'Am?lie ?\n{"path": "x"}\n'


def test_few_open_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(ConfigError, match=r"may open 64 files.*ulimit -n"):
        require_open_files()


@kernels.njit(cache=False)
def double(x: Any) -> Any:
    """Twice."""
    return 2 * x


@kernels.njit(cache=False, parallel=True)
def doubled(values: Any, out: Any) -> None:
    for place in kernels_range(len(values)):
        out[place] = double(values[place])


kernels_range = kernels.prange


def test_a_kernel_calls_others_and_keeps_its_name() -> None:
    values, out = np.arange(50.0), np.zeros(50)
    doubled(values, out)
    np.testing.assert_array_equal(out, 2 * values)
    assert (double.__name__, double.__doc__) == ("double", "Twice.")
    assert isinstance(double.compiled, type(numba.njit(lambda x: x)))


def test_kernels_go_to_a_private_directory_where_nothing_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compile_, config = numba.njit, numba.config  # type: ignore[attr-defined]

    def njit(**options: Any) -> Any:
        if not config.CACHE_DIR:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_(**(options | {"cache": False}))

    monkeypatch.setattr(numba, "njit", njit)
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(kernels.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(kernels.tempfile, "mkdtemp", lambda **_: "elsewhere")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    assert kernels.njit(cache=True)(lambda x: x + 1)(1) == 2
    (place,) = tmp_path.iterdir()
    assert config.CACHE_DIR == str(place) == os.environ["NUMBA_CACHE_DIR"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    place.chmod(0o777)  # somebody else could put code there
    assert kernels._private_directory() == "elsewhere"
