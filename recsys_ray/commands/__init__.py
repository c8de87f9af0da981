"""The commands: one function each, named as it is typed; its docstring is its help.

A function takes a ``Reporter``, then its arguments, and returns what it found or did, for the JSON line. What
``console.command`` makes of it has the options that all commands have, and gives the exit status. The modules import
nothing heavy: all of them are imported to print the help. Adding a command is one function, and its name in GROUPS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_ray.base.process import kept_sigterm
from recsys_ray.base.tracing import tracing
from recsys_ray.console.reporter import Reporter

if TYPE_CHECKING:
    from recsys_ray.pipeline import Pipeline

Result = dict[str, Any]

GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "Start": {"start": ("init", "plan", "describe", "models", "schema")},
    "Run": {"stages": ("run", "serve", "verify", "rollback")},
    "Stages of a run": {
        "stages": ("prepare", "features", "embed", "train", "evaluate", "recommend"),
        "again": ("redo",),
    },
    "Choose and compare": {"choice": ("choose", "tune", "compare", "ab")},
    "Look and take out": {"data": ("doctor", "report", "audience", "forget"), "export": ("export",)},
}
"""In the order of the help: commands by the module that has them."""


def _keys(incomplete: str) -> list[str]:
    """Keys of the configuration that begin like this, for the shell."""
    from recsys_ray.config.reference import keys

    return [f"{key}=" for key in keys() if key.startswith(incomplete)]


ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file; recsys-ray init writes one")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="key=value", help="other values for keys, e.g. recommend.n=20", autocompletion=_keys),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="key=value", help="another value for a key; may be repeated", autocompletion=_keys),
]


@contextmanager
def open_pipeline(
    config: str, overrides: Sequence[str] | Mapping[str, Any] | None, say: Reporter, *, reads_input: bool = True
) -> Iterator[Pipeline]:
    """A configuration, validated, with the Ray session that its stages run in.

    What is wrong with it, or with the start of its inputs, is said before Ray is imported. Not all commands read those:
    who publishes or serves needs none.
    """
    from recsys_ray.config import load_config

    loaded = load_config(config, overrides or (), say)
    if reads_input:
        from recsys_ray.data.first_look import look_at_inputs

        look_at_inputs(loaded.data)
    with kept_sigterm():
        from recsys_ray.cluster.environment import set_environment

        set_environment()  # before Ray is imported
        from recsys_ray.cluster.session import Session
        from recsys_ray.pipeline import Pipeline

    workers = loaded.training.workers if loaded.trains_a_network else None
    with tracing(say), Session(loaded.cluster, say, workers) as session:
        yield Pipeline(loaded, session)
