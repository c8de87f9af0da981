"""The section ``tune``: which settings are searched, and how long."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from recsys_ray.base.types import Settings

Choices = Annotated[list[Any], Field(min_length=1)]


class Range(Settings):
    """Numbers between two ends, both included; whole ones when both ends are whole."""

    low: int | float
    high: int | float
    log: bool = False
    """Draw evenly on a logarithmic scale."""

    @model_validator(mode="after")
    def _possible(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"tune.space: low={self.low} is not below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"tune.space: log needs numbers above 0, found low={self.low}")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


class StopEarly(Settings):
    """Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020):
    of the trials that have reached an epoch, only the best go on. Only neural models report epochs."""

    first: int = Field(default=3, ge=1)
    """Epochs that every trial may train."""
    keep: int = Field(default=3, ge=2)
    """One trial in so many goes on."""


class TuneSettings(Settings):
    """A search for the settings that rank the validation part best. The test part is not looked at."""

    space: dict[str, Range | Choices] = Field(default={}, min_length=0)
    """By dotted key, what it may be: a list of values, or {low, high} with log for a logarithmic scale."""
    trials: int = Field(default=30, ge=1)
    """Settings to try; the first are those of the configuration itself."""
    metric: Literal["ndcg", "recall", "hit_rate"] = "ndcg"
    """What is to be high, at the largest evaluation.k."""
    parallel: int | None = Field(default=None, ge=1)
    """Trials at once; null: as many as there are cores."""
    stop_early: StopEarly | None = StopEarly()
    """null trains every trial to its end."""
