"""Users the service does not know yet: items to rate, how much their ratings say; and users of the data as examples."""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys_ray.base.types import BoolArray
from recsys_ray.recommend.config import StageSettings
from recsys_ray.serving.answers.item_catalogue import ItemCatalogue
from recsys_ray.serving.answers.live_run import LiveRun
from recsys_ray.serving.config import PersonaSettings

log = logging.getLogger(__name__)

TEMPORARY = re.compile(r"new-[A-Za-z0-9_-]{22}")
"""Ids that the service gives: 128 random bits, so that no data has one of them."""
STAGES = ((50, "rich"), (10, "full"), (3, "quick"), (0, "trending"))
LEVELS = ((20, "excellent"), (10, "good"), (0, "fair"))
ENOUGH = 20  # ratings after which more of them say little that is new
BUSY = 10  # interactions a demo user should have


def stage(history: int, stages: Sequence[StageSettings] = ()) -> str:
    """The name of the stage that a history of this length has reached: of those of the run, or, where it has none, what
    the history is good for: trending items, a quick profile, a full one, a rich one."""
    named = [(one.ratings, one.name) for one in reversed(stages)] or STAGES
    return next(name for least, name in named if history >= least)


def strength(ratings: int) -> dict[str, Any]:
    """``schemas.Strength`` of so many ratings."""
    level = next(name for least, name in LEVELS if ratings >= least)
    return {"ratings": ratings, "level": level, "value": min(1.0, ratings / ENOUGH)}


def temporary_user() -> str:
    """An id that can't be guessed."""
    return f"new-{secrets.token_urlsafe(16)}"


def is_temporary(user: str) -> bool:
    """Whether this id is one of ``temporary_user``."""
    return TEMPORARY.fullmatch(user) is not None


def onboarding_rows(catalogue: ItemCatalogue, n: int, pool: int, allowed_I: BoolArray | None = None) -> list[int]:
    """Rows of popular items that differ: each is the best of the pool in popularity, new genres and a new decade.

    An item counts 1 for being the most popular of the pool, down to 0 for the least; up to 1 for genres, less for those
    already there; 1 for a decade, half of it for one that is there once, and so on. Only items that may be shown.
    """
    candidates = _pool(catalogue, max(n, pool), allowed_I)
    chosen: list[int] = []
    genres: dict[str, int] = {}
    decades: dict[int | None, int] = {}
    worth = {row: 1.0 - place / len(candidates) for place, row in enumerate(candidates)}

    def gain(row: int) -> float:
        mine = catalogue.genres[row]
        fresh = sum(1.0 / (1 + genres.get(genre, 0)) for genre in mine) / max(1, len(mine))
        return worth[row] + fresh + 1.0 / (1 + decades.get(_decade(catalogue.years[row]), 0))

    while candidates and len(chosen) < n:
        best = max(candidates, key=gain)
        candidates.remove(best)
        chosen.append(best)
        for genre in catalogue.genres[best]:
            genres[genre] = genres.get(genre, 0) + 1
        decade = _decade(catalogue.years[best])
        decades[decade] = decades.get(decade, 0) + 1
    return chosen


def _pool(catalogue: ItemCatalogue, size: int, allowed_I: BoolArray | None) -> list[int]:
    """The most popular rows of those that may be shown."""
    rows_I = catalogue.by_popularity_I
    return [int(row) for row in (rows_I if allowed_I is None else rows_I[allowed_I[rows_I]])[:size]]


def similar_mix(
    catalogue: ItemCatalogue, rows: list[int], pool: int, seed: int, allowed_I: BoolArray | None = None
) -> list[int]:
    """Other popular items for these, one for each: of the same decade and the same genres as far as the pool has them.

    Each item of the pool that is not among the rows counts the cosine of the genres, 1 for the decade, and up to a half
    by chance, so that another seed gives other items.
    """
    rng = np.random.default_rng(seed)
    taken = set(rows)
    free = [row for row in _pool(catalogue, max(len(rows), pool), allowed_I) if row not in taken]
    chosen: list[int] = []

    def likeness(row: int, other: int) -> float:
        mine, others = set(catalogue.genres[row]), set(catalogue.genres[other])
        shared = len(mine & others) / max(1.0, math.sqrt(len(mine) * len(others)))
        return shared + float(_decade(catalogue.years[row]) == _decade(catalogue.years[other]))

    for row in rows[: len(free)]:
        luck = dict(zip(free, rng.uniform(0, 0.5, len(free)).tolist(), strict=True))
        best = max(free, key=lambda other: likeness(row, other) + luck[other])
        free.remove(best)
        chosen.append(best)
    return chosen


def demo_users(run: LiveRun, n: int, personas: Sequence[PersonaSettings]) -> list[dict[str, Any]]:
    """The user of the first shard who fits each of the first n personas best, none of them twice. A genre that the
    catalogue does not have is left out, and said in the log."""
    users = run.first_users if n else None
    if users is None:
        return []
    lengths_B = users.histories.lengths_B
    busy = [int(row) for row in np.flatnonzero(lengths_B >= min(BUSY, int(lengths_B.max())))]
    matrix = users.histories.matrix(len(run.catalogue))
    sizes = {genre: len(rows) for genre, rows in run.catalogue.genre_rows.items()}
    largest = sorted(sizes, key=lambda name: -sizes[name])
    labels: dict[int, str] = {}
    for persona in personas:
        scores: dict[int, float] = {}
        label = {"longest": "Knows a lot", "critical": "Strict critic"}.get(persona.kind, "")
        if persona.kind == "longest":
            scores = {row: float(lengths_B[row]) for row in busy}
        elif persona.kind == "critical":
            means = {row: -float(users.histories.ratings_E[users.histories.span(row)].mean()) for row in busy}
            scores = means if len(set(means.values())) > 1 else {}
        elif (genre := _genre(run, persona.genre, largest)) is not None:
            mask_I = run.catalogue.mask(run.catalogue.genre_rows[genre]).astype(np.float32)
            share_B = (matrix @ mask_I) / np.maximum(1, lengths_B)
            scores, label = {row: float(share_B[row]) for row in busy}, f"{genre} fan"
        free = {row: score for row, score in scores.items() if row not in labels}
        if free and len(labels) < n:
            labels[max(free, key=lambda row: free[row])] = persona.label or label
    return [
        {"user_id": users.user_ids[row].as_py(), "label": label, "history": int(lengths_B[row])}
        for row, label in labels.items()
    ]


def _genre(run: LiveRun, wanted: str | int | None, largest: list[str]) -> str | None:
    if isinstance(wanted, int):
        return largest[wanted - 1] if wanted <= len(largest) else None
    found = None if wanted is None else run.catalogue.genre(wanted)
    if found is None:
        log.warning("serving.personas: the catalogue has no genre %r; that persona is left out", wanted)
    return found


def _decade(year: int | None) -> int | None:
    return None if year is None else year // 10
