"""Ranked lists, what an index is, the checks every search shares, and the ranking of finished score blocks.

E are the hidden items of all rows end to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import BoolArray, FloatArray, IntArray, ItemLists
from recsys_ray.retrieval.exact.ranking import rank_rows, sort_lists
from recsys_ray.retrieval.exact.threads import run_blocks

NO_ITEM = -1
ROWS_PER_BLOCK = 256


@dataclass(frozen=True, slots=True)
class TopK:
    """B ranked lists, best first. Where fewer than K items qualify, a row ends with item -1 and score -inf."""

    rows_BK: IntArray
    scores_BK: FloatArray

    def __len__(self) -> int:
        return len(self.rows_BK)

    @classmethod
    def nothing(cls, num_rows: int, k: int) -> TopK:
        return cls(np.full((num_rows, k), NO_ITEM, np.int32), np.full((num_rows, k), -np.inf, np.float32))

    def padded(self, k: int) -> TopK:
        """The same lists with k >= K ranks."""
        if k == self.rows_BK.shape[1]:
            return self
        wide = TopK.nothing(len(self), k)
        wide.rows_BK[:, : self.rows_BK.shape[1]] = self.rows_BK
        wide.scores_BK[:, : self.rows_BK.shape[1]] = self.scores_BK
        return wide


@runtime_checkable
class Index(Protocol):
    """Finds the items with the largest inner product (plus bias) for each query."""

    @property
    def is_exact(self) -> bool:
        """Whether the lists are those of a full sort; if not, an index reports its recall against one that is."""
        ...

    def search(
        self, queries_BD: FloatArray, k: int, exclude: ItemLists | None = None, allowed_I: BoolArray | None = None
    ) -> TopK:
        """The k best items a query, without those excluded for it and those not allowed for anyone."""
        ...


def top_k_scores(
    scores_BI: FloatArray, k: int, exclude: ItemLists | None = None, allowed_I: BoolArray | None = None
) -> TopK:
    """The k best of each row of finished scores: score descending, then item row ascending.

    Args:
        scores_BI: float32; -inf means "no opinion" and is never returned.
        k: list length.
        exclude: B lists of item rows that must not be returned, in any order, repeats allowed.
        allowed_I: True where an item may be returned to anyone.

    Raises:
        ModelError: a score is NaN or +inf, the scores are not a float32 matrix, or shapes do not fit.
    """
    scores_BI = checked_matrix(scores_BI, "scores")
    num_rows, num_items = scores_BI.shape
    exclude, allowed_I = checked_filters(num_rows, num_items, k, exclude, allowed_I)
    found = TopK.nothing(num_rows, min(k, num_items))
    allowed_or_empty = np.zeros(0, np.bool_) if allowed_I is None else allowed_I
    everywhere_I = np.arange(num_items, dtype=np.int32)
    bits_BI = scores_BI.view(np.int32)

    def rank_block(keys: npt.NDArray[np.int64], start: int, stop: int) -> None:
        bad = rank_rows(
            scores_BI[start:stop],
            bits_BI[start:stop],
            exclude.offsets_B1[start : stop + 1],
            hidden_places(exclude, start, stop, everywhere_I),
            allowed_or_empty,
            keys,
            found.rows_BK[start:stop],
            found.scores_BK[start:stop],
        )
        if bad >= 0:
            raise ModelError(f"scores: row {start + bad} holds NaN or +inf; the model that scored it has diverged")

    if found.rows_BK.size:
        run_blocks(num_rows, ROWS_PER_BLOCK, lambda: np.empty(2 * k + 64, np.int64), rank_block)
    return found.padded(k)


def hidden_places(exclude: ItemLists, start: int, stop: int, place_I: IntArray) -> IntArray:
    """The lists of rows start:stop as ascending places, end to end; the offsets stay those of ``exclude``."""
    offsets = exclude.offsets_B1[start : stop + 1]
    places_E = np.empty(int(offsets[-1] - offsets[0]), np.int32)
    sort_lists(offsets, exclude.items_E, place_I, places_E)
    return places_E


def checked_matrix(values: FloatArray, what: str) -> FloatArray:
    """A two-dimensional float32 array, contiguous; its values are not looked at."""
    if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.ndim != 2:
        found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise ModelError(f"{what} must be a float32 matrix, found {found}")
    return np.ascontiguousarray(values)


def checked_finite(values: FloatArray, what: str) -> FloatArray:
    """``checked_matrix``, and every value finite."""
    values = checked_matrix(values, what)
    for start in range(0, len(values), 4096):
        finite = np.isfinite(values[start : start + 4096])
        if not finite.all():
            row = start + int(np.flatnonzero(~finite.all(axis=1))[0])
            raise ModelError(f"{what}: row {row} holds NaN or inf; the model that made it has diverged")
    return values


def checked_filters(
    num_rows: int, num_items: int, k: int, exclude: ItemLists | None, allowed_I: BoolArray | None
) -> tuple[ItemLists, BoolArray | None]:
    """The filters of a call, an absent ``exclude`` as empty lists, a mask that allows everything as None."""
    if k < 1:
        raise ModelError(f"k must be at least 1, found {k}")
    if exclude is None:
        exclude = ItemLists.empty(num_rows)
    if len(exclude) != num_rows:
        raise ModelError(f"exclude has {len(exclude)} lists for {num_rows} rows")
    items_E = exclude.items_E
    if len(items_E) and (items_E.min() < 0 or items_E.max() >= num_items):
        raise ModelError(f"exclude names item rows {items_E.min()} to {items_E.max()}; there are {num_items} items")
    if allowed_I is not None and (allowed_I.dtype != np.bool_ or allowed_I.shape != (num_items,)):
        raise ModelError(f"allowed must be {num_items} booleans, found {allowed_I.dtype} {allowed_I.shape}")
    if allowed_I is not None and allowed_I.all():
        allowed_I = None
    return exclude, allowed_I
