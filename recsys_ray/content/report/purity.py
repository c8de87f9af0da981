"""Do near items share genres? The share that does, against random items, with bootstrap intervals."""

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
    rows_R: LongArray,
    near_share_RK: BoolArray,
    other_share_RK: BoolArray,
    bootstrap: int,
    seed: int,
) -> tuple[Purity | None, dict[str, Purity]]:
    """Over all queries with a genre (None without any), and over those of each of the most frequent genres.

    Args:
        rows_R: rows of the queries in the catalogue.
        near_share_RK, other_share_RK: whether a neighbour, or a random item, shares a genre with the query.
    """
    found_R, chance_R = near_share_RK.mean(axis=1), other_share_RK.mean(axis=1)

    def over(kept_R: npt.NDArray[Any]) -> Purity:
        found, chance = (_estimate(values_R[kept_R], bootstrap, seed) for values_R in (found_R, chance_R))
        return Purity(len(kept_R), found, chance)

    has_genre_R = np.flatnonzero(labels.first_I[rows_R] >= 0)
    if len(has_genre_R) == 0:
        return None, {}
    of_genre = labels.labels_IG[rows_R].tocsc()
    by_genre = {}
    for number, name in enumerate(labels.genre_names[:MOST_GENRES]):
        members_R = of_genre.indices[of_genre.indptr[number] : of_genre.indptr[number + 1]]
        if len(members_R):
            by_genre[name] = over(np.sort(members_R))
    return over(has_genre_R), by_genre


def _estimate(values_R: DoubleArray, bootstrap: int, seed: int) -> Estimate:
    mean = float(values_R.mean())
    if len(values_R) < 2:
        return Estimate(mean, mean, mean)
    import scipy.stats  # slow to import, and needed for a report alone

    interval = scipy.stats.bootstrap(
        (values_R,),
        np.mean,
        n_resamples=bootstrap,
        batch=BOOTSTRAP_BATCH,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng([seed, 3]),
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high))
