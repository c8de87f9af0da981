"""What item vectors say: who is near whom, whether near items share genres, what has no vector, what is double.

Neighbours are compared with random partners, drawn for the same items: the share of neighbours with a genre in common
is only worth what it is above the share among random items.

P are the items with a vector, R the queries: those whose neighbours are looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import DataError
from recsys_ray.base.types import BoolArray, FloatArray, ItemContent, LongArray
from recsys_ray.content.config import ReportSettings
from recsys_ray.content.report.item_labels import ItemLabels, Named
from recsys_ray.content.report.neighbours import cosines, nearest, random_others
from recsys_ray.content.report.purity import Purity, genre_purity

MOST_LISTED = 20
"""Items, or pairs, that are named in a list; the rest is counted."""
BINS = 60


@dataclass(frozen=True, slots=True)
class Neighbour:
    item: Named
    cosine: float
    shares_genre: bool


@dataclass(frozen=True, slots=True)
class KnownTitle:
    item: Named
    interactions: int
    neighbours: list[Neighbour]


@dataclass(frozen=True, slots=True)
class Gap:
    """Items that lack something: how many, and the first of them."""

    count: int
    first: list[Named]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Cosines of one kind of pairs."""

    pairs: int
    mean: float
    p05: float
    median: float
    p95: float
    shares: list[float]
    """Share of the pairs in each bin of ``Analysis.bin_edges``."""


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    one: Named
    other: Named
    cosine: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything the page shows, but for the map."""

    num_items: int
    num_with_vector: int
    dim: int
    num_queries: int
    num_neighbours: int
    without_text: Gap
    without_image: Gap
    without_both: Gap
    known_titles: list[KnownTitle]
    bin_edges: list[float]
    distributions: dict[str, Distribution]
    num_genres: int
    purity: Purity | None
    """None when no query has a genre."""
    genre_purity: dict[str, Purity]
    """By genre of the query, the genres with most items first."""
    near_duplicates: int
    """Queries with another item above the threshold."""
    duplicate_pairs: list[DuplicatePair]


def analyse(
    items: pa.Table,
    content: ItemContent,
    has_text_I: BoolArray,
    has_image_I: BoolArray,
    counts_I: LongArray,
    settings: ReportSettings,
) -> Analysis:
    """Measure the vectors of a catalogue in vocabulary order.

    Takes time in queries x items x dimension, and memory in items x dimension.

    Raises:
        DataError: fewer than two items have a vector.
    """
    assert len(content.vectors_ID) == len(has_text_I) == len(has_image_I) == len(counts_I) == items.num_rows
    present_P = np.flatnonzero(content.present_I)
    if len(present_P) < 2:
        raise DataError(
            f"{len(present_P)} of {items.num_rows} items have a vector, and a report needs two; "
            "set content.text.fields to columns that hold text"
        )
    labels = ItemLabels.of(items)
    vectors_PD = content.vectors_ID if len(present_P) == items.num_rows else content.vectors_ID[present_P]
    k = min(settings.neighbours, len(present_P) - 1)
    queries_R = sample(np.random.default_rng([settings.seed, 0]), len(present_P), settings.max_queries)
    near_RK, near_cosines_RK = nearest(vectors_PD, queries_R, k)
    others_RK = random_others(np.random.default_rng([settings.seed, 1]), queries_R, len(present_P), k)
    other_cosines_RK = cosines(vectors_PD, queries_R, others_RK)
    near_share_RK = labels.share_a_genre(present_P[queries_R], present_P[near_RK])
    other_share_RK = labels.share_a_genre(present_P[queries_R], present_P[others_RK])
    edges, distributions = _distributions(
        {
            "random pairs": other_cosines_RK.ravel(),
            "random pairs that share a genre": other_cosines_RK[other_share_RK],
            "nearest neighbours": near_cosines_RK.ravel(),
        }
    )
    purity, by_genre = genre_purity(
        labels, present_P[queries_R], near_share_RK, other_share_RK, settings.bootstrap, settings.seed
    )
    is_double_RK = near_cosines_RK > settings.near_duplicate
    return Analysis(
        num_items=items.num_rows,
        num_with_vector=len(present_P),
        dim=vectors_PD.shape[1],
        num_queries=len(queries_R),
        num_neighbours=k,
        without_text=_gap(labels, ~has_text_I),
        without_image=_gap(labels, ~has_image_I),
        without_both=_gap(labels, ~has_text_I & ~has_image_I),
        known_titles=_known_titles(labels, vectors_PD, present_P, counts_I, k, settings.titles),
        bin_edges=edges,
        distributions=distributions,
        num_genres=len(labels.genre_names),
        purity=purity,
        genre_purity=by_genre,
        near_duplicates=int(is_double_RK.any(axis=1).sum()),
        duplicate_pairs=_pairs(labels, present_P[queries_R], present_P[near_RK], near_cosines_RK, is_double_RK),
    )


def embedding_facts(analysis: Analysis) -> dict[str, Any]:
    """The numbers of an analysis, JSON-ready."""
    facts: dict[str, Any] = {
        "items": analysis.num_items,
        "with_vector": analysis.num_with_vector,
        "dim": analysis.dim,
        "without_text": analysis.without_text.count,
        "without_image": analysis.without_image.count,
        "without_both": analysis.without_both.count,
        "queries": analysis.num_queries,
        "neighbours": analysis.num_neighbours,
        "near_duplicates": analysis.near_duplicates,
        "mean_cosine": {name: round(found.mean, 4) for name, found in analysis.distributions.items()},
    }
    if analysis.purity is not None:
        found, chance = analysis.purity.found, analysis.purity.chance
        purity = {"mean": found.mean, "low": found.low, "high": found.high, "chance": chance.mean}
        facts["genre_purity"] = {name: round(value, 4) for name, value in purity.items()}
        facts["genre_purity_by_genre"] = {
            name: {"mean": round(one.found.mean, 4), "chance": round(one.chance.mean, 4)}
            for name, one in analysis.genre_purity.items()
        }
    return facts


def sample(rng: np.random.Generator, num_items: int, most: int) -> LongArray:
    """All row numbers, or ``most`` of them drawn without repeats, sorted."""
    if num_items <= most:
        return np.arange(num_items, dtype=np.int64)
    return np.sort(rng.choice(num_items, most, replace=False)).astype(np.int64)


def _gap(labels: ItemLabels, lacks_I: BoolArray) -> Gap:
    rows = np.flatnonzero(lacks_I)
    return Gap(len(rows), [labels.named(int(row)) for row in rows[:MOST_LISTED]])


def _known_titles(
    labels: ItemLabels, vectors_PD: FloatArray, present_P: LongArray, counts_I: LongArray, k: int, titles: int
) -> list[KnownTitle]:
    """The items with most interactions among those with a vector, ties by row."""
    queries_R = np.argsort(-counts_I[present_P], kind="stable")[:titles]
    near_RK, cosines_RK = nearest(vectors_PD, queries_R, k)
    shares_RK = labels.share_a_genre(present_P[queries_R], present_P[near_RK])
    return [
        KnownTitle(
            labels.named(int(present_P[query])),
            int(counts_I[present_P[query]]),
            [
                Neighbour(labels.named(int(present_P[row])), float(cosine), bool(shares))
                for row, cosine, shares in zip(near_K, cosines_K, shares_K, strict=True)
            ],
        )
        for query, near_K, cosines_K, shares_K in zip(queries_R, near_RK, cosines_RK, shares_RK, strict=True)
    ]


def _distributions(kinds: dict[str, FloatArray]) -> tuple[list[float], dict[str, Distribution]]:
    """Common bin edges, and the distributions of the kinds that have a pair."""
    kinds = {name: values for name, values in kinds.items() if len(values)}
    lowest = min(float(values.min()) for values in kinds.values())
    edges = np.linspace(np.floor(min(lowest, 0.9) * 10) / 10, 1.0, BINS + 1)
    result = {}
    for name, values in kinds.items():
        # Rounding may take the cosine of equal vectors a little above 1.
        counts, _ = np.histogram(np.minimum(values, 1.0), edges)
        p05, median, p95 = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
        result[name] = Distribution(
            len(values), float(values.mean(dtype=np.float64)), p05, median, p95, (counts / len(values)).tolist()
        )
    return edges.tolist(), result


def _pairs(
    labels: ItemLabels, rows_R: LongArray, near_RK: LongArray, cosines_RK: FloatArray, is_double_RK: BoolArray
) -> list[DuplicatePair]:
    """The first pairs above the threshold, each once, by row."""
    queries, ranks = np.nonzero(is_double_RK)
    pairs: dict[Sequence[int], float] = {}
    for query, rank in zip(queries, ranks, strict=True):
        one, other = sorted((int(rows_R[query]), int(near_RK[query, rank])))
        pairs.setdefault((one, other), float(cosines_RK[query, rank]))
        if len(pairs) == MOST_LISTED:
            break
    return [DuplicatePair(labels.named(one), labels.named(other), cosine) for (one, other), cosine in pairs.items()]
