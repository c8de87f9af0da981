"""Held-out events inside a fit, for early stopping: taken from the training histories, never from the run's own parts.

B are the watched users.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys_ray.base.types import FloatArray, Histories, IntArray, ItemLists, LongArray
from recsys_ray.evaluation import metrics

TOP = 20
HELD_SHARE = 0.2  # of a watched user's events, unless only the last is held out
MAX_WATCHED = 20_000  # users: enough to tell settings apart, and ranked in a second or two


def hold_out(
    histories: Histories, share: float, rng: np.random.Generator, *, last: bool, newest: bool = False
) -> tuple[Histories, ItemLists | None]:
    """Histories without what is held out, and that as targets for all users (most lists are empty).

    ``share`` of the users with at least three events are watched. ``last`` holds out the last event of each, for models
    of order; otherwise a fifth of their events, at random or with ``newest`` those, at least one. None where nobody can
    be watched.
    """
    lengths_U = histories.lengths_B
    able_U = np.flatnonzero(lengths_U >= 3)
    count = min(round(share * len(able_U)), MAX_WATCHED)
    if count == 0:
        return histories, None
    watched_U = np.sort(rng.choice(able_U, count, replace=False))
    held_E = np.zeros(histories.num_interactions, np.bool_)
    for user in watched_U:
        row = histories.span(int(user))
        if last:
            held_E[row.stop - 1] = True
        else:
            size = max(1, int(HELD_SHARE * (row.stop - row.start)))
            if newest:
                held_E[row.stop - size : row.stop] = True
                continue
            held_E[row.start + rng.choice(row.stop - row.start, size, replace=False)] = True
    held, left = histories.split(held_E)
    return left, ItemLists(held.offsets_B1, held.items_E)


def ranking_quality(queries_UD: FloatArray, items_ID: FloatArray, histories: Histories, held_out: ItemLists) -> float:
    """``lists_quality`` of inner products."""
    from recsys_ray.retrieval import ExactIndex

    index = ExactIndex(np.ascontiguousarray(items_ID))
    return lists_quality(
        lambda users, k, exclude: index.search(np.ascontiguousarray(queries_UD[users]), k, exclude).rows_BK,
        histories,
        held_out,
    )


def lists_quality(
    best: Callable[[LongArray, int, ItemLists], IntArray], histories: Histories, held_out: ItemLists
) -> float:
    """Mean NDCG@20 over the users with targets, all items ranked, those of the history left out.

    ``best(users_B, K, exclude)`` gives the (B, K) best items of each user without those excluded.
    """
    users = np.flatnonzero(held_out.lengths_B > 0)
    exclude = ItemLists.from_lists([histories.items_E[histories.span(int(user))].tolist() for user in users])
    targets = [np.unique(held_out.row(int(user))) for user in users]
    rows_BK = best(users, TOP, exclude)
    hits_BK = np.stack([np.isin(rows_BK[row], targets[row]) for row in range(len(users))])
    lengths_B = np.array([len(row) for row in targets], np.int64)
    return float(metrics.ndcg(hits_BK, lengths_B, TOP).mean())
