"""Why an item is in a list: the items of the history that speak for it, with their ratings and shares.

    contribution   how much lower the model's score of the item would be had the user never touched the other one
    likeness       the cosine of the two items' vectors, over the items the user liked; for models whose scores don't
                   come apart into items
    genres         nothing of that kind speaks for the item; it shares genres with what the user liked
    popularity     how many have it: for rows of the fallback of this name, and where nothing else is known

Rows of another fallback are explained by the model that filled them in.

Contributions are exact; each scorer that has them says how it takes them. Only items the user liked are cited, and none
whose share would be printed as 0 %. With a ranker it is the model that retrieved the item which is explained.

K are the items to explain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.types import (
    Contributes,
    DoubleArray,
    FloatArray,
    Histories,
    IntArray,
    Requests,
    Scorer,
    by_inner_product,
)
from recsys_ray.models.scorers.base import HasMembers
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.config import GENRES

Sources = npt.NDArray[np.int8]
Kind = Literal["contribution", "likeness", "genres", "popularity"]

MOST_CITED = 3
MOST_GENRES = 3
LEAST_SHARE = 0.005
"""Of what speaks for an item: less would be printed as 0 %."""


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
    members: tuple[tuple[str, float], ...] = ()
    """Of a blend: the members that speak for the item, each with its part of what they add; the strongest first."""

    def __str__(self) -> str:
        return template(self)


Render = Callable[[Reason], str]


@dataclass(frozen=True, slots=True)
class _History:
    """One user's distinct items."""

    items_H: IntArray
    ratings_H: FloatArray
    liked_H: npt.NDArray[np.bool_]
    """Rated no lower than the user's mean, nor than the middle of a scale of liking."""
    is_rated: bool


@dataclass(frozen=True, slots=True)
class _Names:
    item_ids: pa.Array
    titles: pa.ChunkedArray | None


def explain(
    bundle: Bundle, requests: Requests, rows_BK: IntArray, sources_BK: Sources | None = None
) -> list[list[Reason]]:
    """For every request the reasons of its items, in order, those that are -1 left out.

    Args:
        rows_BK: item rows. sources_BK: who listed each, as places in ``bundle.sources``; None: the model, all of them.
    """
    names = _Names(bundle.item_ids, bundle.items.column("title") if "title" in bundle.items.schema.names else None)
    reasons = []
    for b in range(len(requests)):
        there_K = rows_BK[b] >= 0
        rows_K = rows_BK[b][there_K]
        sources_K = np.zeros(len(rows_K), np.int8) if sources_BK is None else sources_BK[b][there_K]
        request = requests.slice(b, b + 1)
        history = _history_of(request.histories, bundle.rating_middle)
        of_request: dict[int, Reason] = {}
        for source in np.unique(sources_K).tolist():  # each by the scorer that listed it
            places = np.flatnonzero(sources_K == source)
            by_genres = bundle.sources[source] == f"{schema.FALLBACK}{GENRES}"
            found = _explained(bundle, _scorer_of(bundle, source), by_genres, request, history, names, rows_K[places])
            of_request |= dict(zip(places.tolist(), found, strict=True))
        reasons.append([of_request[k] for k in range(len(rows_K))])
    return reasons


def _scorer_of(bundle: Bundle, source: int) -> Scorer | None:
    """Who listed rows of this source; None where it was no model."""
    if source == 0:
        return bundle.scorer
    return bundle.fallbacks.get(bundle.sources[source].removeprefix(schema.FALLBACK))


def _explained(
    bundle: Bundle,
    scorer: Scorer | None,
    by_genres: bool,
    request: Requests,
    history: _History,
    names: _Names,
    rows_K: IntArray,
) -> list[Reason]:
    """The reasons of items that one scorer listed, or, without one, popularity or the genres of what was liked."""
    kind: Kind = "popularity"
    items_H, values_HK = history.items_H[:0], np.zeros((0, len(rows_K)))
    if scorer is not None and scorer.personal:
        kind, items_H, values_HK = _support(scorer, request.histories, history, rows_K)
    speaks = by_genres or (scorer is not None and scorer.personal)
    members = _member_shares(scorer, request, rows_K)
    reasons = []
    for k, row in enumerate(rows_K.tolist()):
        values_H = np.where(items_H == row, 0.0, np.maximum(values_HK[:, k], 0.0))
        cited = _cited(names, history, items_H, values_H)
        reasons.append(_reason(bundle, history, row, kind, cited, members[k], speaks))
    return reasons


def _member_shares(scorer: Scorer | None, request: Requests, rows_K: IntArray) -> list[tuple[tuple[str, float], ...]]:
    """Of each item: who of the members of the scorer speaks for it and how much of all that, the strongest first."""
    if not isinstance(scorer, HasMembers):
        return [()] * len(rows_K)
    names = list(scorer.members)
    parts_MK = np.maximum(scorer.shares(request, rows_K[None, :])[:, 0, :].astype(np.float64), 0)
    shares_MK = parts_MK / np.maximum(parts_MK.sum(axis=0), np.finfo(np.float64).tiny)
    order_MK = np.argsort(-shares_MK, axis=0, kind="stable")
    return [
        tuple((names[m], float(shares_MK[m, k])) for m in order_MK[:, k] if shares_MK[m, k] > LEAST_SHARE)
        for k in range(len(rows_K))
    ]


def explain_texts(
    bundle: Bundle,
    requests: Requests,
    rows_BK: IntArray,
    sources_BK: Sources | None = None,
    render: Render | None = None,
) -> list[str]:
    """``explain`` as one text an item, all requests end to end; ``render`` defaults to ``template``."""
    reasons = explain(bundle, requests, rows_BK, sources_BK)
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
    chosen = [f"{name} ({share:.0%})" for name, share in reason.members]
    by_members = f" Chosen by {_listed(chosen)}." if len(chosen) > 1 else ""
    return f"{start} {_listed(names)}." + (f" Shared genres: {genres}." if genres else "") + by_members


def _listed(words: list[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if words[:-1] else []), words[-1]])


def _history_of(histories: Histories, middle: float | None) -> _History:
    items_H, last_H = np.unique(histories.items_E[::-1], return_index=True)
    ratings_H = histories.ratings_E[::-1][last_H]
    mean = float(ratings_H.mean(dtype=np.float64)) if len(ratings_H) else 0.0
    least = mean if middle is None else max(mean, middle)
    is_rated = bool((ratings_H != 1).any())
    return _History(items_H.astype(np.int32), ratings_H, ratings_H >= np.float32(least), is_rated)


def _cited(names: _Names, history: _History, items_H: IntArray, values_H: DoubleArray) -> tuple[Cited, ...]:
    """The liked items of the largest values, of equals the lower item rows; shares are of all that speaks for it."""
    total = float(values_H.sum())
    liked_H = history.liked_H[np.searchsorted(history.items_H, items_H)]
    order_H = np.lexsort((items_H, -values_H))
    order_H = order_H[liked_H[order_H] & (values_H[order_H] > LEAST_SHARE * total)][:MOST_CITED]
    cited = []
    for h in order_H:
        row = int(items_H[h])
        rating = float(history.ratings_H[np.searchsorted(history.items_H, row)])
        title = None if names.titles is None else names.titles[row].as_py()
        value = float(values_H[h])
        cited.append(Cited(row, names.item_ids[row].as_py(), title, rating, value, value / total))
    return tuple(cited)


def _reason(
    bundle: Bundle,
    history: _History,
    row: int,
    kind: Kind,
    cited: tuple[Cited, ...],
    members: tuple[tuple[str, float], ...],
    is_model: bool,
) -> Reason:
    share = min(1.0, float(bundle.item_shares_I[row]))
    like_I = [item.row for item in cited] if cited else history.items_H[history.liked_H].tolist()
    genres = _shared_genres(bundle, row, like_I) if is_model else ()
    if not cited:
        kind = "genres" if genres else "popularity"
    return Reason(row, kind, cited, genres, share, history.is_rated, members)


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
    scorer: Scorer, histories: Histories, history: _History, rows_K: IntArray
) -> tuple[Kind, IntArray, DoubleArray]:
    """(kind, (H,) item rows, (H, K) how much each speaks for each) for one request."""
    found = scorer.contributions(histories, rows_K) if isinstance(scorer, Contributes) else None
    if found is not None:
        return "contribution", *found
    liked_H = history.items_H[history.liked_H]
    return "likeness", liked_H, _likeness(scorer, liked_H, rows_K)


def _likeness(scorer: Scorer, items_H: IntArray, rows_K: IntArray) -> DoubleArray:
    """(H, K) cosines of item vectors, else what the model calls similar; nothing for a model that compares no items."""
    vectors = by_inner_product(scorer)
    items = None if vectors is None else vectors.items
    if items is None or not items.vectors_ID.shape[1]:
        similar_KI = scorer.similar(rows_K)
        return np.where(np.isfinite(similar_KI), similar_KI, 0.0)[:, items_H].T.astype(np.float64)
    left_HD, right_KD = (items.vectors_ID[rows].astype(np.float64) for rows in (items_H, rows_K))
    lengths_HK = np.linalg.norm(left_HD, axis=1)[:, None] * np.linalg.norm(right_KD, axis=1)
    return np.asarray(left_HD @ right_KD.T / np.where(lengths_HK > 0, lengths_HK, 1.0), np.float64)
