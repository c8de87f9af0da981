"""The page about a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys_ray.base.storage import Location
from recsys_ray.base.types import MapBlocks, map_blocks_here
from recsys_ray.content.config import ImageSettings
from recsys_ray.evaluation.report import SEGMENT_METRICS
from recsys_ray.pages import check_libraries, render
from recsys_ray.pages.figures import draw_bars, draw_intervals
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.runs.report.examples import examples
from recsys_ray.runs.report.facts import MOST_SHOWN, SHOWN, TENTHS, RunFacts, collect

PAGE, TEMPLATE = "_report.html", "run.html.jinja"
WHAT = "recsys-ray report run"
HEADLINE = "ndcg"


def write_page(
    output: Location, place: Location, images: ImageSettings | None, map_blocks: MapBlocks = map_blocks_here
) -> Location:
    """Write the page beside the parts of the run, whose readers leave it out; where it is.

    Raises:
        ConfigError: a library of the extra ``report`` is missing. As ``collect``.
    """
    check_libraries(WHAT)
    facts, bundle = collect(output, place, map_blocks)
    evaluation = facts.measured[0].evaluation
    page = render(
        "recsys_ray.runs.report", TEMPLATE, WHAT, facts=facts, run=facts.run, metrics=_metrics(facts),
        segments=_segments(facts), bounds=_bounds(facts), pictures=_pictures(facts),
        examples=examples(place, bundle, images or ImageSettings()), segment_metrics=SEGMENT_METRICS,
        baselines=list(evaluation.get("baselines", {})), confidence=evaluation.get("model", {}).get("confidence"),
        most_shown=_most_shown(facts, bundle), covered=float((facts.exposures_I > 0).mean()),
    )  # fmt: skip
    (place / PAGE).write_bytes(page.encode())
    return place / PAGE


def _metrics(facts: RunFacts) -> list[dict[str, Any]]:
    """A row a metric: of this run, its baselines, and the runs before."""
    names = [f"{metric}@{facts.k}" for metric in SHOWN]
    baselines = facts.measured[0].evaluation.get("baselines", {})
    return [
        {
            "name": name,
            "cells": [(one.value(name), one.interval(name)) for one in facts.measured],
            "baselines": [(one["metrics"].get(name), one["intervals"].get(name)) for one in baselines.values()],
        }
        for name in names
        if facts.measured[0].value(name) is not None
    ]


def _segments(facts: RunFacts) -> list[dict[str, Any]]:
    found = facts.measured[0].evaluation.get("model", {}).get("segments", {})
    return [
        {
            "name": name,
            "users": one["users"],
            "cells": [
                (one["metrics"].get(f"{metric}@{facts.k}"), one["intervals"].get(f"{metric}@{facts.k}"))
                for metric in SEGMENT_METRICS
            ],
        }
        for name, one in found.items()
    ]


def _bounds(facts: RunFacts) -> list[dict[str, Any]]:
    """What the gate found, beside the bound that it had to keep."""
    gate = facts.run.gate
    bounds = {
        "coverage": ("at least", gate.min_coverage),
        "fallback_share": ("at most", gate.max_fallback),
        "without_spread": ("at most", gate.max_without_spread),
        "overlap": ("at least", gate.min_overlap),
    }
    return [{"name": name, "found": value, "bound": bounds.get(name)} for name, value in facts.run.checks.items()]


def _pictures(facts: RunFacts) -> dict[str, str]:
    found = {}
    headline = f"{HEADLINE}@{facts.k}"
    told = [(one.value(headline), one.interval(headline)) for one in reversed(facts.measured)]
    values = [(value, interval or [value, value]) for value, interval in told if value is not None]
    if len(values) > 1:
        found["runs"] = draw_intervals(
            "runs", [value for value, _ in values], [interval for _, interval in values], "run, the newest last",
            headline, f"{headline} of the last runs with its interval",
        )  # fmt: skip
    lists, interactions = facts.by_tenth()
    tenths = [f"{10 * tenth + 10} %" for tenth in range(TENTHS)]
    for name, shares, y in (
        ("lists", lists, "share of places"),
        ("interactions", interactions, "share of interactions"),
    ):
        found[name] = draw_bars(name, tenths, shares, "items, the most popular first", y, f"{y} by popularity of items")
    return found


def _most_shown(facts: RunFacts, bundle: Bundle) -> list[dict[str, Any]]:
    order: Sequence[int] = np.argsort(-facts.exposures_I, kind="stable")[:MOST_SHOWN].tolist()
    titles, ids = bundle.items.column("title"), bundle.item_ids
    return [
        {
            "title": titles[row].as_py() or str(ids[row].as_py()),
            "share": int(facts.exposures_I[row]) / max(1, facts.users),
            "interactions": int(facts.counts_I[row]),
        }
        for row in order
        if facts.exposures_I[row]
    ]
