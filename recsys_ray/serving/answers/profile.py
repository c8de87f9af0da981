"""What a user is like, in the few facts that a language model is told: from the history and the catalogue alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_ray.base.types import Histories
from recsys_ray.serving.answers.item_catalogue import ItemCatalogue

MOST_GENRES, MOST_TITLES = 3, 5
LEAST_ITEMS = 5
"""Items a history needs before anything is said of its style."""


class Profiler:
    """Profiles of the users of one catalogue. What is usual is what its interactions are with, not its items."""

    def __init__(self, catalogue: ItemCatalogue) -> None:
        self._catalogue = catalogue
        known = [row for row, year in enumerate(catalogue.years) if year is not None]
        years = np.array([catalogue.years[row] for row in known], np.int64)
        self._years = _thirds(years, catalogue.counts_I[known])
        self._counts = _thirds(catalogue.counts_I, catalogue.counts_I)

    def profile(self, history: Histories) -> dict[str, Any]:
        """JSON-ready facts of one history; nothing for an empty one.

        An item counts once, with its last rating; it is liked when that is no lower than the mean. ``items``: how many;
        ``ratings`` instead, and ``mean_rating``, where events say more than that they were. ``top_genres`` of liked
        items, the most frequent first. ``last_titles``, the newest first. ``likes``: "recent" or "old" where the median
        year of liked items lies above, or below, the middle third of the years of all interactions; "popular" or
        "niche" by the same rule on how many interactions an item has.
        """
        events = zip(reversed(history.items_E.tolist()), reversed(history.ratings_E.tolist()), strict=True)
        ratings: dict[int, float] = {}  # newest first
        for row, rating in events:
            ratings.setdefault(row, rating)
        if not ratings:
            return {}
        catalogue, mean = self._catalogue, sum(ratings.values()) / len(ratings)
        liked = [row for row, rating in ratings.items() if rating >= mean - 1e-6]
        counts = Counter(genre for row in liked for genre in catalogue.genres[row])
        titles = [catalogue.titles[row] for row in ratings]
        is_rated = any(rating != 1 for rating in ratings.values())
        found: dict[str, Any] = {"ratings" if is_rated else "items": len(ratings)}
        if is_rated:
            found["mean_rating"] = round(mean, 1)
        found["top_genres"] = sorted(counts, key=lambda genre: (-counts[genre], genre))[:MOST_GENRES]
        found["last_titles"] = [title for title in titles if title][:MOST_TITLES]
        years = [year for row in liked if (year := catalogue.years[row]) is not None]
        found["likes"] = [
            *_side(years, self._years, "old", "recent"),
            *_side(catalogue.counts_I[liked].tolist(), self._counts, "niche", "popular"),
        ]
        return {name: value for name, value in found.items() if value != []}


def _thirds(values: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]) -> tuple[int, int] | None:
    """The values that a third, and two thirds, of the weight do not exceed; None without weight."""
    if not weights.sum():
        return None
    order = np.argsort(values, kind="stable")
    summed = np.cumsum(weights[order])
    places = np.searchsorted(summed, [summed[-1] / 3, 2 * summed[-1] / 3])
    low, high = values[order][places].tolist()
    return int(low), int(high)


def _side(values: list[int], thirds: tuple[int, int] | None, below: str, above: str) -> list[str]:
    if thirds is None or len(values) < LEAST_ITEMS:
        return []
    median = float(np.median(values))
    return [below] if median < thirds[0] else [above] if median > thirds[1] else []
