"""One description of prepared data, from its sums: numbers as JSON-ready values, distributions as lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys_ray.base import schema
from recsys_ray.base.types import ItemLists, LongArray
from recsys_ray.data.genres import item_genres
from recsys_ray.data.prepared import Prepared
from recsys_ray.data.report.exploration import MOST_RATINGS, SHORT, Explored, bucket

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MOST_GENRES = 20


def statistics(prepared: Prepared, explored: Explored) -> dict[str, Any]:
    """Sizes, distributions and gaps of the data; the file ``statistics.json`` of a report."""
    sums, count = explored.sums, int(explored.sums["interactions"])
    mean = float(sums["rating_sum"]) / count
    variance = max(0.0, float(sums["rating_squares"]) / count - mean**2)
    counts_I = sums["item_counts"]
    return {
        "users": prepared.num_users,
        "items": prepared.num_items,
        "interactions": count,
        "parts": {name: int(sums["parts"][code]) for name, code in schema.PARTS.items()},
        "sparsity": 1.0 - count / (prepared.num_users * prepared.num_items),
        "rating": {"mean": mean, "deviation": variance**0.5, "below_min_rating": int(sums["below_threshold"])},
        "ratings": histogram(explored.counts["ratings"]),
        "user_means": histogram(explored.counts["user_means"]),
        "per_user": _spread(explored.counts["lengths"]),
        "per_item": _spread(Counter(counts_I.tolist())),
        "cold": {
            "users": sum(n for length, n in explored.counts["lengths"].items() if length < SHORT),
            "items": int((counts_I < SHORT).sum()),
            "items_without_interactions": int((counts_I == 0).sum()),
            "fewer_than": SHORT,
        },
        "long_tail": [{"items": share, "interactions": _held_by(counts_I, share)} for share in SHARES],
        "time": _time(explored),
        "genres": genre_facts(prepared, explored),
        "catalogue": _gaps(prepared),
    }


def histogram(counts: Counter[float]) -> list[dict[str, float]]:
    """Value and count, ascending; many values as MOST_RATINGS bins of equal width, named by their middles."""
    values = sorted(counts)
    if len(values) <= MOST_RATINGS:
        return [{"value": value, "count": counts[value]} for value in values]
    weights = [counts[value] for value in values]
    found, edges = np.histogram(values, bins=MOST_RATINGS, weights=weights)
    middles = (edges[:-1] + edges[1:]) / 2
    return [{"value": float(value), "count": float(count)} for value, count in zip(middles, found, strict=True)]


def _spread(counts: Counter[int]) -> dict[str, Any]:
    """Quantiles of counts, their mean, and how many lie in each of 1, 2 to 3, 4 to 7, ..."""
    values = np.array(sorted(counts), np.int64)
    times = np.array([counts[int(value)] for value in values], np.int64)
    # The value at quantile q is the first that at least a share q lies at or below.
    places = np.searchsorted(np.cumsum(times), np.array(QUANTILES) * times.sum())
    quantiles = values[np.minimum(places, len(values) - 1)]
    doubling = np.bincount(bucket(values[values > 0]), times[values > 0]).astype(np.int64)
    return {
        "mean": float(values @ times / times.sum()),
        "quantiles": {str(q): int(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
        "doubling": doubling.tolist(),
    }


def _held_by(counts_I: LongArray, share: float) -> float:
    """Share of the interactions with the most popular ``share`` of all items."""
    first = max(1, round(share * len(counts_I)))
    return float(np.sort(counts_I)[::-1][:first].sum() / max(1, counts_I.sum()))


def _time(explored: Explored) -> dict[str, Any] | None:
    if explored.times is None:
        return None
    first, last = (str(np.datetime64(time, "ms").astype("datetime64[s]")) for time in explored.times)
    return {
        "first": first,
        "last": last,
        "without": int(explored.sums["untimed"]),
        "months": _by_month(explored.counts["months"]),
        "new_users": _by_month(explored.counts["new_users"]),
        "hours": explored.sums["hours"].tolist(),
        "weekdays": dict(zip(WEEKDAYS, explored.sums["weekdays"].tolist(), strict=True)),
    }


def _by_month(counts: Counter[int]) -> dict[str, int]:
    """By "2024-03", with the empty months between."""
    if not counts:
        return {}
    return {f"{month // 12:04}-{month % 12 + 1:02}": counts[month] for month in range(min(counts), max(counts) + 1)}


def genre_facts(prepared: Prepared, explored: Explored) -> dict[str, Any] | None:
    """Items, interactions and mean rating of the genres with most interactions, and which share items."""
    genres, names = item_genres(prepared.items)
    if not names:
        return None
    counts_I, ratings_I = explored.sums["item_counts"], explored.sums["item_ratings"]
    items_G = np.bincount(genres.items_E, minlength=len(names))
    events_G = np.bincount(genres.items_E, counts_I[genres.rows_E], minlength=len(names)).astype(np.int64)
    ratings_G = np.bincount(genres.items_E, ratings_I[genres.rows_E], minlength=len(names))
    first = np.argsort(-events_G, kind="stable")[:MOST_GENRES]
    return {
        "count": len(names),
        "items_without": int((genres.lengths_B == 0).sum()),
        "listed": [
            {
                "name": names[genre],
                "items": int(items_G[genre]),
                "interactions": int(events_G[genre]),
                "mean_rating": float(ratings_G[genre] / events_G[genre]) if events_G[genre] else None,
            }
            for genre in first.tolist()
        ],
        "together": _together(genres, first.tolist(), len(names)),
    }


def _together(genres: ItemLists, listed: Sequence[int], num_genres: int) -> list[list[float]]:
    """Of the items of the one genre (row), the share that also has the other (column)."""
    has_IG = np.zeros((len(genres), len(listed)), np.float32)
    place_G = np.full(num_genres, -1)
    place_G[list(listed)] = range(len(listed))
    known_E = place_G[genres.items_E] >= 0
    has_IG[genres.rows_E[known_E], place_G[genres.items_E[known_E]]] = 1.0
    shared_GG = has_IG.T @ has_IG
    shares: list[list[float]] = np.round(shared_GG / np.maximum(np.diag(shared_GG), 1)[:, None], 4).tolist()
    return shares


def _gaps(prepared: Prepared) -> dict[str, int]:
    """Items that lack a column's value."""
    items = prepared.items
    named = [name for name in ("title", "text", "year", "poster") if name in items.schema.names]
    return {f"without_{name}": int(items.column(name).null_count) for name in named}
