"""Commands that are not stages of a run: one file each, named as it is typed.

A file has ``HELP``, one line; ``add_arguments(parser)``, for argparse; and ``run(parsed, progress)``, which returns
what the command found or did, for the JSON line, and raises an error of ours otherwise. It imports nothing heavy:
all of them are imported to print the help. Adding a command is one file, and one name in COMMANDS.
"""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

from recsys_ray.base.process import kept_sigterm

if TYPE_CHECKING:
    from recsys_ray.pipeline import Pipeline

COMMANDS: tuple[str, ...] = ("choose", "tune", "doctor", "compare", "ab", "audience", "export", "forget", "redo")
"""In the order of the help."""

Progress = Callable[[str], None]


class Command(Protocol):
    """What a file of this package has."""

    HELP: str

    def add_arguments(self, parser: ArgumentParser) -> None: ...

    def run(self, parsed: Namespace, progress: Progress) -> dict[str, Any]: ...


def command(name: str) -> Command:
    """The module of a command."""
    return cast(Command, importlib.import_module(f"recsys_ray.commands.{name}"))


def add_config(parser: ArgumentParser) -> None:
    """The arguments of every command about a configuration: ``CONFIG [key=value ...]``."""
    parser.add_argument("config", help="YAML file, see configs/")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="override a key, e.g. recommend.n=20"
    )


@contextmanager
def open_pipeline(
    config: str, overrides: Sequence[str] | Mapping[str, Any], progress: Progress, *, reads_input: bool = True
) -> Iterator[Pipeline]:
    """A configuration, validated, with the Ray session that its stages run in.

    What is wrong with it, or with the start of its inputs, is said before Ray is imported. Not all commands read those:
    who publishes or serves needs none.
    """
    from recsys_ray.config import load_config

    loaded = load_config(config, overrides, progress)
    if reads_input:
        from recsys_ray.data.first_look import look_at_inputs

        look_at_inputs(loaded.data)
    with kept_sigterm():
        from recsys_ray.cluster.environment import set_environment

        set_environment()  # before Ray is imported
        from recsys_ray.cluster.session import Session
        from recsys_ray.pipeline import Pipeline

    workers = loaded.training.workers if loaded.trains_a_network else None
    with Session(loaded.cluster, progress, workers) as session:
        yield Pipeline(loaded, session)
