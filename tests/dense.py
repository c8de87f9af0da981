"""Small random worlds, and models as plain dense arrays, for the tests that work formulas out slowly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models.scorers.linear import LinearScorer

USERS, ITEMS = 60, 25


def random_data(seed: int = 0, users: int = USERS, items: int = ITEMS, density: float = 0.2) -> TrainData:
    """Random pairs with ratings 1 to 5; the last item has none and the last user neither."""
    rng = np.random.default_rng(seed)
    likes = rng.random((users, items)) < density * rng.uniform(0.2, 1.8, items)
    likes[:, -1] = likes[-1] = False
    lists = [np.flatnonzero(row).tolist() for row in likes]
    ratings = [rng.integers(1, 6, len(row)).astype(float).tolist() for row in lists]
    return TrainData(Histories.from_lists(lists, ratings), pa.table({"item_id": np.arange(items)}))


def dense(data: TrainData, ratings: bool = False) -> np.ndarray:
    histories = data.histories
    matrix = np.zeros((data.num_users, data.num_items))
    matrix[histories.rows_E, histories.items_E] = histories.ratings_E if ratings else 1.0
    return matrix


def ask(data: TrainData, known: bool = True) -> Requests:
    users = np.arange(data.num_users, dtype=np.int32) if known else np.full(data.num_users, -1, np.int32)
    return Requests(pa.array(range(data.num_users)), users, data.histories, ItemLists.empty(data.num_users))


def weights_of(scorer: LinearScorer) -> np.ndarray:
    """W as a dense array, from the scores of one-item histories; pairs without an entry are 0."""
    size = scorer.num_items
    each = Histories.from_lists([[item] for item in range(size)])
    scores = scorer.score(Requests(pa.array(range(size)), np.full(size, -1, np.int32), each, ItemLists.empty(size)))
    return np.where(np.isneginf(scores), 0, scores)


def in_pieces(count: int) -> FitContext:
    """Blocks worked on one by one, in reverse order and handed back in the right one, as other machines might."""

    def map_blocks(
        fn: Callable[[Any, Any], Any], blocks: Iterable[Any], shared: Any = None, label: str | None = None
    ) -> Iterator[Any]:
        return reversed([fn(block, shared) for block in reversed(list(blocks))])

    return FitContext(map_blocks=map_blocks, num_blocks=count)
