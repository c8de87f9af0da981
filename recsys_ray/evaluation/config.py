"""What is measured, and how sure we want to be."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from recsys_ray.base.types import Settings

PositiveInt = Annotated[int, Field(ge=1)]


class EvaluationSettings(Settings):
    """Cut-offs, segments and confidence intervals of an evaluation."""

    k: list[PositiveInt] = Field(default=[5, 10, 20], min_length=1)
    """Lengths of the top of a list that are looked at, ascending."""
    on: Literal["test", "valid"] = "test"
    """Which held-out part the lists are compared with. Choose settings on "valid", report on "test"."""
    baselines: list[str | dict[str, Any]] | None = None
    """Models that are evaluated on the same targets and reported beside the model: by name, at their default settings,
    or as a section of their own ({name: item_cf, neighbors: 200}), which may say under which ``label``. null:
    popularity, and transitions where the split holds out what came last."""
    bootstrap: int = Field(default=500, ge=0)
    """Bootstrap replicates behind every confidence interval; 0 leaves the intervals out."""
    confidence: float = Field(default=0.95, gt=0.0, lt=1.0)
    """Share of the replicates inside an interval."""
    seed: int = Field(default=0, ge=0)
    """Seed of the bootstrap; the same seed makes two evaluations of the same users comparable in pairs."""
    history_edges: list[PositiveInt] = Field(default=[1, 5, 20])
    """Where one segment of users ends and the next begins, in interactions of their history: 0, 1-4, 5-19, 20+."""
    head_share: float = Field(default=0.8, gt=0.0, lt=1.0)
    """The head is the fewest items that hold this share of the training interactions; the others are the tail."""

    genres: list[str] = Field(default=[])
    """Names of genres; the recall of held-out items of each is reported as a segment of its own."""
    liked: float | None = None
    """Rating from which a held-out item counts as liked. Given, rated_precision@k is reported: users' held-out items
    ranked among themselves, the share of liked ones in the first k, over users with at least k. null leaves it out."""
    auc: bool = False
    """Report how often a held-out item scores above another item the user does not have; it scores all items anew."""

    @field_validator("k", "history_edges")
    @classmethod
    def _ascending(cls, values: list[int]) -> list[int]:
        if any(left >= right for left, right in pairwise(values)):
            raise ValueError(f"must be ascending without repeats, got {values}")
        return values

    @property
    def max_k(self) -> int:
        return self.k[-1]

    @property
    def history_segments(self) -> list[str]:
        """Names of the segments of users, shortest histories first."""
        bounds = [0, *self.history_edges]
        closed = [
            f"history {low}" if high - low == 1 else f"history {low}-{high - 1}" for low, high in pairwise(bounds)
        ]
        return [*closed, f"history {bounds[-1]}+"]
