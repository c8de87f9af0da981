"""Two evaluations of the same users, compared in pairs: overall and by segment, with p-values that hold together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsys_ray.base.types import DoubleArray
from recsys_ray.evaluation.report import EVERYONE, Report, Segment


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of two models over the same users."""

    segment: str
    metric: str
    users: int
    mine: float
    theirs: float
    low: float
    high: float
    p_value: float
    """Chance of a difference so far from 0 if there were none, two-sided, from the spread of the paired replicates."""

    @property
    def difference(self) -> float:
        return self.mine - self.theirs

    def __str__(self) -> str:
        return (
            f"{self.mine:.4f} against {self.theirs:.4f}, difference {self.difference:+.4f} "
            f"[{self.low:+.4f}, {self.high:+.4f}]"
        )


def compare_reports(mine: Report, theirs: Report, metrics: Sequence[str] | None = None) -> list[Comparison]:
    """Everyone first, then the segments that both have; all shared metrics, or those named (``ndcg@20``).

    Raises:
        DataError: the evaluations are not of the same users with the same bootstrap.
    """
    overall = mine.compare(theirs)
    found = []
    for name, one in {EVERYONE: whole(mine), **mine.segments}.items():
        other = whole(theirs) if name == EVERYONE else theirs.segments.get(name)
        if other is None:
            continue
        shared = [metric for metric in one.replicates if metric in other.replicates]
        for metric in shared if metrics is None else [metric for metric in metrics if metric in shared]:
            difference = one.metrics[metric] - other.metrics[metric]
            replicates_A = one.replicates[metric] - other.replicates[metric]
            drawn_A = replicates_A[np.isfinite(replicates_A)]
            if len(drawn_A) < 2:
                continue
            edge = (1.0 - mine.settings.confidence) / 2.0
            low, high = np.quantile(drawn_A, [edge, 1.0 - edge]) if name != EVERYONE else overall[metric][1:]
            found.append(
                Comparison(
                    name, metric, one.users, one.metrics[metric], other.metrics[metric], float(low), float(high),
                    p_value(difference, drawn_A),
                )
            )  # fmt: skip
    return found


def whole(report: Report) -> Segment:
    """All users of a report, as a segment."""
    return Segment(report.counts["users_with_targets"], report.metrics, report.intervals, report.replicates)


def p_value(difference: float, replicates_A: DoubleArray) -> float:
    """Two-sided, of a difference whose bootstrap replicates are given, by the normal approximation."""
    deviation = float(np.std(replicates_A, ddof=1))
    if deviation <= 1e-12:  # the models are equal for every user who was drawn
        return 1.0 if abs(difference) <= 1e-12 else 0.0
    return math.erfc(abs(difference) / deviation / math.sqrt(2.0))


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with p-values adjusted so that the chance of one false alarm among all stays what one alone would have.

    Holm, "A simple sequentially rejective multiple test procedure" (1979): the i-th smallest of m is multiplied by
    m - i, never falls below the ones before it, and never exceeds 1.
    """
    order = sorted(range(len(comparisons)), key=lambda place: comparisons[place].p_value)
    adjusted, least = [0.0] * len(comparisons), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, comparisons[place].p_value * (len(comparisons) - rank)))
        adjusted[place] = least
    return [replace(one, p_value=value) for one, value in zip(comparisons, adjusted, strict=True)]


def comparison_table(comparisons: Sequence[Comparison], mine: str, theirs: str) -> str:
    """For a terminal: a line a metric and segment."""
    lines = [f"{'':<30}{mine:>14}{theirs:>14}{'difference':>12}  interval            p (Holm)"]
    for one in comparisons:
        title = one.metric if one.segment == EVERYONE else f"{one.metric}, {one.segment}"
        interval = f"[{one.low:+.4f}, {one.high:+.4f}]"
        verdict = "" if one.p_value >= 0.05 else "  better" if one.difference > 0 else "  worse"
        row = f"{title:<30}{one.mine:>14.4f}{one.theirs:>14.4f}{one.difference:>+12.4f}  {interval:<18}"
        lines.append(f"{row}  {one.p_value:.2g}{verdict}")
    return "\n".join(lines)
