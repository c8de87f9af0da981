"""The accuracy gate: what its own evaluation shows worse than popularity, or than what is published, stays unpublished.

Differences are paired over users. They are looked at for everyone and for the segments of users by length of history,
against every reference, and the p-values of all of these are adjusted together (Holm), so that a model that is as good
is refused by chance no more often than one test would. Segments of items are not looked at: of head and tail one is
bought with the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recsys_ray.evaluation import Report
from recsys_ray.evaluation.comparison import Comparison, compare_reports, holm
from recsys_ray.evaluation.report import EVERYONE
from recsys_ray.runs.config import AccuracySettings

PUBLISHED = "the published run"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the accuracy gate found."""

    worse: dict[str, list[Comparison]]
    """By reference, where the model is worse: for everyone, or for a segment."""
    better: list[str]
    """References that the model beats for everyone."""

    @property
    def reason(self) -> str | None:
        """Why the model is refused, in one line; None when it is not."""
        if not self.worse:
            return None
        return "; ".join(_reason(name, places) for name, places in self.worse.items())


def judge(report: Report, references: Mapping[str, Report], settings: AccuracySettings) -> Verdict:
    """Compare a model with each reference on the same targets."""
    metric = f"{settings.metric}@{report.settings.max_k}"
    named = [
        (name, one)
        for name, reference in references.items()
        for one in compare_reports(report, reference, [metric])
        if one.segment == EVERYONE or one.segment in report.settings.history_segments
    ]
    certain = holm([one for _, one in named])
    worse: dict[str, list[Comparison]] = {}
    for (name, _), one in zip(named, certain, strict=True):
        if one.difference < -settings.tolerance and one.p_value < 1.0 - report.settings.confidence:
            worse.setdefault(name, []).append(one)
    return Verdict(worse, [name for name, one in named if one.segment == EVERYONE and one.low > 0.0])


def _reason(reference: str, places: list[Comparison]) -> str:
    overall = [one for one in places if one.segment == EVERYONE]
    segments = [one.segment for one in places if one.segment != EVERYONE]
    if overall:
        also = f" (also for {', '.join(segments)})" if segments else ""
        return f"worse than {reference} in {overall[0].metric}: {overall[0]}{also}"
    one = places[0]
    more = f", and for {', '.join(segments[1:])}" if segments[1:] else ""
    return f"worse than {reference} in {one.metric} for users of {one.segment}: {one}{more}"
