"""A piece of progress that can be counted: text for those who read lines, numbers for those who draw a bar."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LOOK_SECONDS = 0.2
"""Between two steps of one piece of work, at least: nobody sees more of them."""


class Step(str):
    """How far a piece of work is; as a string, the line that says so. It replaces the one before of the same work."""

    what: str
    """The work: what stands before the colon."""
    done: int | None
    """Pieces that are done; None where nothing is counted."""
    total: int | None
    note: str

    def __new__(cls, what: str, done: int | None = None, total: int | None = None, note: str = "") -> Step:
        counted = "" if done is None else f"{'' if ':' in what else ':'} {done:,}/{total:,}"
        made = super().__new__(cls, f"{what}{counted}{note}")
        made.what, made.done, made.total, made.note = what, done, total, note
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Step, (self.what, self.done, self.total, self.note)


class Ticker:
    """Steps of work of known length, with the time that is left; none without a label."""

    def __init__(self, progress: Callable[[str], None], label: str | None, total: int) -> None:
        self._progress, self._label, self._total = progress, label, total
        self._done, self._told = 0, False
        self._started = self._last = time.monotonic()

    def step(self, note: str = "", count: int = 1) -> None:
        """So many more pieces are done."""
        self._done += count
        now = time.monotonic()
        ends = self._done >= self._total and self._told
        if self._label is None or (not ends and (self._done >= self._total or now - self._last < LOOK_SECONDS)):
            return
        self._last, self._told = now, True
        # The first piece carries the start of workers and says little about the rest.
        left = (now - self._started) / self._done * (self._total - self._done)
        estimate = f" (about {left:.0f} s left)" if self._done > 2 and left else ""
        self._progress(Step(self._label, self._done, self._total, f"{note}{estimate}"))
