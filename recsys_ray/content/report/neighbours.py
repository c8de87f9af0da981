"""Exact nearest neighbours by cosine, and random partners to compare them with.

Shape suffixes: P items with a vector, Q queries (row numbers among the P), K neighbours, D dimension.
"""

from __future__ import annotations

import numpy as np

from recsys_ray.base.types import FloatArray, LongArray

BLOCK_NUMBERS = 8_000_000
"""Numbers a block may hold at once; a search needs about 12 bytes for each."""


def nearest(vectors_PD: FloatArray, queries_Q: LongArray, k: int) -> tuple[LongArray, FloatArray]:
    """((Q, K) rows, (Q, K) cosines) of the k nearest others of each query, nearest first, ties by row.

    The vectors are L2-normalised. Takes Q x P x D multiplications, in blocks of bounded memory.
    """
    num_items = len(vectors_PD)
    assert 0 < k < num_items
    rows_QK = np.empty((len(queries_Q), k), np.int64)
    cosines_QK = np.empty((len(queries_Q), k), np.float32)
    step = max(1, BLOCK_NUMBERS // num_items)
    for start in range(0, len(queries_Q), step):
        queries = queries_Q[start : start + step]
        scores = vectors_PD[queries] @ vectors_PD.T
        scores[np.arange(len(queries)), queries] = -np.inf
        found = np.sort(np.argpartition(scores, num_items - k, axis=1)[:, num_items - k :], axis=1)
        values = np.take_along_axis(scores, found, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        rows_QK[start : start + step] = np.take_along_axis(found, order, axis=1)
        cosines_QK[start : start + step] = np.take_along_axis(values, order, axis=1)
    return rows_QK, cosines_QK


def random_others(rng: np.random.Generator, queries_Q: LongArray, num_items: int, k: int) -> LongArray:
    """(Q, K) rows drawn evenly, with repeats, from all items but the query itself."""
    others_QK = rng.integers(0, num_items - 1, (len(queries_Q), k))
    return np.asarray(others_QK + (others_QK >= queries_Q[:, None]), np.int64)


def cosines(vectors_PD: FloatArray, queries_Q: LongArray, others_QK: LongArray) -> FloatArray:
    """(Q, K) cosines of each query with its row of others."""
    result_QK = np.empty(others_QK.shape, np.float32)
    step = max(1, BLOCK_NUMBERS // (others_QK.shape[1] * vectors_PD.shape[1]))
    for start in range(0, len(queries_Q), step):
        block = slice(start, start + step)
        result_QK[block] = np.einsum("qd,qkd->qk", vectors_PD[queries_Q[block]], vectors_PD[others_QK[block]])
    return result_QK
