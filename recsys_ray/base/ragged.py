"""Ragged lists joined and taken apart without a loop. Shape suffixes: B lists, E entries end to end."""

from __future__ import annotations

import numpy as np

from recsys_ray.base.types import BoolArray, ItemLists, LongArray


def offsets(lengths_B: LongArray | BoolArray) -> LongArray:
    """(B + 1,) where each list begins, and the end of the last."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_B, dtype=np.int64)])


def rows_of(lists: ItemLists, rows: LongArray) -> ItemLists:
    """The lists of these rows, in their order."""
    lengths = lists.lengths_B[rows]
    return ItemLists(offsets(lengths), lists.items_E[positions(lists.offsets_B1[rows], lengths)])


def joined(first: ItemLists, second: ItemLists) -> ItemLists:
    """Row by row, the items of both."""
    starts_B1 = first.offsets_B1 + second.offsets_B1
    items_E = np.empty(int(starts_B1[-1]), np.int32)
    items_E[positions(starts_B1[:-1], first.lengths_B)] = first.items_E
    items_E[positions(starts_B1[:-1] + first.lengths_B, second.lengths_B)] = second.items_E
    return ItemLists(starts_B1, items_E)


def positions(starts: LongArray, lengths: LongArray) -> LongArray:
    """Concatenated ranges start:start + length."""
    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    found: LongArray = np.arange(total, dtype=np.int64) + np.repeat(starts - before, lengths)
    return found
