"""What is computed once per catalogue before a scan: items rounded, ordered by length, with the bounds of each tail.

P are the positions of a scan: the allowed items, longest first. J are its columns: D, then the bias in as many
pieces as it takes to be exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_ray.base.types import BoolArray, DoubleArray, FloatArray, IntArray
from recsys_ray.retrieval.exact.lanes import LANES
from recsys_ray.retrieval.exact.product import BitsArray
from recsys_ray.retrieval.exact.scan import Lengths, Precision, Span, round_rows

BFLOAT16_UNIT = 2.0**-8
SUM_UNIT = 2.0**-23  # twice the unit of float32, so that chopping instead of rounding is covered too


def scan_precision(name: str, num_columns: int) -> Precision:
    """The rounding of a scan whose inner products have ``num_columns`` terms; ``name`` is "float32" or "bfloat16"."""
    gamma = num_columns * SUM_UNIT / (1.0 - num_columns * SUM_UNIT)
    if name == "bfloat16":
        return Precision(16, gamma, BFLOAT16_UNIT)
    return Precision(0, gamma, 0.0)


def measured(values_RD: FloatArray, num_columns: int, precision: Precision) -> tuple[BitsArray, Lengths, int]:
    """(bits_RJ, lengths, first row that is not finite or -1): vectors as the scan stores them, further columns 0."""
    rows = len(values_RD)
    bits_RJ = np.zeros((rows, num_columns), np.int16 if precision.shift else np.int32)
    lengths = Lengths(np.empty(rows), np.empty(rows), np.empty(rows))
    return bits_RJ, lengths, int(round_rows(values_RD, bits_RJ, precision.shift, lengths))


def bias_pieces(bias_I: FloatArray, precision: Precision) -> list[BitsArray]:
    """The bias as stored numbers that add up to it exactly: one float32, or three bfloat16 (3 x 8 >= 24 bits)."""
    if not precision.shift:
        return [bias_I.view(np.int32)]
    pieces: list[BitsArray] = []
    rest = bias_I.copy()
    for _ in range(3):
        piece = rest.view(np.uint32) & np.uint32(0xFFFF0000)
        pieces.append((piece >> np.uint32(16)).astype(np.uint16).view(np.int16))
        rest = rest - piece.view(np.float32)
    return pieces


@dataclass(frozen=True, slots=True)
class PreparedItems:
    """The allowed items in scan order. Position p is item ``order_P[p]``; the tails are maxima over p and behind."""

    precision: Precision
    num_columns: int
    order_P: IntArray
    place_I: IntArray
    """Item row to position, -1 where not allowed."""
    matrix_PJ: BitsArray
    """The stored bits; padded with zero rows to a multiple of LANES."""
    tail_length_P: DoubleArray
    tail_lost_P: DoubleArray
    tail_bias_size_P: DoubleArray
    tail_bias_P: DoubleArray

    @property
    def num_positions(self) -> int:
        return len(self.order_P)

    def span(self, start: int, width: int) -> Span:
        """The tile of up to ``width`` (a multiple of LANES) scores that begins at ``start``."""
        width = min(width, len(self.matrix_PJ) - start)
        return Span(
            start,
            min(start + width, self.num_positions),
            width,
            self.tail_length_P[start],
            self.tail_lost_P[start],
            self.tail_bias_size_P[start],
            self.tail_bias_P[start],
        )

    def limited_to(self, allowed_I: BoolArray) -> PreparedItems:
        """The same items without those that are not allowed; the tails stay valid, if a little wide."""
        kept_P = np.flatnonzero(allowed_I[self.order_P])
        bits_PJ = np.zeros((_padded(len(kept_P)), self.num_columns), _bits_dtype(self.precision))
        np.take(self.matrix_PJ, kept_P, axis=0, out=bits_PJ[: len(kept_P)])
        order_P = self.order_P[kept_P]
        tails = (self.tail_length_P, self.tail_lost_P, self.tail_bias_size_P, self.tail_bias_P)
        return PreparedItems(
            self.precision,
            self.num_columns,
            order_P,
            places(order_P, len(self.place_I)),
            bits_PJ,
            *(tail[kept_P] for tail in tails),
        )


def prepare_items(items_ID: FloatArray, bias_I: FloatArray | None, name: str) -> PreparedItems:
    """Round, measure and order a finite catalogue; bias None when there is none. Memory: one rounded copy of it."""
    num_items, dim = items_ID.shape
    pieces = 0 if bias_I is None else (3 if name == "bfloat16" else 1)
    precision = scan_precision(name, dim + pieces)
    bits_IJ, lengths, _ = measured(items_ID, dim + pieces, precision)
    if bias_I is not None:
        for piece, column_I in enumerate(bias_pieces(bias_I, precision)):
            bits_IJ[:, dim + piece] = column_I
    order_P = np.argsort(-lengths.given_R, kind="stable").astype(np.int32)
    bits_PJ = np.zeros((_padded(num_items), dim + pieces), _bits_dtype(precision))
    np.take(bits_IJ, order_P, axis=0, out=bits_PJ[:num_items])
    bias_P = np.zeros(num_items) if bias_I is None else bias_I[order_P].astype(np.float64)
    return PreparedItems(
        precision,
        dim + pieces,
        order_P,
        places(order_P, num_items),
        bits_PJ,
        lengths.given_R[order_P],
        _tail_maximum(lengths.lost_R[order_P]),
        _tail_maximum(np.abs(bias_P)),
        _tail_maximum(bias_P),
    )


def places(rows_P: IntArray, num_items: int) -> IntArray:
    """(I,) where each item stands in ``rows_P``, -1 where it does not."""
    place_I = np.full(num_items, -1, np.int32)
    place_I[rows_P] = np.arange(len(rows_P), dtype=np.int32)
    return place_I


def _tail_maximum(values_P: DoubleArray) -> DoubleArray:
    return np.ascontiguousarray(np.maximum.accumulate(values_P[::-1])[::-1])


def _padded(count: int) -> int:
    return -(-count // LANES) * LANES


def _bits_dtype(precision: Precision) -> type[np.int16] | type[np.int32]:
    return np.int16 if precision.shift else np.int32
