"""``recsys-ray redo``: a stage is done again, whatever is there, and then what stands on it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from recsys_ray.commands import ConfigFile, Overrides, Result, open_pipeline
from recsys_ray.commands.stages import show_summary
from recsys_ray.console.reporter import Reporter

REDONE = ("prepare", "embed", "train", "evaluate", "recommend")
Stage = Literal["prepare", "embed", "train", "evaluate", "recommend", "all"]


def redo(
    say: Reporter,
    stage: Annotated[Stage, typer.Argument(help="where to begin")],
    config: ConfigFile,
    overrides: Overrides = None,
) -> Result:
    """Do a stage again, whatever is there, and what follows it.

    Examples:
        recsys-ray redo train shop.yaml
        recsys-ray redo all shop.yaml
    """
    first = 0 if stage == "all" else REDONE.index(stage)
    with open_pipeline(config, overrides, say) as pipeline, pipeline.only_once():
        pipeline.again = frozenset(REDONE[first:])
        pipeline.show = say.detail
        result = pipeline.run()
        return result | {"summary": show_summary(say, pipeline, result, config)}
