"""Metrics of several folds of the same data together: mean, spread, and differences to other models by fold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from recsys_ray.base.errors import DataError
from recsys_ray.evaluation.config import EvaluationSettings

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """One metric over the folds."""

    mean: float
    deviation: float
    """Standard deviation of the folds, by n - 1."""
    p_value: float | None = None
    """Of a difference: chance of one so far from 0 if there were none (paired t-test over folds, two-sided). Folds
    share training data, which makes it too small rather than too large."""

    @classmethod
    def of(cls, values: Sequence[float], *, paired: bool = False) -> Spread:
        """Of one value a fold; ``paired`` says that they are differences."""
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
        if not paired:
            return cls(mean, deviation)
        if deviation == 0.0:
            return cls(mean, deviation, 1.0 if mean == 0.0 else 0.0)
        from scipy.stats import t as student  # scipy.stats takes a while to import

        statistic = abs(mean) / (deviation / math.sqrt(len(values)))
        return cls(mean, deviation, float(2 * student.sf(statistic, len(values) - 1)))


@dataclass(frozen=True)
class CrossValidation:
    """The model's metrics, a mapping a fold, and those of other models on the same folds.

    Raises:
        DataError: there are fewer than two folds, or they have no metric in common.
    """

    folds: Sequence[Metrics]
    baselines: Mapping[str, Sequence[Metrics]]

    def __post_init__(self) -> None:
        if len(self.folds) < 2:
            raise DataError(f"cross-validation needs two folds, found {len(self.folds)}; set data.split.folds")
        if not self.values:
            raise DataError("cross-validation: the folds have no metric in common; set data.split.folds lower")

    @cached_property
    def values(self) -> dict[str, Spread]:
        """By metric that every fold has."""
        return {name: Spread.of(values) for name, values in _shared(self.folds).items()}

    def against(self, name: str) -> dict[str, Spread]:
        """By metric, the differences of the model to a baseline, fold by fold."""
        mine, theirs = _shared(self.folds), _shared(self.baselines[name])
        return {
            metric: Spread.of([one - other for one, other in zip(values, theirs[metric], strict=True)], paired=True)
            for metric, values in mine.items()
            if metric in theirs
        }

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "values": {name: vars_of(spread) for name, spread in self.values.items()},
            "differences": {
                name: {metric: vars_of(spread) for metric, spread in self.against(name).items()}
                for name in self.baselines
            },
            "by_fold": [dict(metrics) for metrics in self.folds],
        }

    def table(self, settings: EvaluationSettings) -> str:
        """Mean and deviation over the folds, a line a metric; then the differences to each baseline."""
        lines = [f"{len(self.folds)} folds: mean over folds, with their standard deviation"]
        shown = [name for name in self.values if "@" not in name or name.endswith(f"@{settings.max_k}")]
        lines += [f"  {name:<24}{_cell(self.values[name])}" for name in shown]
        for name in self.baselines:
            lines.append(f"difference to {name}, fold by fold")
            found = self.against(name)
            lines += [f"  {metric:<24}{_cell(found[metric])}" for metric in shown if metric in found]
        return "\n".join(lines)


def vars_of(spread: Spread) -> dict[str, float]:
    """The numbers that are there."""
    found = {"mean": spread.mean, "deviation": spread.deviation}
    return found if spread.p_value is None else found | {"p_value": spread.p_value}


def _shared(folds: Sequence[Metrics]) -> dict[str, list[float]]:
    """The values of every metric that all folds have."""
    return {name: [fold[name] for fold in folds] for name in folds[0] if all(name in fold for fold in folds)}


def _cell(spread: Spread) -> str:
    p_value = "" if spread.p_value is None else f", p = {spread.p_value:.2g}"
    return (
        f"{spread.mean:+.4f} ± {spread.deviation:.4f}{p_value}"
        if p_value
        else (f"{spread.mean:.4f} ± {spread.deviation:.4f}")
    )
