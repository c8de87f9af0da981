"""The section ``runs`` of the configuration."""

from __future__ import annotations

from pydantic import Field

from recsys_ray.base.types import Settings
from recsys_ray.runs.accuracy import AccuracySettings
from recsys_ray.runs.gate import GateSettings


class RunsSettings(Settings):
    """What happens to a finished run."""

    enabled: bool = True
    """Move LATEST to the run when it passes the gate."""
    gate: GateSettings = GateSettings()
    accuracy: AccuracySettings = AccuracySettings()
    keep: int = Field(default=5, ge=1)
    """Published runs to keep, the last published; LATEST and what the service was told to stay on are never deleted."""
    to: str | None = None
    """Run id for rollback; by default the run published before the current one."""
