"""A function as a command: the options that all commands have, its result printed, its errors as one line."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from recsys_ray.base.errors import RecsysError
from recsys_ray.base.process import Terminated, sigterm_raises, what_failed, writes_any_character
from recsys_ray.base.storage_errors import foreign_storage_error
from recsys_ray.console.reporter import LogFormat, Reporter

PANEL = "Output"
COMMON: dict[str, tuple[Any, Any]] = {
    "as_json": (
        Annotated[bool, typer.Option("--json", help="the result as one line of JSON", rich_help_panel=PANEL)],
        False,
    ),
    "quiet": (
        Annotated[bool, typer.Option("--quiet", "-q", help="only results and errors", rich_help_panel=PANEL)],
        False,
    ),
    "verbose": (
        Annotated[bool, typer.Option("--verbose", "-v", help="every line stays", rich_help_panel=PANEL)],
        False,
    ),
    "log_format": (Annotated[LogFormat, typer.Option(help="of progress", rich_help_panel=PANEL)], "text"),
}
"""Options of every command: what typer is told of each, and its default."""


def command(function: Callable[..., dict[str, Any]]) -> Callable[..., int]:
    """What typer calls: the function without its reporter and with the common options; it gives the exit status."""

    @functools.wraps(function)
    def called(**arguments: Any) -> int:
        chosen = {name: arguments.pop(name) for name in COMMON}
        say = Reporter(**chosen)
        return reported(say, lambda: function(say, **arguments))

    _, *parameters = inspect.signature(function).parameters.values()
    hints = get_type_hints(function, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    common = [
        inspect.Parameter(name, keyword, default=default, annotation=hint) for name, (hint, default) in COMMON.items()
    ]
    known = [parameter.replace(kind=keyword, annotation=hints[parameter.name]) for parameter in parameters]
    called.__signature__ = inspect.Signature([*known, *common])  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in (*known, *common)}
    del called.__wrapped__  # or its own parameters would be read
    return called


def reported(say: Reporter, run: Callable[[], dict[str, Any]]) -> int:
    """The exit status of what was run, its result told, or its error as one line of text."""
    writes_any_character()
    try:
        with sigterm_raises():
            result = run()
        say.result(result)
    except RecsysError as error:
        return _fail(say, str(error))
    except MemoryError:
        return _fail(
            say, "out of memory; set training.memory_limit_gib, a smaller model, or a machine with more memory"
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return _fail(say, "nobody reads standard output any more")
    except OSError as error:
        return _fail(say, what_failed(error))
    except KeyboardInterrupt as error:
        ended, status = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
        say.ended(f"{ended}; the same command resumes where it stopped")
        return status
    except Exception as error:  # what a storage says while a file of it is read
        if (told := foreign_storage_error(error)) is None:
            raise
        return _fail(say, str(told))
    finally:
        say.close()
    return int(result.get("exit_status", 0))


def _fail(say: Reporter, message: str) -> int:
    say.error(message)
    return 1
