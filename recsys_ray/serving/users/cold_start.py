"""Users the service does not know yet: items to rate, how much their ratings say; and users of the data as examples."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

from recsys_ray.serving.answers.item_catalogue import ItemCatalogue
from recsys_ray.serving.answers.live_run import LiveRun

TEMPORARY = "new-"
STAGES = ((50, "rich"), (10, "full"), (3, "quick"), (0, "trending"))
LEVELS = ((20, "excellent"), (10, "good"), (0, "fair"))
ENOUGH = 20  # ratings after which more of them say little that is new
BUSY = 10  # interactions a demo user should have


def stage(history: int) -> str:
    """What a history of this length is good for: trending items, a quick profile, a full one, a rich one."""
    return next(name for least, name in STAGES if history >= least)


def strength(ratings: int) -> dict[str, Any]:
    """``schemas.Strength`` of so many ratings."""
    level = next(name for least, name in LEVELS if ratings >= least)
    return {"ratings": ratings, "level": level, "value": min(1.0, ratings / ENOUGH)}


def temporary_user() -> str:
    """An id that can't be guessed."""
    return TEMPORARY + secrets.token_urlsafe(16)


def onboarding_rows(catalogue: ItemCatalogue, n: int, pool: int) -> list[int]:
    """Rows of popular items that differ: each is the best of the pool in popularity, new genres and a new decade.

    An item counts 1 for being the most popular of the pool, down to 0 for the least; up to 1 for genres, less for those
    already there; 1 for a decade, half of it for one that is there once, and so on.
    """
    candidates = [int(row) for row in catalogue.by_popularity_I[: max(n, pool)]]
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


def demo_users(run: LiveRun, n: int) -> list[dict[str, Any]]:
    """Users of the first shard with a taste of their own, one per genre, then the one with the longest history and the
    most critical one."""
    users = run.first_users if n else None
    if users is None:
        return []
    lengths_B = users.histories.lengths_B
    busy = [int(row) for row in np.flatnonzero(lengths_B >= min(BUSY, int(lengths_B.max())))]
    labels: dict[int, str] = {}

    def take(scores: dict[int, float], label: str) -> None:
        free = {row: score for row, score in scores.items() if row not in labels}
        if free and len(labels) < n:
            labels[max(free, key=lambda row: free[row])] = label

    matrix = users.histories.matrix(len(run.catalogue))
    sizes = {genre: len(rows) for genre, rows in run.catalogue.genre_rows.items()}
    for genre in sorted(sizes, key=lambda name: -sizes[name])[: max(0, n - 2)]:
        mask_I = run.catalogue.mask(run.catalogue.genre_rows[genre]).astype(np.float32)
        share_B = (matrix @ mask_I) / np.maximum(1, lengths_B)
        take({row: float(share_B[row]) for row in busy}, f"{genre} fan")
    take({row: float(lengths_B[row]) for row in busy}, "Knows a lot")
    means = {row: float(users.histories.ratings_E[users.histories.span(row)].mean()) for row in busy}
    if len(set(means.values())) > 1:
        take({row: -mean for row, mean in means.items()}, "Strict critic")
    return [
        {"user_id": users.user_ids[row].as_py(), "label": label, "history": int(lengths_B[row])}
        for row, label in labels.items()
    ]


def _decade(year: int | None) -> int | None:
    return None if year is None else year // 10
