"""From sums over shards to a report.

Q are the means (one metric, at one k, in one segment), A the bootstrap replicates, N the cut-offs.

Confidence intervals come from the Poisson bootstrap (Hanley and MacGibbon 2006; Chamandy et al. 2012): every replicate
weighs every user by its own Poisson(1) draw, so that the replicates of a union of shards are the sums of the replicates
of its parts, and no user's result has to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_ray.base.errors import DataError
from recsys_ray.base.types import DoubleArray
from recsys_ray.evaluation import metrics
from recsys_ray.evaluation.config import EvaluationSettings
from recsys_ray.evaluation.legend import legend

EVERYONE = "all"
HEAD, TAIL = "head items", "tail items"
LIST_METRICS = ("popularity", "tail_share", "novelty")
HIT_METRICS = ("graded_ndcg", "serendipity")
"""Like the ranking metrics, of users with held-out items, but they ask more than where the hits are."""
DIVERSITY, AUC, RATED_PRECISION = "diversity", "auc", "rated_precision"
SEGMENT_METRICS = ("recall", "ndcg", "hit_rate")

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mean:
    """One mean over users: which metric, at which k (0: it has none), over which segment."""

    segment: str
    metric: str
    k: int

    @property
    def name(self) -> str:
        return f"{self.metric}@{self.k}" if self.k else self.metric


def means(settings: EvaluationSettings) -> list[Mean]:
    """All means that an evaluation takes, in the order of the last axis of the sums."""
    rated = () if settings.liked is None else (RATED_PRECISION,)
    wanted = [(EVERYONE, metric) for metric in (*metrics.RANKING, *HIT_METRICS, *LIST_METRICS, DIVERSITY, *rated)]
    wanted += [(segment, metric) for segment in settings.history_segments for metric in SEGMENT_METRICS]
    wanted += [(segment, "recall") for segment in (HEAD, TAIL, *map(genre_segment, settings.genres))]
    found = [Mean(segment, metric, k) for segment, metric in wanted for k in settings.k]
    return [*found, Mean(EVERYONE, AUC, 0)] if settings.auc else found


def genre_segment(genre: str) -> str:
    """The name of the segment of held-out items that have a genre."""
    return f"genre {genre}"


@dataclass(frozen=True, slots=True)
class Partial:
    """What some of the users contribute: named arrays and counts that add up, in any order and grouping.

    ``value``, ``weight`` (Q,): sums over users of a metric, and over users that count for it; ``replicate_value``,
    ``replicate_weight`` (A, Q): the same under bootstrap weights; ``exposure`` (N, I): users that see an item.
    ``Partial()`` is the neutral element.
    """

    sums: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def merge(self, other: Partial) -> Partial:
        """The contribution of both. DataError when they were made with different settings or catalogues."""
        merged = dict(self.sums)
        for name, array in other.sums.items():
            mine = merged.get(name)
            if mine is not None and mine.shape != array.shape:
                raise DataError(
                    f"evaluation: can't merge {name} of shapes {mine.shape} and {array.shape}; use one config"
                )
            merged[name] = array if mine is None else mine + array
        return Partial(merged)

    def finish(self, settings: EvaluationSettings) -> Report:
        """Metrics of all users merged so far. A mean over nobody is left out, and so is its segment.

        Raises DataError when nothing was measured, or when there are lists but no user has a target.
        """
        counts = {name: int(array) for name, array in self.sums.items() if array.ndim == 0 and array.dtype.kind == "i"}
        if not counts:
            raise DataError("evaluation: nothing was evaluated; there are no users and no ratings")
        found: dict[str, Segment] = {}
        if "users" in counts:
            if counts["users_with_targets"] == 0 and counts["targets_seen"]:
                raise DataError(
                    f"evaluation: all {counts['targets_seen']:,} held-out items are ones that their users have seen "
                    "before, and lists leave those out; set recommend.filter_seen=false, or data.filters.duplicates to "
                    "last"
                )
            if counts["users_with_targets"] == 0:
                raise DataError(f"evaluation: none of {counts['users']} users has a held-out item; set data.split")
            found = self._segments(settings, counts["users"])
        overall = found.pop(EVERYONE, Segment(0))
        overall.metrics.update(self._exposure_metrics(settings))
        overall.metrics.update(self._rating_metrics())
        return Report(overall.metrics, overall.intervals, found, counts, settings, overall.replicates)

    def _segments(self, settings: EvaluationSettings, num_users: int) -> dict[str, Segment]:
        found: dict[str, Segment] = {}
        for column, mean in enumerate(means(settings)):
            weight = float(self.sums["weight"][column])
            if weight == 0.0:
                continue
            # Novelty was summed as -log2(count); the number of users is known only now.
            shift = math.log2(num_users) if mean.metric == "novelty" else 0.0
            segment = found.setdefault(mean.segment, Segment(round(weight)))
            segment.metrics[mean.name] = float(self.sums["value"][column]) / weight + shift
            if settings.bootstrap:
                segment.replicates[mean.name] = self._replicates(column) + shift
        for segment in found.values():
            segment.intervals.update(_intervals(segment.replicates, settings.confidence))
        return found

    def _replicates(self, column: int) -> DoubleArray:
        """(A,) the mean in every replicate; NaN in those that drew none of the users."""
        weights_A: DoubleArray = self.sums["replicate_weight"][:, column]
        values_A: DoubleArray = self.sums["replicate_value"][:, column]
        means_A = np.full(len(weights_A), np.nan)
        np.divide(values_A, weights_A, out=means_A, where=weights_A > 0)
        return means_A

    def _exposure_metrics(self, settings: EvaluationSettings) -> dict[str, float]:
        exposure_NI = self.sums.get("exposure")
        if exposure_NI is None:
            return {}
        found = {f"coverage@{k}": metrics.coverage(seen_I) for k, seen_I in zip(settings.k, exposure_NI, strict=True)}
        if exposure_NI.any():
            found |= {f"gini@{k}": metrics.gini(seen_I) for k, seen_I in zip(settings.k, exposure_NI, strict=True)}
        return found

    def _rating_metrics(self) -> dict[str, float]:
        ratings = int(self.sums.get("ratings", np.int64(0)))
        if ratings == 0:
            return {}
        squared, absolute = float(self.sums["squared_error"]), float(self.sums["absolute_error"])
        return {"rmse": math.sqrt(squared / ratings), "mae": absolute / ratings}


@dataclass(frozen=True, slots=True)
class Segment:
    """The means over some of the users, or of some of the targets."""

    users: int
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    replicates: dict[str, DoubleArray] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"users": self.users, "metrics": dict(self.metrics), "intervals": _lists(self.intervals)}


@dataclass(frozen=True, slots=True)
class Report:
    """A finished evaluation: ``metrics["recall@20"]`` and its ``intervals["recall@20"]``, the same by segment."""

    metrics: dict[str, float]
    intervals: dict[str, Interval]
    segments: dict[str, Segment]
    counts: dict[str, int]
    settings: EvaluationSettings
    replicates: dict[str, DoubleArray]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and finite numbers; the replicates are left out."""
        return {
            "metrics": dict(self.metrics),
            "intervals": _lists(self.intervals),
            "segments": {name: segment.to_json() for name, segment in self.segments.items()},
            "counts": dict(self.counts),
            "confidence": self.settings.confidence,
        }

    def compare(self, other: Report) -> dict[str, tuple[float, float, float]]:
        """``{"recall@20": (difference, low, high)}``, self minus other, with paired bootstrap intervals.

        Both must come from the same shards with the same users in the same order: then equal seeds weigh a user
        equally on both sides, and what makes a user easy or hard cancels out. An interval without 0 is a difference.
        Raises DataError when counts or bootstrap settings differ.
        """
        mine = (self.counts.get("users"), self.counts.get("users_with_targets"), *_bootstrap(self.settings))
        theirs = (other.counts.get("users"), other.counts.get("users_with_targets"), *_bootstrap(other.settings))
        if mine != theirs:
            raise DataError(
                f"evaluation: can't compare, (users, with targets, seed, bootstrap) are {mine} and {theirs}"
            )
        shared = [name for name in self.replicates if name in other.replicates]
        differences = {name: self.replicates[name] - other.replicates[name] for name in shared}
        intervals = _intervals(differences, self.settings.confidence)
        return {name: (self.metrics[name] - other.metrics[name], *interval) for name, interval in intervals.items()}

    def beside(self, baseline: Report, name: str) -> str:
        """A baseline in a few lines, each value with its interval, then the paired difference with its own."""
        differences = self.compare(baseline)
        lines = [f"{name} on the same targets, and the difference of the model to it"]
        for metric in (f"{metric}@{self.settings.max_k}" for metric in ("recall", "ndcg", "coverage")):
            line = f"  {metric:<15}{_cell(baseline.metrics[metric], baseline.intervals.get(metric))}"
            if metric in differences:
                value, low, high = differences[metric]
                line += f"   {value:+.4f} [{low:+.4f}, {high:+.4f}]"
            lines.append(line)
        return "\n".join(lines)

    def table(self) -> str:
        """The report for a terminal: a line a metric, a column a k, intervals in brackets where there are any."""
        counts = self.counts
        lines = []
        if "users" in counts:
            lines.append(
                f"{counts['users']:,} users, {counts['users_with_targets']:,} with held-out items; "
                f"{counts['users_without_list']:,} without a list; {self.settings.confidence:.0%} intervals"
            )
            lines += [seen] if (seen := self._seen()) else []
            lines += _rows("", self._shown(), self.intervals, self.settings.k)
        plain = [name for name in (AUC, "rmse", "mae") if name in self.metrics]
        lines += [f"{name:<32}{_cell(self.metrics[name], self.intervals.get(name))}" for name in plain]
        if counts.get("ratings_unpredicted"):
            known = f"{counts['ratings']:,} held-out ratings are predicted"
            lines.append(f"{known}, {counts['ratings_unpredicted']:,} are not (an item or user unknown to the model)")
        for name, segment in self.segments.items():
            lines += _rows(f"{name} ({segment.users:,} users)", segment.metrics, segment.intervals, self.settings.k)
        return "\n".join([*lines, "where", *legend([*self._shown(), *plain])])

    def _seen(self) -> str:
        """What is to be said of targets that no list can hold; empty where there are none."""
        count = self.counts.get("targets_seen", 0)
        what = "held-out items were seen before by their users, so that lists leave them out: they count for no metric"
        return f"{count:,} {what}" if count else ""

    def _shown(self) -> dict[str, float]:
        """The metrics without one that says what another does: graded NDCG where all ratings are equal, MAP where every
        user has one held-out item."""
        said_twice = [
            said
            for said, other in (("graded_ndcg", "ndcg"), ("map", "mrr"))
            if all(
                math.isclose(self.metrics.get(f"{said}@{k}", 0), self.metrics.get(f"{other}@{k}", 0))
                for k in self.settings.k
            )
        ]
        return {name: value for name, value in self.metrics.items() if name.partition("@")[0] not in said_twice}


def _rows(title: str, values: dict[str, float], intervals: dict[str, Interval], ks: list[int]) -> list[str]:
    """A header and a line for every metric that is measured at k."""
    wide = 26 if intervals else 10
    lines = [f"{title:<32}" + "".join(f"{f'@{k}':<{wide}}" for k in ks).rstrip()]
    for metric in dict.fromkeys(name.partition("@")[0] for name in values if "@" in name):
        cells = (_cell(values.get(f"{metric}@{k}"), intervals.get(f"{metric}@{k}")) for k in ks)
        lines.append(f"  {metric:<30}" + "".join(f"{cell:<{wide}}" for cell in cells).rstrip())
    return lines


def _cell(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "-"
    return _number(value) + (f" [{_number(interval[0])}, {_number(interval[1])}]" if interval else "")


def _number(value: float) -> str:
    """Four decimals for shares, one for counts such as popularity."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def _intervals(replicates: dict[str, DoubleArray], confidence: float) -> dict[str, Interval]:
    """Percentile intervals over the replicates that drew anybody; none where no replicate did."""
    found = {}
    for name, replicates_A in replicates.items():
        drawn = replicates_A[np.isfinite(replicates_A)]
        if len(drawn):
            low, high = np.quantile(drawn, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
            found[name] = (float(low), float(high))
    return found


def _bootstrap(settings: EvaluationSettings) -> tuple[int, int]:
    return settings.seed, settings.bootstrap


def _lists(intervals: dict[str, Interval]) -> dict[str, list[float]]:
    return {name: [low, high] for name, (low, high) in intervals.items()}
