"""``recsys-ray compare RUN RUN``: is one run better than another, or is it chance."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Any

from recsys_ray.commands import Progress

HELP = "two runs on the same held-out interactions: differences, paired intervals, p-values with Holm's correction"


def add_arguments(parser: ArgumentParser) -> None:
    what = "output directory (its published run), a published run, or a directory that evaluate has printed"
    parser.add_argument("mine", metavar="RUN", help=what)
    parser.add_argument("theirs", metavar="RUN", help="what it is compared with, in the same ways")
    parser.add_argument(
        "--metrics", help="names separated by commas, ndcg@20,recall@20; by default recall and ndcg at the largest k"
    )
    parser.add_argument("--all", action="store_true", help="every metric at every k")


def run(parsed: Namespace, progress: Progress) -> dict[str, Any]:
    from recsys_ray.base.storage import Location
    from recsys_ray.evaluation.comparison import comparison_table
    from recsys_ray.runs.compare import compare_runs, find_evaluation

    mine, theirs = (find_evaluation(Location.of(place)) for place in (parsed.mine, parsed.theirs))
    usual = [f"{metric}@{mine.settings.max_k}" for metric in ("recall", "ndcg")]
    metrics = None if parsed.all else parsed.metrics.split(",") if parsed.metrics else usual
    found = compare_runs(mine, theirs, metrics)
    print(comparison_table(found, mine.name[:12], theirs.name[:12]))
    rows = [asdict(one) | {"difference": one.difference} for one in found]
    return {"command": "compare", "mine": str(mine.run), "theirs": str(theirs.run), "comparisons": rows}
