"""Scores of a small network over pairs: an inner product plus a perceptron whose first layer is already summed up.

A user is a row x = [p, a], an item a row y = [q, c]; with p, q of length D

    score = p . q + perceptron(relu(a + c))

LANES items are scored at a time, a lane each, by the same operations in the same order: a score does not change by a
bit with the pairs it is computed beside, nor with the number of threads.

K are the items of each row, J = D + the width of the first layer, T the LANES of a tile, E the weights of all layers
end to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_ray.base.kernels import njit, prange
from recsys_ray.base.types import FloatArray, IntArray
from recsys_ray.models.linalg.sparse import read_only, threads_for

LANES = 64  # items side by side: their hidden values stay in the first-level cache


@dataclass(frozen=True, slots=True)
class Perceptron:
    """The layers behind the first one.

    ``weights_E`` holds, layer by layer, a matrix (out, in) by rows and its bias (out), then the output's weights
    (widths[-1]) and its bias.
    """

    widths: tuple[int, ...]
    weights_E: FloatArray

    @property
    def work(self) -> int:
        """Multiply-adds of a pair."""
        return len(self.weights_E)


def score_block(queries_BJ: FloatArray, items_IJ: FloatArray, perceptron: Perceptron, out_BI: FloatArray) -> None:
    """``out[b, i]`` becomes the score of every pair."""
    columns = items_IJ.shape[1]
    with threads_for(out_BI.size * (columns + perceptron.work)):
        _score_block(*_arguments(queries_BJ, items_IJ, perceptron), out_BI)


def score_rows(
    queries_BJ: FloatArray, items_IJ: FloatArray, perceptron: Perceptron, rows_BK: IntArray, out_BK: FloatArray
) -> None:
    """``out[b, k]`` becomes the score of row b with item ``rows[b, k]``, which must be there."""
    columns = items_IJ.shape[1]
    with threads_for(out_BK.size * (columns + perceptron.work)):
        _score_rows(*_arguments(queries_BJ, items_IJ, perceptron), *read_only(rows_BK), out_BK)


def _arguments(queries_BJ: FloatArray, items_IJ: FloatArray, perceptron: Perceptron) -> Any:
    widths = np.array(perceptron.widths, np.int64)
    return read_only(np.ascontiguousarray(queries_BJ), items_IJ, widths, perceptron.weights_E)


@njit(cache=True, parallel=True)
def _score_block(queries_BJ, items_IJ, widths, weights_E, out_BI) -> None:  # type: ignore[no-untyped-def]
    num_items, columns = items_IJ.shape
    for tile in prange((num_items + LANES - 1) // LANES):
        start = tile * LANES
        count = min(LANES, num_items - start)
        tile_JT = np.zeros((columns, LANES), np.float32)
        for lane in range(count):
            for column in range(columns):
                tile_JT[column, lane] = items_IJ[start + lane, column]
        hidden, scores_T = np.empty((2, widths.max(), LANES), np.float32), np.empty(LANES, np.float32)
        for b in range(len(queries_BJ)):
            _score_tile(queries_BJ[b], tile_JT, widths, weights_E, hidden, scores_T)
            for lane in range(count):
                out_BI[b, start + lane] = scores_T[lane]


@njit(cache=True, parallel=True)
def _score_rows(queries_BJ, items_IJ, widths, weights_E, rows_BK, out_BK) -> None:  # type: ignore[no-untyped-def]
    columns, listed = items_IJ.shape[1], rows_BK.shape[1]
    for b in prange(len(queries_BJ)):
        tile_JT = np.zeros((columns, LANES), np.float32)
        hidden, scores_T = np.empty((2, widths.max(), LANES), np.float32), np.empty(LANES, np.float32)
        for start in range(0, listed, LANES):
            count = min(LANES, listed - start)
            for lane in range(count):
                for column in range(columns):
                    tile_JT[column, lane] = items_IJ[rows_BK[b, start + lane], column]
            _score_tile(queries_BJ[b], tile_JT, widths, weights_E, hidden, scores_T)
            for lane in range(count):
                out_BK[b, start + lane] = scores_T[lane]


@njit(cache=True)
def _score_tile(query_J, tile_JT, widths, weights_E, hidden, scores_T) -> None:  # type: ignore[no-untyped-def]
    dim = len(query_J) - widths[0]
    scores_T[:] = weights_E[-1]
    _add_rows(query_J[:dim], tile_JT, scores_T)
    for column in range(widths[0]):
        hidden[0, column] = tile_JT[dim + column]
        _rectify(hidden[0, column], query_J[dim + column])
    place, side = 0, 0
    for layer in range(len(widths) - 1):
        width, before = widths[layer + 1], widths[layer]
        biases = place + width * before
        for unit in range(width):
            units_T = hidden[1 - side, unit]
            units_T[:] = 0
            _add_rows(weights_E[place + unit * before : place + (unit + 1) * before], hidden[side], units_T)
            _rectify(units_T, weights_E[biases + unit])
        place = biases + width
        side = 1 - side
    _add_rows(weights_E[place : place + widths[-1]], hidden[side], scores_T)


@njit(cache=True)
def _add_rows(weights, rows_T, sums_T) -> None:  # type: ignore[no-untyped-def]
    """``sums += weights @ rows``."""
    for column in range(len(weights)):
        weight = weights[column]
        for lane in range(LANES):
            sums_T[lane] += weight * rows_T[column, lane]


@njit(cache=True)
def _rectify(values_T, bias) -> None:  # type: ignore[no-untyped-def]
    """``values = relu(values + bias)``."""
    for lane in range(LANES):
        values_T[lane] = max(values_T[lane] + bias, np.float32(0.0))
