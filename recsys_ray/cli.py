"""The command: ``recsys-ray COMMAND ...``.

Progress goes to standard error, results to standard output: for a person on a terminal, otherwise as one line of JSON.
Exit status 0 when done, 1 for an error of one line, 2 for words that are no command, 130 when interrupted, 143 when
terminated.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from recsys_ray import __version__
from recsys_ray.base.secrets import mask
from recsys_ray.commands import GROUPS
from recsys_ray.console import Reporter
from recsys_ray.console.command import command

NAME = "recsys-ray"
EXAMPLES = (
    "recsys-ray init --example demo && recsys-ray run demo.yaml",
    "recsys-ray init orders.csv products.csv && recsys-ray plan orders.yaml",
    "recsys-ray run orders.yaml && recsys-ray serve orders.yaml",
    "recsys-ray describe recommend",
)
OVERRIDE = re.compile(r"--(?=[A-Za-z_]\w*\.[\w.]*=)")
"""What stands before an override that was written as an option."""


def application() -> typer.Typer:
    """All commands, in groups."""
    app = typer.Typer(
        name=NAME,
        help="Recommendations for everybody from one file of settings: a resumable batch job on Ray, and a service.",
        epilog=_examples(EXAMPLES),
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_versioned)
    for group, name, function in functions():
        text, examples = help_of(function)
        app.command(name, rich_help_panel=group, help=text, epilog=_examples(examples))(command(function))
    app.command("version", hidden=True)(_version)
    return app


def functions() -> Iterator[tuple[str, str, Any]]:
    """Every command as (group, name, function)."""
    for group, modules in GROUPS.items():
        for module, names in modules.items():
            found = importlib.import_module(f"recsys_ray.commands.{module}")
            for name in names:
                yield group, name, getattr(found, name)


def help_of(function: Any) -> tuple[str, tuple[str, ...]]:
    """What a command says of itself: its text, and its examples."""
    text, _, examples = str(function.__doc__).partition("Examples:\n")
    return "\n".join(line.strip() for line in text.strip().splitlines()), tuple(
        line.strip() for line in examples.splitlines() if line.strip()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    given = [OVERRIDE.sub("", word) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        status = application()(given, prog_name=NAME, standalone_mode=False)
    except Exception as error:
        if (said := _wrong_words(error)) is None:
            raise
        Reporter().error(said)
        return 2
    return int(status or 0)


def job(stage: str, arguments: Sequence[str] | None = None) -> int:
    """The same stage for ``python jobs/<stage>.py --config CONFIG [key=value ...]``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    joined = [word.partition("=")[2] if word.startswith("--config=") else word for word in words if word != "--config"]
    return main([stage, *joined])


def run(config: str | os.PathLike[str], **overrides: Any) -> dict[str, Any]:
    """Run a configuration from end to end, as ``recsys-ray run`` does: on a Ray that is there, or one of its own.

    Args:
        config: path of the YAML file. overrides: values by key, ``**{"recommend.n": 20}``.

    Returns:
        What each stage found or did, by stage; ``recsys_ray.load(output)`` opens what was published.

    Raises:
        RecsysError: what the command would say in one line. Nothing is published then.
    """
    from recsys_ray.commands.stages import run_stage

    say = Reporter()
    try:
        return run_stage("run", os.fspath(config), overrides, say)
    finally:
        say.close()


def _versioned(
    version: Annotated[bool, typer.Option("--version", "-V", is_eager=True, callback=lambda wanted: _told(wanted))] = (
        False
    ),
) -> None:
    """The command itself."""


def _told(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


def _version() -> None:
    """The version."""
    print(__version__)


def _examples(lines: Sequence[str]) -> str | None:
    if not lines:
        return None
    return "\n".join(["[bold]Examples[/bold]", *(f"  {line.replace('[', chr(92) + '[')}" for line in lines)])


def _wrong_words(error: Exception) -> str | None:
    """What was typed wrong, in one line; None for an error of another kind."""
    context = getattr(error, "ctx", None)
    if not hasattr(error, "format_message"):
        return None
    if type(error).__name__ == "NoArgsIsHelpError":
        return "no command given"
    message = mask(str(error.format_message()).replace("\n", " "))
    path = NAME if context is None else context.command_path
    if "No such option" in message and "key=value" in (context.command.get_usage(context) if context else ""):
        message += ". Settings are given as recommend.n=20."
    return f"{message.rstrip('.')}; see {path} --help"


if __name__ == "__main__":
    sys.exit(main())
