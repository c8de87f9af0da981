"""Why an item is in a list: the items of the history that speak for it, with their ratings and shares.

    contribution   how much lower the model's score of the item would be had the user never touched the other one
    likeness       the cosine of the two items' vectors, over the items the user liked; for models whose scores don't
                   come apart into items
    genres         nothing of that kind speaks for the item; it shares genres with what the user liked
    popularity     how many have it: for rows of the fallback, and where nothing else is known

Contributions are exact. Of history x W and of low-rank models they are summands of the score. Of factor models they are
score differences of the fold-in solve with and without the item, by the closed form of leave-one-out ridge regression;
a known user's stored query comes from training, and the fold-in of the same history stands for it. With a ranker it is
the model that retrieved the item which is explained.

Shape suffixes: B requests, K items to explain, H distinct items of a history, I items, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_ray.base.types import FloatArray, Histories, IntArray, LongArray, Requests, Scorer
from recsys_ray.models.base import history_rows
from recsys_ray.models.linalg.sparse import SparseRows
from recsys_ray.models.scorers.cold_items import ColdItemScorer
from recsys_ray.models.scorers.linear import FactorScorer, LinearScorer, LowRankScorer, PopularityScorer
from recsys_ray.recommend.bundle import Bundle

DoubleArray = npt.NDArray[np.float64]
Kind = Literal["contribution", "likeness", "genres", "popularity"]

MOST_CITED = 3
MOST_GENRES = 3


@dataclass(frozen=True, slots=True)
class Cited:
    """An item of the history that speaks for a recommendation."""

    row: int
    item_id: Any
    title: str | None
    rating: float
    """The user's last rating of it."""
    value: float
    """In units of the score for a contribution, a cosine for likeness; always positive."""
    share: float
    """Its part of all that speaks for the recommendation, over the whole history: 0 to 1."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one item is listed for one request."""

    row: int
    kind: Kind
    cited: tuple[Cited, ...]
    """The strongest first."""
    genres: tuple[str, ...]
    """Shared with the cited items, or for kind "genres" with the items the user liked."""
    users_share: float
    """The share of all users who have the item."""
    is_rated: bool
    """Whether the ratings of the history say more than that there was an event."""


Render = Callable[[Reason], str]


@dataclass(frozen=True, slots=True)
class _History:
    """One user's distinct items."""

    items_H: IntArray
    ratings_H: FloatArray
    liked_H: npt.NDArray[np.bool_]
    """Rated no lower than the user's mean."""
    is_rated: bool


@dataclass(frozen=True, slots=True)
class _Names:
    item_ids: pa.Array
    titles: pa.ChunkedArray | None


def explain(
    bundle: Bundle, requests: Requests, rows_BK: IntArray, from_model_B: LongArray | None = None
) -> list[list[Reason]]:
    """For every request the reasons of its items, in order, those that are -1 left out.

    Args:
        rows_BK: item rows. from_model_B: how many leading items of each list are the model's, when not all are.
    """
    names = _Names(bundle.item_ids, bundle.items.column("title") if "title" in bundle.items.schema.names else None)
    is_personal = not isinstance(_inside(bundle.scorer), PopularityScorer)
    reasons = []
    for b in range(len(requests)):
        rows_K = rows_BK[b][rows_BK[b] >= 0]
        from_model = is_personal * (len(rows_K) if from_model_B is None else int(from_model_B[b]))
        history = _history_of(requests.histories.slice(b, b + 1))
        kind, items_H, values_HK = _support(bundle, requests.histories.slice(b, b + 1), history, rows_K)
        values_HK[:, from_model:] = 0
        of_request = []
        for k, row in enumerate(rows_K.tolist()):
            values_H = np.where(items_H == row, 0.0, np.maximum(values_HK[:, k], 0.0))
            cited = _cited(names, history, items_H, values_H)
            of_request.append(_reason(bundle, history, row, kind, cited, is_model=k < from_model))
        reasons.append(of_request)
    return reasons


def explain_texts(
    bundle: Bundle,
    requests: Requests,
    rows_BK: IntArray,
    from_model_B: LongArray | None = None,
    render: Render | None = None,
) -> list[str]:
    """``explain`` as one text an item, all requests end to end; ``render`` defaults to ``template``."""
    reasons = explain(bundle, requests, rows_BK, from_model_B)
    return [(render or template)(reason) for of_request in reasons for reason in of_request]


def template(reason: Reason) -> str:
    """The reason as an English sentence or two."""
    genres = ", ".join(reason.genres)
    if reason.kind == "popularity":
        return f"Popular: {reason.users_share:.0%} of all users have it."
    if reason.kind == "genres":
        return f"Shares genres with what you liked: {genres}."
    names = []
    for cited in reason.cited:
        rated = f"rated {cited.rating:g}; " if reason.is_rated else ""
        names.append(f'"{cited.title or cited.item_id}" ({rated}{cited.share:.0%})')
    start = "Because of" if reason.kind == "contribution" else "Because you liked"
    listed = " and ".join([*([", ".join(names[:-1])] if names[:-1] else []), names[-1]])
    return f"{start} {listed}." + (f" Shared genres: {genres}." if genres else "")


def _history_of(histories: Histories) -> _History:
    items_H, last_H = np.unique(histories.items_E[::-1], return_index=True)
    ratings_H = histories.ratings_E[::-1][last_H]
    mean = float(ratings_H.mean(dtype=np.float64)) if len(ratings_H) else 0.0
    is_rated = bool((ratings_H != 1).any())
    return _History(items_H.astype(np.int32), ratings_H, ratings_H >= np.float32(mean), is_rated)


def _cited(names: _Names, history: _History, items_H: IntArray, values_H: DoubleArray) -> tuple[Cited, ...]:
    """The items of the largest positive values; of equals, the lower item rows."""
    order_H = np.lexsort((items_H, -values_H))[:MOST_CITED]
    total = float(values_H.sum())
    cited = []
    for h in order_H[values_H[order_H] > 0]:
        row = int(items_H[h])
        rating = float(history.ratings_H[np.searchsorted(history.items_H, row)])
        title = None if names.titles is None else names.titles[row].as_py()
        value = float(values_H[h])
        cited.append(Cited(row, names.item_ids[row].as_py(), title, rating, value, value / total))
    return tuple(cited)


def _reason(
    bundle: Bundle, history: _History, row: int, kind: Kind, cited: tuple[Cited, ...], is_model: bool
) -> Reason:
    share = min(1.0, float(bundle.item_shares_I[row]))
    like_I = [item.row for item in cited] if cited else history.items_H[history.liked_H].tolist()
    genres = _shared_genres(bundle, row, like_I) if is_model else ()
    if not cited:
        kind = "genres" if genres else "popularity"
    return Reason(row, kind, cited, genres, share, history.is_rated)


def _shared_genres(bundle: Bundle, row: int, others: list[int]) -> tuple[str, ...]:
    """Genres of the item that others have too, the most frequent first."""
    numbers, names = bundle.genres
    counts = {number: 0 for number in numbers.row(row).tolist()}
    for other in others:
        for number in numbers.row(other).tolist():
            if number in counts:
                counts[number] += 1
    shared = sorted((-count, number) for number, count in counts.items() if count)
    return tuple(names[number] for _, number in shared[:MOST_GENRES])


# --- what speaks for an item ---


def _support(
    bundle: Bundle, histories: Histories, history: _History, rows_K: IntArray
) -> tuple[Kind, IntArray, DoubleArray]:
    """(kind, (H,) item rows, (H, K) how much each speaks for each) for one request."""
    found = contributions(bundle.scorer, histories, rows_K)
    if found is not None:
        return "contribution", *found
    liked_H = history.items_H[history.liked_H]
    return "likeness", liked_H, _likeness(bundle, liked_H, rows_K)


def _inside(scorer: Scorer) -> Scorer:
    return scorer.base if isinstance(scorer, ColdItemScorer) else scorer


def contributions(scorer: Scorer, histories: Histories, rows_K: IntArray) -> tuple[IntArray, DoubleArray] | None:
    """(H,) distinct items of one history, and (H, K) how much lower the score of each of ``rows_K`` would be without
    each; None for a model whose scores don't come apart into items."""
    if isinstance(scorer, ColdItemScorer):
        return _with_cold_columns(scorer, histories, rows_K)
    if isinstance(scorer, FactorScorer):
        return _fold_in_differences(scorer, histories, rows_K)
    if isinstance(scorer, LowRankScorer):
        rows = history_rows(histories, scorer.num_items, scorer.weighting)
        vectors_ID = scorer.items_ID
        weights_HD = rows.values[:, None].astype(np.float64) * vectors_ID[rows.columns]
        return rows.columns, np.asarray(weights_HD @ vectors_ID[rows_K].T.astype(np.float64), np.float64)
    if isinstance(scorer, LinearScorer):
        rows = history_rows(histories, scorer.num_items, scorer.weighting)
        return rows.columns, rows.values[:, None] * _entries(scorer.weights, rows.columns, rows_K)
    return None


def _entries(weights: FloatArray | SparseRows, items_H: IntArray, rows_K: IntArray) -> DoubleArray:
    """(H, K) of W; 0 where a sparse W has no entry."""
    if not isinstance(weights, SparseRows):
        return weights[items_H[:, None], rows_K[None, :]].astype(np.float64)
    entries_HK = np.zeros((len(items_H), len(rows_K)))
    for h, item in enumerate(items_H):
        stored = slice(int(weights.offsets[item]), int(weights.offsets[item + 1]))
        columns_N = weights.columns[stored]
        order_N = np.argsort(columns_N, kind="stable")
        places_K = np.searchsorted(columns_N, rows_K, sorter=order_N)
        places_K = order_N[np.minimum(places_K, len(columns_N) - 1)] if len(columns_N) else places_K
        hits_K = columns_N[places_K] == rows_K if len(columns_N) else np.zeros(len(rows_K), np.bool_)
        entries_HK[h, hits_K] = weights.values[stored][places_K[hits_K]]
    return entries_HK


def _with_cold_columns(
    scorer: ColdItemScorer, histories: Histories, rows_K: IntArray
) -> tuple[IntArray, DoubleArray] | None:
    """The scorer inside explains its own items; cold items of history x W have columns by their content."""
    found = contributions(scorer.base, histories, rows_K)
    if found is None or scorer.queries_IK is None:
        return found
    assert isinstance(scorer.base, LinearScorer) and scorer.vectors_CK is not None
    items_H, values_HK = found
    weights_H = history_rows(histories, scorer.num_items, scorer.base.weighting).values
    queries_HK = weights_H[:, None].astype(np.float64) * scorer.queries_IK[items_H]
    places_K = np.searchsorted(scorer.cold_C, rows_K)
    for k, place in enumerate(places_K):
        if place < len(scorer.cold_C) and scorer.cold_C[place] == rows_K[k]:
            values_HK[:, k] = queries_HK @ scorer.vectors_CK[place]
    return items_H, values_HK


def _fold_in_differences(scorer: FactorScorer, histories: Histories, rows_K: IntArray) -> tuple[IntArray, DoubleArray]:
    """Score with, less score without each item, of the query that the history alone gives.

    Without item h the ridge is that of a shorter history, for all h the same. With A the normal matrix under that
    ridge, x = A^-1 b and z = A^-1 y_h, the query without h is x - z w_h (t_h - y_h x) / (1 - w_h y_h z).
    """
    rows = history_rows(histories, scorer.num_items, scorer.fold_in.weighting)
    keep_H = scorer.scorable_I[rows.columns] & (rows.values > 0)
    items_H, weights_H = rows.columns[keep_H], rows.values[keep_H].astype(np.float64)
    if not len(items_H):
        return items_H, np.zeros((0, len(rows_K)))
    targets_H = _targets(scorer, histories)[keep_H]
    vectors_HD = scorer.items_ID[items_H].astype(np.float64)
    weighted_HD = weights_H[:, None] * vectors_HD
    gram_DD, right_D = vectors_HD.T @ weighted_HD, weighted_HD.T @ targets_H
    query_D = np.linalg.solve(gram_DD + _penalty(scorer, len(items_H)), right_D)
    if len(items_H) == 1:
        differences_HD = query_D[None, :]  # without its only item a history asks for nothing
    else:
        shorter_DD = gram_DD + _penalty(scorer, len(items_H) - 1)
        solved = np.linalg.solve(shorter_DD, np.column_stack([right_D, vectors_HD.T]))
        fitted_D, inverse_HD = solved[:, 0], solved[:, 1:].T
        leverage_H = np.einsum("hd,hd->h", weighted_HD, inverse_HD)
        residuals_H = weights_H * (targets_H - vectors_HD @ fitted_D) / (1.0 - leverage_H)
        differences_HD = query_D - (fitted_D - residuals_H[:, None] * inverse_HD)
    return items_H, np.asarray(differences_HD @ scorer.items_ID[rows_K].T.astype(np.float64), np.float64)


def _penalty(scorer: FactorScorer, num_events: int) -> DoubleArray:
    fold_in = scorer.fold_in
    ridge = fold_in.regularization * (num_events + fold_in.frequency_offset) ** fold_in.frequency_power
    return np.diag(scorer.penalty_D.astype(np.float64) + ridge)


def _targets(scorer: FactorScorer, histories: Histories) -> DoubleArray:
    """(H,) what the query should score on each distinct item."""
    ratings = history_rows(histories, scorer.num_items, "rating")
    if scorer.fold_in.targets == "ones":
        return np.ones(len(ratings.columns))
    repeats_H = np.bincount(histories.items_E, minlength=scorer.num_items)[ratings.columns]
    bias_H = 0.0 if scorer.bias_I is None else scorer.bias_I[ratings.columns]
    return np.asarray(ratings.values / repeats_H - bias_H, np.float64)


def _likeness(bundle: Bundle, items_H: IntArray, rows_K: IntArray) -> DoubleArray:
    """(H, K) cosines of item vectors, else what the model calls similar; nothing for a model that compares no items."""
    factors = bundle.item_factors()
    if factors is None:
        similar_KI = bundle.scorer.similar(rows_K)
        return np.where(np.isfinite(similar_KI), similar_KI, 0.0)[:, items_H].T.astype(np.float64)
    left_HD, right_KD = factors.items_ID[items_H].astype(np.float64), factors.items_ID[rows_K].astype(np.float64)
    lengths_HK = np.linalg.norm(left_HD, axis=1)[:, None] * np.linalg.norm(right_KD, axis=1)
    return np.asarray(left_HD @ right_KD.T / np.where(lengths_HK > 0, lengths_HK, 1.0), np.float64)
