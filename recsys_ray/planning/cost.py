"""About how long things take: multiplications by formula, over what a core does of them in a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recsys_ray.base.types import Counts
from recsys_ray.models import Model

START_SECONDS = 6.0
"""Ray's start, and the imports of its first workers."""
PER_CORE = {"prepare": 150_000.0, "embed": 300.0, "lists": 4e8, "users": 4_000.0, "evaluate": 20_000.0}
"""Rows, items, scores, users that a core does in a second."""
MULTIPLICATIONS = 4e9
"""Of dense matrices, on one core, in a second."""
SCATTERED = 2e8
"""Of sparse ones."""
Formula = Callable[[Any, Counts], float]
SECONDS: dict[str, Formula] = {
    "random": lambda model, c: 0.1,
    "popularity": lambda model, c: c.num_interactions / SCATTERED,
    "transitions": lambda model, c: 30 * c.num_interactions / SCATTERED,
    "item_cf": lambda model, c: c.num_pairs / SCATTERED,
    "ease": lambda model, c: (c.num_items**3) / MULTIPLICATIONS + c.num_pairs / SCATTERED,
    "graph_filter": lambda model, c: c.num_pairs / SCATTERED + 60 * 256 * c.num_interactions / SCATTERED / 4,
    "pure_svd": lambda model, c: 20 * model.embedding_dim * c.num_interactions / SCATTERED,
    "als": lambda model, c: (
        model.epochs
        * (
            20 * model.embedding_dim * c.num_interactions / SCATTERED / 4
            + 3 * (c.num_users + c.num_items) * model.embedding_dim**2 / MULTIPLICATIONS
        )
    ),
    "svd": lambda model, c: model.epochs * 6 * model.embedding_dim * c.num_interactions / MULTIPLICATIONS * 4,
    "slim": lambda model, c: 20 * c.num_pairs / SCATTERED,
}
"""Of a fit on one core, by model. What is not here (networks, blends) is not predicted."""


def stage_seconds(stage: str, count: float, cores: int) -> float:
    """So many pieces of a stage, spread over all cores."""
    return count / PER_CORE[stage] / cores


def fit_seconds(model: Model, counts: Counts, cores: int) -> float | None:
    """A fit; None where it is not predicted."""
    formula = SECONDS.get(model.key)
    return None if formula is None else formula(model, counts) / cores
