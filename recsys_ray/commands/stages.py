"""The stages of a run, and what stands on a published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_ray.commands import ConfigFile, Overrides, Result, open_pipeline
from recsys_ray.console.reporter import Reporter

if TYPE_CHECKING:
    from recsys_ray.pipeline import Pipeline

WRITING = ("run", "prepare", "features", "embed", "train", "evaluate", "recommend")
"""Stages that one configuration does not do twice at once."""
WITHOUT_INPUT = ("serve", "verify", "rollback", "report_run")
"""Stages of what is published, whatever has become of its input since."""


def run(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """All of it: prepare, embed, train, evaluate, recommend and publish; unchanged stages are skipped.

    Killed or interrupted, the same command goes on where it stopped.

    Examples:
        recsys-ray run shop.yaml
        recsys-ray run shop.yaml recommend.n=20 model=ease
        recsys-ray run shop.yaml --json > result.json
    """
    return run_stage("run", config, overrides, say)


def prepare(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """Raw interactions and catalogue to prepared tables.

    Examples:
        recsys-ray prepare shop.yaml
        recsys-ray prepare shop.yaml data.filters.k_core_users=3
    """
    return run_stage("prepare", config, overrides, say)


def features(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """What is known of users, items and interactions, as Parquet tables for other programs.

    Examples:
        recsys-ray features shop.yaml
    """
    return run_stage("features", config, overrides, say)


def embed(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """Texts and posters of the catalogue to item vectors; what did not change is not encoded again.

    Examples:
        recsys-ray embed shop.yaml content={}
    """
    return run_stage("embed", config, overrides, say)


def train(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """Fit the model that is evaluated (without a split: the one that is published).

    Examples:
        recsys-ray train shop.yaml model=als
    """
    return run_stage("train", config, overrides, say)


def evaluate(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """Metrics of the written top-N against held-out interactions, beside baselines.

    Examples:
        recsys-ray evaluate shop.yaml
        recsys-ray evaluate shop.yaml 'evaluation.baselines=[popularity, item_cf]'
    """
    return run_stage("evaluate", config, overrides, say)


def recommend(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """Write, check and publish the top-N of every user.

    Examples:
        recsys-ray recommend shop.yaml recommend.n=50
    """
    return run_stage("recommend", config, overrides, say)


def serve(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """Answer online, over HTTP, from what is published, until interrupted.

    Examples:
        recsys-ray serve shop.yaml
        recsys-ray serve shop.yaml serving.port=8080
    """
    return run_stage("serve", config, overrides, say)


def verify(
    say: Reporter,
    config: ConfigFile,
    overrides: Overrides = None,
    url: Annotated[str | None, typer.Option(help="address of a running service, e.g. http://127.0.0.1:8000")] = None,
) -> Result:
    """Is the published run whole, and does the service at --url answer with it?

    Examples:
        recsys-ray verify shop.yaml
        recsys-ray verify shop.yaml --url http://127.0.0.1:8000
    """
    return run_stage("verify", config, overrides, say, url=url)


def rollback(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """Point LATEST back to the run published before (runs.to=RUN_ID for another).

    Examples:
        recsys-ray rollback shop.yaml
        recsys-ray rollback shop.yaml runs.to=20261127T020000-1a2b3c4d5e
    """
    return run_stage("rollback", config, overrides, say)


def run_stage(
    stage: str,
    config: str,
    overrides: Sequence[str] | Mapping[str, Any] | None,
    say: Reporter,
    **options: Any,
) -> Result:
    """What the stage found or did, and shown to a person what there is to see."""
    with ExitStack() as held:
        opening = open_pipeline(config, overrides, say, reads_input=stage not in WITHOUT_INPUT)
        pipeline = held.enter_context(opening)
        if stage in WRITING:
            held.enter_context(pipeline.only_once())
        pipeline.show = say.detail if stage == "run" else say.show
        result: Result = getattr(pipeline, stage)(**options)
        if stage == "run":
            result |= {"summary": show_summary(say, pipeline, result, config)}
    return result


def show_summary(say: Reporter, pipeline: Pipeline, results: Result, config: str) -> Result:
    """The end of a run, shown and as JSON."""
    from recsys_ray.console import panel
    from recsys_ray.pipeline.summary import summarise

    found = summarise(pipeline, results).to_json()
    text = "\n".join(panel.lines(found, config))
    say.show(text, lambda console: panel.paint(console, found, config))
    return found
