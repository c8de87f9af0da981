"""What processes hold, and the most of it between two questions."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from recsys_ray.base import memory
from recsys_ray.base.memory import MemoryWatch, available_memory, held_memory

MIB = 1 << 20


def test_a_peak_is_seen_after_it_went_and_then_forgotten() -> None:
    watch = MemoryWatch()
    assert watch.take() is None  # nobody watches
    with watch:
        watch._peak = 1 << 50  # as if it had been seen
        assert watch.take() == 1 << 50
        assert 0 < (watch.take() or 0) < 1 << 50
    assert watch.take() is None


def test_what_is_held_grows_with_arrays_and_with_children() -> None:
    before = held_memory()
    array = np.ones(64 * MIB, np.uint8)
    assert held_memory() - before > 48 * MIB
    code = "import sys\nkept = bytearray(64 << 20)\nprint(len(kept), flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        with_child = held_memory()
        child.stdin.close()
    assert with_child - before > 96 * MIB and array[-1] == 1
    assert available_memory() > 0


def test_the_watch_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "held_memory", lambda: 7)
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.01)
    with MemoryWatch() as watch:
        deadline = time.monotonic() + 10
        while not watch._peak and time.monotonic() < deadline:
            time.sleep(0.01)
        assert watch._peak == 7
