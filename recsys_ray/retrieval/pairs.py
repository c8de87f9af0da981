"""Scores of single pairs as exact search gives them: the inner product in float64 in one fixed order, plus the bias."""

from __future__ import annotations

import numpy as np

from recsys_ray.base.types import FloatArray, IntArray, ItemVectors
from recsys_ray.retrieval.exact.ranking import compiled
from recsys_ray.retrieval.exact.scan import exact_dot
from recsys_ray.retrieval.exact.threads import run_blocks

ROWS_PER_BLOCK = 64


def pair_scores(queries_BD: FloatArray, items: ItemVectors, rows_BK: IntArray) -> FloatArray:
    """(B, K) the score of each listed item for its row's query, -inf where the item is -1."""
    scores_BK = np.full(rows_BK.shape, -np.inf, np.float32)
    bias_I = np.zeros(0, np.float32) if items.bias_I is None else items.bias_I
    queries_BD = np.ascontiguousarray(queries_BD)
    items_ID = np.ascontiguousarray(items.vectors_ID)

    def score_block(scratch: None, start: int, stop: int) -> None:
        block = slice(start, stop)
        _score_rows(queries_BD[block], items_ID, bias_I, rows_BK[block], scores_BK[block])

    run_blocks(len(rows_BK), ROWS_PER_BLOCK, lambda: None, score_block)
    return scores_BK


@compiled
def _score_rows(
    queries_BD: FloatArray, items_ID: FloatArray, bias_I: FloatArray, rows_BK: IntArray, scores_BK: FloatArray
) -> None:
    for row in range(len(rows_BK)):
        for k in range(rows_BK.shape[1]):
            item = rows_BK[row, k]
            if item >= 0:
                bias = np.float64(bias_I[item]) if len(bias_I) else 0.0
                scores_BK[row, k] = np.float32(exact_dot(queries_BD[row], items_ID[item]) + bias)
