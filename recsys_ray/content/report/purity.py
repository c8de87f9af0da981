"""Do near items share genres? The share that does, against random items, with bootstrap intervals.

Shape suffixes: Q queries, K neighbours, G genres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_ray.base.types import BoolArray, DoubleArray, LongArray
from recsys_ray.content.report.item_labels import ItemLabels

MOST_GENRES = 30
BOOTSTRAP_BATCH = 50
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries with its bootstrap interval; for a single query the interval is that value."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Purity:
    """Mean share of neighbours that share a genre with the query, and the same for random items."""

    queries: int
    found: Estimate
    chance: Estimate


def genre_purity(
    labels: ItemLabels,
    rows_Q: LongArray,
    near_share_QK: BoolArray,
    other_share_QK: BoolArray,
    bootstrap: int,
    seed: int,
) -> tuple[Purity | None, dict[str, Purity]]:
    """Over all queries with a genre (None without any), and over those of each of the most frequent genres.

    Args:
        rows_Q: rows of the queries in the catalogue.
        near_share_QK, other_share_QK: whether a neighbour, or a random item, shares a genre with the query.
    """
    found_Q, chance_Q = near_share_QK.mean(axis=1), other_share_QK.mean(axis=1)

    def over(kept_Q: npt.NDArray[Any]) -> Purity:
        found, chance = (_estimate(values_Q[kept_Q], bootstrap, seed) for values_Q in (found_Q, chance_Q))
        return Purity(len(kept_Q), found, chance)

    has_genre_Q = np.flatnonzero(labels.first_I[rows_Q] >= 0)
    if len(has_genre_Q) == 0:
        return None, {}
    of_genre = labels.labels_IG[rows_Q].tocsc()
    by_genre = {}
    for number, name in enumerate(labels.genre_names[:MOST_GENRES]):
        members_Q = of_genre.indices[of_genre.indptr[number] : of_genre.indptr[number + 1]]
        if len(members_Q):
            by_genre[name] = over(np.sort(members_Q))
    return over(has_genre_Q), by_genre


def _estimate(values_Q: DoubleArray, bootstrap: int, seed: int) -> Estimate:
    mean = float(values_Q.mean())
    if len(values_Q) < 2:
        return Estimate(mean, mean, mean)
    import scipy.stats  # slow to import, and needed for a report alone

    interval = scipy.stats.bootstrap(
        (values_Q,),
        np.mean,
        n_resamples=bootstrap,
        batch=BOOTSTRAP_BATCH,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng([seed, 3]),
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high))
