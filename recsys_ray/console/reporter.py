"""One outlet for all that a command says: a live bar on a terminal, lines with time and run elsewhere, JSON on request.

What is said goes to standard error, what was found to standard output: on a terminal as text for a person, otherwise as
one line of JSON. Where that line is, tables for people go to standard error.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO
from uuid import uuid4

from recsys_ray.base.progress import Step
from recsys_ray.base.secrets import mask, masked

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

LogFormat = Literal["text", "json"]
LINE_SECONDS = 5.0
"""Between two lines about the same work, where there is no bar."""


class Reporter:
    """What a command says; calling it says a line, so that it is a ``progress`` callback."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        log_format: LogFormat = "text",
        said: TextIO | None = None,
        found: TextIO | None = None,
    ) -> None:
        """
        Args:
            as_json: the result is JSON on a terminal, too. quiet: nothing but results and errors. verbose: every line
            stays. said, found: in place of standard error and output.
        """
        self._said, self._found = said or sys.stderr, found or sys.stdout
        self.as_json = as_json or not self._found.isatty()
        self.quiet, self.verbose, self.log_format = quiet, verbose, log_format
        self.live = self._said.isatty() and log_format == "text" and not quiet
        self.run = uuid4().hex[:6]
        self._bar: Progress | None = None
        self._console: Console | None = None
        self._work = ""
        self._last: dict[str, float] = {}

    def __call__(self, message: str) -> None:
        """A line, or a ``Step`` of some work."""
        if self.quiet:
            return
        if isinstance(message, Step) and not self.verbose:
            if self.live:
                self._draw(message)
                return
            now = time.monotonic()
            if message.done is not None and now - self._last.setdefault(message.what, now) < LINE_SECONDS:
                return
            self._last[message.what] = now
        self._line(message)

    def show(self, text: str, paint: Callable[[Console], None] | None = None) -> None:
        """Something for a person to look at, of several lines; ``paint`` shows the same on a terminal."""
        stream = self._said if self.as_json else self._found
        if self.quiet and stream is self._said:
            return
        self.close()
        if paint is not None and stream.isatty() and self.log_format == "text":
            paint(self._on(stream))
        elif stream is self._said and self.log_format == "json":
            self._log("info", text)
        else:
            print(mask(text), file=stream, flush=True)

    def detail(self, text: str) -> None:
        """A table that a terminal shows with --verbose alone; a log keeps it."""
        if self.verbose or not self.live:
            self(text)

    def result(self, found: dict[str, Any]) -> None:
        """What the command found or did, as one line of JSON where that is wanted."""
        self.close()
        if self.as_json:
            print(json.dumps(masked(found), sort_keys=True), file=self._found, flush=True)

    def error(self, message: str) -> None:
        """Why the command ended, in one line."""
        self.close()
        text = mask(" ".join(message.split()))
        if self.log_format == "json":
            self._log("error", text)
        else:
            print(f"error: {text}", file=self._said, flush=True)

    def ended(self, message: str) -> None:
        """That the command was ended from outside."""
        self.close()
        print(message, file=self._said, flush=True)

    def close(self) -> None:
        """The bar is gone; the next step draws another one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._work = None, ""

    def _line(self, message: str) -> None:
        text = mask(message)
        if self.log_format == "json":
            self._log("info", text, message if isinstance(message, Step) else None)
        elif self.live:
            if not isinstance(message, Step):
                self._forget(message)
            self._on(self._said).print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            head = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {self.run} "
            print(head + text.replace("\n", f"\n{head}"), file=self._said, flush=True)

    def _log(self, level: str, text: str, step: Step | None = None) -> None:
        entry: dict[str, Any] = {
            "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "run": self.run,
            "level": level,
            "message": mask(text),
        }
        if step is not None and step.done is not None:
            entry |= {"done": step.done, "total": step.total}
        print(json.dumps(entry), file=self._said, flush=True)

    def _draw(self, step: Step) -> None:
        """The bar of the work that goes on, in the place of the one before."""
        if self._bar is None:
            self._bar = _bar(self._on(self._said))
            self._bar.start()
        if step.what != self._work:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(mask(step.what), total=step.total)
            self._work = step.what
        self._bar.update(self._bar.task_ids[0], completed=step.done or 0, total=step.total)
        if step.done is not None and step.done == step.total:
            self.close()

    def _forget(self, message: str) -> None:
        """Work of a stage ends with the stage."""
        if self._bar is not None and ": done in " in message:
            self.close()

    def _on(self, stream: TextIO) -> Console:
        if stream is self._said and self._console is not None:
            return self._console
        from rich.console import Console

        made = Console(file=stream)
        if stream is self._said:
            self._console = made
        return made


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    class Rate(TextColumn):
        def __init__(self) -> None:
            super().__init__("{task.speed}")

        def render(self, task: Any) -> Any:
            from rich.text import Text

            speed = task.finished_speed or task.speed
            return Text("" if not speed else f"{speed:,.1f}/s" if speed < 100 else f"{speed:,.0f}/s", "dim")

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(30), MofNCompleteColumn())
    return Progress(
        *columns,
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
