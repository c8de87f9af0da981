"""One holder at a time; what a killed holder held is free."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.base import lock as locks
from recsys_ray.base.errors import StorageError
from recsys_ray.base.lock import Lock, alone, is_held, read_notes
from recsys_ray.base.storage import Location


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    return Location.of(tmp_path) if request.param == "local" else Location(f"memory:/{tmp_path}")


def test_the_second_is_told_who_holds_it_and_may_have_it_afterwards(place: Location) -> None:
    file = place / "running" / "a.lock"
    first, second = Lock(file, "demo"), Lock(file)
    assert not is_held(file) and first.take() is None and is_held(file)
    first.note(uses=["x", "y"])
    first.note(uses=["x"])
    said = second.take()
    assert said is not None and said.startswith("another run works here since 20")
    assert f"process {os.getpid()} on" in said and "\n" not in said
    notes = read_notes(file)
    assert notes is not None and notes["uses"] == ["x"] and notes["what"] == "demo"
    first.release()
    assert not file.exists() and not is_held(file) and second.take() is None
    second.release()
    assert Lock(place / "other.lock").take() is None


def _hold(url: str, ready: Any) -> None:
    Lock(Location(url)).take()
    ready.set()
    time.sleep(60)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    file, ready = Location.of(tmp_path / "a.lock"), context.Event()
    holder = context.Process(target=_hold, args=(str(file), ready))
    holder.start()
    assert ready.wait(30) and Lock(file).take() is not None and holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert file.exists() and not is_held(file)
    again = Lock(file)
    assert again.take() is None and Lock(file).take() is not None


def test_on_an_object_store_a_holder_that_says_nothing_any_more_holds_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(locks, "SAY_SECONDS", 0.05)
    monkeypatch.setattr(locks, "DEAD_SECONDS", 0.5)
    file = Location(f"memory:/{tmp_path}/a.lock")
    first = Lock(file)
    assert first.take() is None
    time.sleep(0.8)
    assert Lock(file).take() is not None and is_held(file)  # it goes on saying that it lives
    assert first._over is not None
    first._over.set()  # as if it had been killed
    time.sleep(0.8)
    assert not is_held(file) and Lock(file).take() is None


def test_never_two_inside_and_each_waits_for_its_turn(place: Location) -> None:
    inside, worst, said = [], [], []

    def work(number: int) -> None:
        for _ in range(5):
            with alone(place / "models", said.append):
                inside.append(number)
                worst.append(len(inside))
                time.sleep(0.002)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(worst) == 1 and len(worst) == 15 and said
    assert not (place / ".models.lock").exists()


def test_a_place_that_can_not_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't write"):
        Lock(Location.of(tmp_path / "file" / "a.lock")).take()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"since": 3}', b'{"since": "x", "host": 1}'])
def test_a_holder_that_can_not_be_read_still_holds(tmp_path: Path, content: bytes) -> None:
    file = Location.of(tmp_path / "a.lock")
    holder = Lock(file)
    assert holder.take() is None
    Path(file.url).write_bytes(content)
    assert Lock(file).take() == "another run works here"
