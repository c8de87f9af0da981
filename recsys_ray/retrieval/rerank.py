"""The last stage of a list: maximal marginal relevance and category caps over ranked candidates.

    value(i) = (1 - diversity) relevance(i) - diversity max over listed j of similarity(i, j)

Items are listed one by one, each time the one of the largest value (Carbonell & Goldstein 1998). Relevance is the score
brought to 0..1 between the worst and the best candidate of the user, similarity the cosine of genre sets or of item
vectors, where what points apart counts as nothing alike. So nothing becomes more valuable while a list grows, and the
values never rise with the rank.

Time: n * pool similarities a user. K are candidates, L ranks of the list that is picked, J items listed before, E the
genres of all items end to end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from recsys_ray.base.types import BoolArray, DoubleArray, FloatArray, IntArray, ItemLists, LongArray
from recsys_ray.retrieval.config import RerankSettings
from recsys_ray.retrieval.exact.ranking import compiled, rank_key
from recsys_ray.retrieval.exact.scan import exact_dot
from recsys_ray.retrieval.exact.threads import run_blocks
from recsys_ray.retrieval.topk import TopK

ROWS_PER_BLOCK = 64


class _Catalogue(NamedTuple):
    """What the kernel knows of the items; ``lengths_I`` is empty where genres make the likeness."""

    vectors_ID: FloatArray
    lengths_I: DoubleArray
    offsets_I1: LongArray
    genres_E: IntArray
    num_genres: int


@dataclass(frozen=True, slots=True)
class Reranker:
    """Picks lists from candidates by ``settings``.

    Args:
        genres: of every item, as ascending numbers; an item without genres is like nothing and under no cap.
        vectors_ID: item vectors, for similarity "vectors".
    """

    settings: RerankSettings
    genres: ItemLists
    vectors_ID: FloatArray | None = None
    _catalogue: _Catalogue = field(init=False, repr=False)

    def __post_init__(self) -> None:
        given = self.settings.similarity == "vectors"
        assert not given or self.vectors_ID is not None
        vectors_ID = self.vectors_ID if given and self.vectors_ID is not None else np.zeros((0, 0), np.float32)
        lengths_I = np.sqrt(np.einsum("id,id->i", vectors_ID, vectors_ID, dtype=np.float64))
        num_genres = int(self.genres.items_E.max(initial=-1)) + 1
        catalogue = _Catalogue(vectors_ID, lengths_I, self.genres.offsets_B1, self.genres.items_E, num_genres)
        object.__setattr__(self, "_catalogue", catalogue)

    def pick(self, candidates: TopK, n: int) -> TopK:
        """n of the candidates, with their value as score; with diversity 0 the score they came with."""
        relevance_BK = candidates.scores_BK
        if self.settings.diversity > 0:
            relevance_BK = _between_0_and_1(candidates) * np.float32(1 - self.settings.diversity)
        nothing = np.zeros((len(candidates), 0), np.int32)
        return self._picked(candidates.rows_BK, relevance_BK, nothing, n, self.settings.diversity)

    def within_caps(self, candidates: TopK, listed_BJ: IntArray, n: int) -> TopK:
        """The first n candidates, in their order, that the caps leave room for below the items listed (-1: none)."""
        return self._picked(candidates.rows_BK, candidates.scores_BK, listed_BJ, n, 0.0)

    def _picked(
        self, rows_BK: IntArray, relevance_BK: FloatArray, listed_BJ: IntArray, n: int, diversity: float
    ) -> TopK:
        found = TopK.nothing(len(rows_BK), n)
        cap = self.settings.max_per_genre or 0

        def pick_block(scratch: None, start: int, stop: int) -> None:
            _pick_rows(
                rows_BK[start:stop],
                relevance_BK[start:stop],
                listed_BJ[start:stop],
                np.float32(diversity),
                cap,
                self._catalogue,
                found.rows_BK[start:stop],
                found.scores_BK[start:stop],
            )

        run_blocks(len(rows_BK), ROWS_PER_BLOCK, lambda: None, pick_block)
        return found


def _between_0_and_1(candidates: TopK) -> FloatArray:
    """(B, K) the scores of each row, brought to 1 at its best and 0 at its worst candidate; all 1 where they agree."""
    present_BK = candidates.rows_BK >= 0
    scores_BK = np.where(present_BK, candidates.scores_BK, 0).astype(np.float64)
    # Over what is there in each row; a row without candidates has best -inf and worst inf.
    best_B = np.where(present_BK, scores_BK, -np.inf).max(axis=1, initial=-np.inf)
    worst_B = np.where(present_BK, scores_BK, np.inf).min(axis=1, initial=np.inf)
    # Rows whose candidates agree, or that have none, count from one below: so all of theirs come to 1.
    spread_B = np.where(best_B > worst_B, best_B - worst_B, 1.0)
    worst_B = np.where(best_B > worst_B, worst_B, best_B - 1.0)
    relevance_BK = np.where(present_BK, (scores_BK - worst_B[:, None]) / spread_B[:, None], 0.0)
    return relevance_BK.astype(np.float32)


@compiled
def _shared_genres(first: int, second: int, offsets_I1: LongArray, genres_E: IntArray) -> float:
    """The cosine of two genre sets: shared / sqrt(size * size)."""
    i, j, shared = offsets_I1[first], offsets_I1[second], 0
    end_i, end_j = offsets_I1[first + 1], offsets_I1[second + 1]
    sizes = float((end_i - i) * (end_j - j))
    while i < end_i and j < end_j:
        if genres_E[i] == genres_E[j]:
            shared += 1
            i += 1
            j += 1
        elif genres_E[i] < genres_E[j]:
            i += 1
        else:
            j += 1
    return shared / sizes**0.5 if shared else 0.0


@compiled
def _similarity(first: int, second: int, items: Any) -> Any:
    """In -1..1; below 0 only for vectors that point apart, which ``_lower_values`` counts as nothing alike."""
    if len(items.lengths_I) == 0:
        return np.float32(_shared_genres(first, second, items.offsets_I1, items.genres_E))
    lengths = items.lengths_I[first] * items.lengths_I[second]
    if not lengths > 0:
        return np.float32(0)
    return np.float32(exact_dot(items.vectors_ID[first], items.vectors_ID[second]) / lengths)


@compiled
def _most_listed(item: int, counts_G: LongArray, items: Any) -> int:
    """How often the most listed of an item's genres is listed."""
    most = 0
    for e in range(items.offsets_I1[item], items.offsets_I1[item + 1]):
        most = max(most, counts_G[items.genres_E[e]])
    return most


@compiled
def _count(item: int, counts_G: LongArray, items: Any) -> None:
    for e in range(items.offsets_I1[item], items.offsets_I1[item + 1]):
        counts_G[items.genres_E[e]] += 1


@compiled
def _close_full_genres(rows_K: IntArray, open_K: BoolArray, counts_G: LongArray, cap: int, items: Any) -> None:
    for c in range(len(rows_K)):
        if open_K[c]:
            open_K[c] = _most_listed(rows_K[c], counts_G, items) < cap


@compiled
def _best_open(rows_K: IntArray, values_K: FloatArray, open_K: BoolArray) -> int:
    """The place of the open candidate of the largest value, of equals the lower item row; -1 when none is open."""
    best, best_key = -1, np.int64(0)
    for c in range(len(rows_K)):
        if open_K[c]:
            key = rank_key(values_K[c], rows_K[c])
            if best < 0 or key < best_key:
                best, best_key = c, key
    return best


@compiled
def _lower_values(
    rows_K: IntArray,
    relevance_K: FloatArray,
    open_K: BoolArray,
    values_K: FloatArray,
    chosen: int,
    diversity: Any,
    items: Any,
) -> None:
    """What the open candidates are worth once ``chosen`` is listed too: never more than before, nor their relevance."""
    for c in range(len(rows_K)):
        if open_K[c]:
            value = relevance_K[c] - diversity * _similarity(rows_K[c], chosen, items)
            values_K[c] = min(values_K[c], value)


@compiled
def _pick_rows(
    rows_BK: IntArray,
    relevance_BK: FloatArray,
    listed_BJ: IntArray,
    diversity: Any,
    cap: int,
    items: Any,
    out_rows_BL: IntArray,
    out_values_BL: FloatArray,
) -> None:
    """Fill the rows of ``out``; ``relevance_BK`` is weighted already, and a ``cap`` of 0 is none."""
    counts_G = np.zeros(items.num_genres, np.int64)
    for row in range(len(rows_BK)):
        # One user: K candidates, what each is worth now, whether it may still be picked; G genres, how often listed.
        rows_K, relevance_K, values_K = rows_BK[row], relevance_BK[row], relevance_BK[row].copy()
        open_K = rows_K >= 0
        counts_G[:] = 0
        for listed in listed_BJ[row]:
            if listed >= 0:
                _count(listed, counts_G, items)
        for place in range(out_rows_BL.shape[1]):
            if cap > 0:
                _close_full_genres(rows_K, open_K, counts_G, cap, items)
            best = _best_open(rows_K, values_K, open_K)
            if best < 0:
                break
            chosen = rows_K[best]
            out_rows_BL[row, place], out_values_BL[row, place] = chosen, values_K[best]
            open_K[best] = False
            _count(chosen, counts_G, items)
            if diversity > 0:
                _lower_values(rows_K, relevance_K, open_K, values_K, chosen, diversity, items)
