"""Names and genres of items, as a report needs them.

E are the genre labels of all items end to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from recsys_ray.base.types import BoolArray, IntArray, LongArray


@dataclass(frozen=True, slots=True)
class Named:
    """An item as a list shows it."""

    item_id: Any
    title: str
    genres: list[str]


@dataclass(frozen=True, slots=True)
class ItemLabels:
    """Names and genres of all I items."""

    item_ids: list[Any]
    titles: list[str]
    """The id where there is no title."""
    genres: pa.ListArray
    genre_names: list[str]
    """Sorted by the number of items, most first."""
    labels_IG: sp.csr_matrix
    """Non-zero where the item is of the genre."""
    first_I: IntArray
    """Number of the item's first genre; -1 without any."""

    @classmethod
    def of(cls, items: pa.Table) -> ItemLabels:
        genres = items.column("genres").combine_chunks()
        flat, rows = pc.list_flatten(genres), pc.list_parent_indices(genres)
        rows = rows.filter(pc.is_valid(flat)).to_numpy()
        encoded = flat.drop_null().dictionary_encode()
        order, columns = _by_frequency(encoded.indices.to_numpy(), len(encoded.dictionary))
        first_I = np.full(items.num_rows, -1, np.int32)
        first_I[rows[::-1]] = columns[::-1]
        item_ids = items.column("item_id").to_pylist()
        titles = items.column("title").to_pylist()
        return cls(
            item_ids,
            [str(item_id) if title is None else title for item_id, title in zip(item_ids, titles, strict=True)],
            genres,
            encoded.dictionary.take(pa.array(order)).to_pylist(),
            sp.csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape=(items.num_rows, len(order))),
            first_I,
        )

    def genres_of(self, row: int) -> list[str]:
        return [name for name in self.genres[row].as_py() or [] if name is not None]

    def named(self, row: int) -> Named:
        return Named(self.item_ids[row], self.titles[row], self.genres_of(row))

    def share_a_genre(self, rows_R: LongArray, others_RK: LongArray) -> BoolArray:
        """(R, K) whether the item and the other have a genre in common."""
        repeated = np.repeat(rows_R, others_RK.shape[1])
        common = self.labels_IG[repeated].multiply(self.labels_IG[others_RK.ravel()]).sum(axis=1)
        return np.asarray(common).reshape(others_RK.shape) > 0


def _by_frequency(numbers_E: IntArray, num_genres: int) -> tuple[LongArray, IntArray]:
    """(The genres with most labels first, the labels as positions in that order)."""
    order_G = np.argsort(-np.bincount(numbers_E, minlength=num_genres), kind="stable")
    position_G = np.empty(num_genres, np.int32)
    position_G[order_G] = np.arange(num_genres)
    return order_G, position_G[numbers_E]
