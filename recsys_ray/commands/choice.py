"""Which model, with which settings, and is one better than another."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from recsys_ray.commands import ConfigFile, Overrides, Result, open_pipeline
from recsys_ray.console.reporter import Reporter


def choose(
    say: Reporter,
    config: ConfigFile,
    overrides: Overrides = None,
    networks: Annotated[bool, typer.Option("--networks", help="neural models too, which take minutes")] = False,
) -> Result:
    """Every affordable model on the validation part, side by side; writes the YAML of the best and of a blend.

    Examples:
        recsys-ray choose shop.yaml
        recsys-ray choose shop.yaml --networks
    """
    with open_pipeline(config, overrides, say) as pipeline:
        from recsys_ray.pipeline.chosen import choice_table
        from recsys_ray.pipeline.chosen import choose as choose_model

        found = choose_model(pipeline, networks=networks)
        say.show(choice_table(found))
    best = found.candidates[0]
    return {
        "command": "choose",
        "best": best.label,
        "model": best.section,
        found.metric: best.score(found.metric),
        "path": str(found.best_file),
        "blend": None if found.blend_file is None else str(found.blend_file),
    }


def tune(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """Search the settings of tune.space on the validation part; killed, the same command goes on.

    Examples:
        recsys-ray tune shop.yaml 'tune.space.model.regularization=[10.0, 100.0, 1000.0]'
    """
    with open_pipeline(config, overrides, say) as pipeline:
        from recsys_ray.pipeline.tracked import track_search
        from recsys_ray.pipeline.tuned import table
        from recsys_ray.pipeline.tuned import tune as tune_model

        found = tune_model(pipeline)
        say.show(table(found, pipeline.config.tune))
        track_search(pipeline, found)
    best = found.trials[0]
    say(f"tune: recsys-ray run {found.best_file} compares the best with the configuration as it was, on test")
    return {
        "command": "tune",
        "best": best.values,
        "score": best.score,
        "before": found.start,
        "trials": len(found.trials),
        "path": str(found.best_file),
        "page": str(found.page),
    }


RUN = "output directory (its published run), a published run, or a directory that evaluate has printed"


def compare(
    say: Reporter,
    mine: Annotated[str, typer.Argument(metavar="RUN", help=RUN)],
    theirs: Annotated[str, typer.Argument(metavar="RUN", help="what it is compared with, in the same ways")],
    metrics: Annotated[
        str | None, typer.Option(help="names separated by commas; by default recall and ndcg at the largest k")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every metric at every k")] = False,
) -> Result:
    """Two runs on the same held-out interactions: differences, paired intervals, p-values with Holm's correction.

    Examples:
        recsys-ray compare runs/shop runs/shop-tuned
        recsys-ray compare runs/shop runs/shop-tuned --metrics ndcg@20,recall@20
    """
    from recsys_ray.base.storage import Location
    from recsys_ray.evaluation.comparison import comparison_table
    from recsys_ray.runs.compare import compare_runs, find_evaluation

    one, other = (find_evaluation(Location.of(place)) for place in (mine, theirs))
    usual = [f"{metric}@{one.settings.max_k}" for metric in ("recall", "ndcg")]
    found = compare_runs(one, other, None if every else metrics.split(",") if metrics else usual)
    say.show(comparison_table(found, one.name[:12], other.name[:12]))
    rows = [asdict(pair) | {"difference": pair.difference} for pair in found]
    return {"command": "compare", "mine": str(one.run), "theirs": str(other.run), "comparisons": rows}


def ab(say: Reporter, config: ConfigFile, overrides: Overrides = None) -> Result:
    """The variants of the service side by side: outcomes a user, effects with intervals that may be looked at daily.

    Examples:
        recsys-ray ab shop.yaml
        recsys-ray ab shop.yaml serving.experiment.control=b
    """
    from recsys_ray.base.storage import Location
    from recsys_ray.config import load_config
    from recsys_ray.runs.experiment import judge_experiment

    loaded = load_config(config, overrides or (), say)
    output, serving = Location.of(loaded.output), loaded.serving
    weights = {variant.name: variant.weight for variant in serving.variants}
    found = judge_experiment(output, weights, serving.experiment)
    say.show(found.table())
    return {"command": "ab", "path": str(output), **found.json()}
