"""Exact nearest neighbours by cosine, and random partners to compare them with.

P are the items with a vector, R the queries: row numbers among the P.
"""

from __future__ import annotations

import numpy as np

from recsys_ray.base.types import FloatArray, LongArray

BLOCK_NUMBERS = 8_000_000
"""Numbers a block may hold at once; a search needs about 12 bytes for each."""


def nearest(vectors_PD: FloatArray, queries_R: LongArray, k: int) -> tuple[LongArray, FloatArray]:
    """((R, K) rows, (R, K) cosines) of the k nearest others of each query, nearest first, ties by row.

    The vectors are L2-normalised. Takes R x P x D multiplications, in blocks of bounded memory.
    """
    num_items = len(vectors_PD)
    assert 0 < k < num_items
    rows_RK = np.empty((len(queries_R), k), np.int64)
    cosines_RK = np.empty((len(queries_R), k), np.float32)
    step = max(1, BLOCK_NUMBERS // num_items)
    for start in range(0, len(queries_R), step):
        queries = queries_R[start : start + step]
        scores = vectors_PD[queries] @ vectors_PD.T
        scores[np.arange(len(queries)), queries] = -np.inf
        found = np.sort(np.argpartition(scores, num_items - k, axis=1)[:, num_items - k :], axis=1)
        values = np.take_along_axis(scores, found, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        rows_RK[start : start + step] = np.take_along_axis(found, order, axis=1)
        cosines_RK[start : start + step] = np.take_along_axis(values, order, axis=1)
    return rows_RK, cosines_RK


def random_others(rng: np.random.Generator, queries_R: LongArray, num_items: int, k: int) -> LongArray:
    """(R, K) rows drawn evenly, with repeats, from all items but the query itself."""
    others_RK = rng.integers(0, num_items - 1, (len(queries_R), k))
    return np.asarray(others_RK + (others_RK >= queries_R[:, None]), np.int64)


def cosines(vectors_PD: FloatArray, queries_R: LongArray, others_RK: LongArray) -> FloatArray:
    """(R, K) cosines of each query with its row of others."""
    result_RK = np.empty(others_RK.shape, np.float32)
    step = max(1, BLOCK_NUMBERS // (others_RK.shape[1] * vectors_PD.shape[1]))
    for start in range(0, len(queries_R), step):
        block = slice(start, start + step)
        result_RK[block] = np.einsum("qd,qkd->qk", vectors_PD[queries_R[block]], vectors_PD[others_RK[block]])
    return result_RK
