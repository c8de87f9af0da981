"""What is told of a run, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from recsys_ray.base.storage import Location


@dataclass(frozen=True, slots=True)
class Trackable:
    """One run, or one trial of a search."""

    name: str
    parameters: Mapping[str, Any]
    """Settings by dotted key."""
    metrics: Mapping[str, float]
    """By name: "ndcg@20"."""
    epochs: Sequence[Mapping[str, float]] = ()
    """What was measured after each epoch, by name."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Files by name."""
    tags: Mapping[str, str] = field(default_factory=dict)
    bundle: Location | None = None
    published: bool = False
    """It is what the product answers with from now on."""
    children: Sequence[Trackable] = ()
    """The trials of a search."""


class Tracker(Protocol):
    """Somewhere that runs are recorded. Others than ours fit: ``track`` takes any."""

    def record(self, run: Trackable) -> str:
        """Record a finished run; where it can be seen. Whatever it raises is told, and no more."""
        ...


def track(run: Trackable, tracker: Callable[[], Tracker], progress: Callable[[str], None]) -> None:
    """Record a run; a tracker that fails, or that is not there, is one line of progress."""
    try:
        progress(f"tracking: {run.name} is recorded in {tracker().record(run)}")
    except Exception as error:  # of a foreign library, a server, a network: none of it is worth a run
        said = " ".join(str(error).split())[:300] or type(error).__name__
        progress(f"tracking: {run.name} is not recorded: {said}")


def flat(settings: dict[str, Any], inside: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{inside}{key}.")
        else:
            found[f"{inside}{key}"] = value
    return found
