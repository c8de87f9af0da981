"""The section ``runs`` of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys_ray.base.types import Settings


class GateSettings(Settings):
    """Bounds of the publish gate; the checks without a bound are always on."""

    min_coverage: float = Field(default=0.0, ge=0, le=1)
    """Least share of the catalogue that must appear in somebody's list."""
    max_fallback: float = Field(default=1.0, ge=0, le=1)
    """Largest share of rows that may come from the fallback."""
    max_without_spread: float = Field(default=0.9, ge=0, le=1)
    """Largest share of the model's lists in which all items score the same; lists of one row are not counted, nor those
    of a model that answers everybody alike."""
    min_overlap: float = Field(default=0.0, ge=0, le=1)
    """Least mean share of a user's list that was already in the last published run."""
    sample: int = Field(default=1000, ge=0)
    """Users drawn at random whose lists are computed again and compared item by item; all of them where there are no
    more. 0: none."""


class AccuracySettings(Settings):
    """When a model is too bad to be published. It is asked where data.split holds something out."""

    enabled: bool = True
    """Refuse a model that is worse than popularity, or than the settings of the published run on the same data."""
    metric: Literal["ndcg", "recall", "hit_rate"] = "ndcg"
    """What is compared, at the largest evaluation.k."""
    tolerance: float = Field(default=0.0, ge=0.0)
    """Worse by no more than this is let through; in units of the metric."""
    override: bool = False
    """Publish in spite of a refusal; the record of the run says so."""


class RunsSettings(Settings):
    """What happens to a finished run."""

    enabled: bool = True
    """Move LATEST to the run when it passes the gate."""
    gate: GateSettings = GateSettings()
    accuracy: AccuracySettings = AccuracySettings()
    keep: int = Field(default=5, ge=1)
    """Published runs to keep, the last published; LATEST and what the service was told to stay on are never deleted."""
    delta: bool = False
    """Make ``<output>/recommendations`` a Delta table of the published run, for Spark, Trino, DuckDB and others. It
    follows rollbacks and copies no row; where it can't be moved the run is published all the same. Needs the extra
    lakes."""
    to: str | None = None
    """Run id for rollback; by default the run published before the current one."""
