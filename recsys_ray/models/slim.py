"""SLIM: a sparse item-item matrix that predicts every item of a history from a few others, by elastic nets.

Source: Ning, Karypis, "SLIM: Sparse Linear Methods for Top-N Recommender Systems" (ICDM 2011). With X the interactions
(U, I) and w_j column j of W:

    minimize 1/2 |x_j - X w_j|^2 + l1 |w_j|_1 + l2 / 2 |w_j|^2   subject to w_jj = 0, and w_j >= 0 with non_negative

and the scores are X W. A column is solved by coordinate descent on the Gram matrix G = X' X (Friedman, Hastie,
Tibshirani, "Regularization Paths for Generalized Linear Models via Coordinate Descent", J. Stat. Softw. 2010), over an
active set: the items that would gain most come in, the weights of all that are in settle, and so on until no item
outside would get a weight. Among those inside a step costs one row of a small dense matrix.
Time: the pairs of items in all histories for G; for every column the active items times those that go with each, and
their square for every round.
Memory: G as it is sparse, 8 bytes an entry, and a block of columns. Columns go out in blocks to all machines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from recsys_ray.base.kernels import njit, prange
from recsys_ray.base.ragged import offsets
from recsys_ray.base.types import (
    Counts,
    FitContext,
    FloatArray,
    IntArray,
    LongArray,
    MemoryEstimate,
    Scorer,
    TrainData,
)
from recsys_ray.models.base import Model, Weighting, history_matrix, require_finite
from recsys_ray.models.linalg.similarity import (
    BLOCK_BYTES,
    ItemProduct,
    largest_of_rows,
    multiply,
    product_memory,
    scaled,
)
from recsys_ray.models.linalg.sparse import SparseRows, read_only, threads_for
from recsys_ray.models.scorers.linear import LinearScorer

MOST_DENSE_BYTES = 512 << 20
LEAST_DENSITY = 0.2
"""Share of the item pairs with an entry from which the Gram matrix is also held whole."""
FIRST = 128
"""Items that take part in a column at first; afterwards as many come in at once as are there."""


class SLIM(Model):
    """Every item predicted from a few others by an elastic net (Ning and Karypis 2011)."""

    key: ClassVar[str] = "slim"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (LinearScorer,)

    l1: float = Field(default=1.0, ge=0)
    """Penalty of the sum of weights, in co-occurrences: an item that goes with another no more often has no weight."""
    l2: float = Field(default=100.0, gt=0)
    """Penalty of the squares, added to the diagonal of the Gram matrix."""
    non_negative: bool = True
    """Items only vote for others, as in the paper; false lets them vote against, and looks at all items."""
    neighbors: int = Field(default=500, ge=1)
    """Weights kept in a column, the largest; a bound on memory, seldom reached."""
    max_epochs: int = Field(default=500, ge=1)
    """Rounds of coordinate descent in one column."""
    tolerance: float = Field(default=1e-4, gt=0)
    """A column rests when no weight changes, or would come in, by more than this."""
    weighting: Weighting = "binary"
    """The value of an interaction in X: 1, or its rating (which must be positive)."""

    def fit_scorer(self, data: TrainData, context: FitContext) -> LinearScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a rating is not positive under weighting = "rating".
        """
        users_items = history_matrix("slim", data, self.weighting)
        product = ItemProduct(scaled(users_items.T.tocsr()), scaled(users_items), keep_diagonal=True)
        gram = multiply(product, data.num_items, context, "slim: Gram matrix")
        columns = _solve(_Problem.of(gram, self), data.num_items, context)
        require_finite("slim", "raise l2", columns.values)
        return LinearScorer(weights=_transposed(columns), trained_I=data.item_counts() > 0, weighting=self.weighting)

    def memory(self, counts: Counts) -> MemoryEstimate:
        found = product_memory(counts, None, "drop rare items with data filters, or choose item_cf or als")
        whole = 4 * counts.num_items**2
        return replace(found, bytes=found.bytes + (whole if whole <= MOST_DENSE_BYTES else 0))


@dataclass(frozen=True, slots=True)
class _Problem:
    gram: SparseRows
    dense_II: FloatArray
    """The Gram matrix whole where much of it is there and it is small, (0, 0) else: its entries are found in one step,
    and its rows are added without looking where they belong."""
    settings: SLIM

    @classmethod
    def of(cls, gram: SparseRows, settings: SLIM) -> _Problem:
        size = len(gram.offsets) - 1
        if size * size * 4 > MOST_DENSE_BYTES or len(gram.values) < LEAST_DENSITY * size * size:
            return cls(gram, np.zeros((0, 0), np.float32), settings)
        dense_II = np.zeros((size, size), np.float32)
        dense_II[np.repeat(np.arange(size), np.diff(gram.offsets)), gram.columns] = gram.values
        return cls(gram, dense_II, settings)


def _solve(problem: _Problem, num_items: int, context: FitContext) -> SparseRows:
    """W' by rows: row j is column j of W."""
    rows = max(1, min(BLOCK_BYTES // (4 * num_items), -(-num_items // (4 * context.num_blocks))))
    blocks = [(start, min(start + rows, num_items)) for start in range(0, num_items, rows)]
    parts = list(context.map_blocks(solve_columns, blocks, shared=problem, label="slim"))
    counts_I, items_Z, values_Z = (np.concatenate([part[place] for part in parts]) for place in range(3))
    return SparseRows(offsets(counts_I), items_Z, values_Z)


def solve_columns(block: tuple[int, int], problem: _Problem) -> tuple[LongArray, IntArray, FloatArray]:
    """Columns start:stop of W as (entries per column, items, weights)."""
    start, stop = block
    gram, settings = problem.gram, problem.settings
    dense_RI = np.zeros((stop - start, len(gram.offsets) - 1), np.float32)
    with threads_for(dense_RI.size):
        descend(
            *read_only(gram.offsets, gram.columns, gram.values, problem.dense_II),
            start,
            settings.l1,
            settings.l2,
            settings.non_negative,
            settings.max_epochs,
            settings.tolerance,
            dense_RI,
        )
    return largest_of_rows(dense_RI, settings.neighbors)


def _transposed(rows: SparseRows) -> SparseRows:
    """The square matrix with rows and columns exchanged; columns ascend."""
    size = len(rows.offsets) - 1
    rows_Z = np.repeat(np.arange(size, dtype=np.int32), np.diff(rows.offsets))
    order_Z = np.argsort(rows.columns, kind="stable")
    lengths_I = np.bincount(rows.columns, minlength=size)
    return SparseRows(offsets(lengths_I), rows_Z[order_Z], rows.values[order_Z])


@njit(cache=True, parallel=True)
def descend(  # type: ignore[no-untyped-def]
    offsets_I1, columns_Z, values_Z, dense_II, first, l1, l2, non_negative, max_epochs, tolerance, out_RI
) -> None:
    """Row r of ``out`` becomes column ``first + r`` of W."""
    gram = (offsets_I1, columns_Z, values_Z, _diagonal(offsets_I1, columns_Z, values_Z), dense_II)
    for r in prange(len(out_RI)):
        _column(first + r, gram, (l1, l2, non_negative), max_epochs, tolerance, out_RI[r])


@njit(cache=True)
def _diagonal(offsets_I1, columns_Z, values_Z):  # type: ignore[no-untyped-def]
    diagonal_I = np.zeros(len(offsets_I1) - 1)
    for item in range(len(diagonal_I)):
        for z in range(offsets_I1[item], offsets_I1[item + 1]):
            if columns_Z[z] == item:
                diagonal_I[item] = values_Z[z]
    return diagonal_I


@njit(cache=True)
def _column(target, gram, penalties, max_epochs, tolerance, weights_I) -> None:  # type: ignore[no-untyped-def]
    """One column; A are the items that take part by now, in the order they came."""
    offsets_I1, columns_Z, values_Z, diagonal_I, _ = gram
    # What is left of x_j to explain, times every item: G_ij at first, less w_k G_ik for every weight.
    rest_I = np.zeros(len(diagonal_I))
    for z in range(offsets_I1[target], offsets_I1[target + 1]):
        rest_I[columns_Z[z]] = values_Z[z]
    place_I = np.full(len(diagonal_I), -1, np.int32)  # of an item in A
    waiting_I = diagonal_I > 0
    waiting_I[target] = False
    items_A, weights_A, gram_AA = _room(FIRST)
    count, epochs = 0, 0
    while epochs < max_epochs:
        new = _violators(waiting_I, rest_I, diagonal_I, penalties, tolerance, max(FIRST, count))
        if len(new) == 0:
            break
        if count + len(new) > len(items_A):
            items_A, weights_A, gram_AA = _more_room(items_A, weights_A, gram_AA, count, len(new))
        _take_in(new, count, gram, waiting_I, place_I, items_A, gram_AA)
        count += len(new)
        before_A = weights_A[:count].copy()
        rest_A = rest_I[items_A[:count]].astype(np.float32)
        epochs += _settle(rest_A, gram_AA, weights_A, penalties, max_epochs - epochs, tolerance)
        for a in range(count):
            if weights_A[a] != before_A[a]:
                _explain(rest_I, weights_A[a] - before_A[a], items_A[a], gram)
    for a in range(count):
        weights_I[items_A[a]] = weights_A[a]


@njit(cache=True)
def _explain(rest_I, change, item, gram) -> None:  # type: ignore[no-untyped-def]
    """What is left, less the change of one item's weight."""
    offsets_I1, columns_Z, values_Z, _, dense_II = gram
    if len(dense_II):
        row_I = dense_II[item]
        for other in range(len(rest_I)):
            rest_I[other] -= change * row_I[other]
        return
    for z in range(offsets_I1[item], offsets_I1[item + 1]):
        rest_I[columns_Z[z]] -= change * values_Z[z]


@njit(cache=True)
def _take_in(new, count, gram, waiting_I, place_I, items_A, gram_AA) -> None:  # type: ignore[no-untyped-def]
    """More items behind the ``count`` of A, with their entries of G among all that are in."""
    offsets_I1, columns_Z, values_Z, _, dense_II = gram
    for item in new:
        waiting_I[item] = False
        place_I[item], items_A[count] = count, item
        if len(dense_II):
            row_I = dense_II[item]
            for place in range(count + 1):
                gram_AA[count, place] = gram_AA[place, count] = row_I[items_A[place]]
            count += 1
            continue
        for z in range(offsets_I1[item], offsets_I1[item + 1]):
            place = place_I[columns_Z[z]]
            if place >= 0:
                gram_AA[count, place] = gram_AA[place, count] = values_Z[z]
        count += 1


@njit(cache=True)
def _room(size):  # type: ignore[no-untyped-def]
    return np.empty(size, np.int64), np.zeros(size, np.float32), np.zeros((size, size), np.float32)


@njit(cache=True)
def _more_room(items_A, weights_A, gram_AA, count, more):  # type: ignore[no-untyped-def]
    items, weights, gram = _room(max(2 * len(items_A), count + more))
    items[:count], weights[:count] = items_A[:count], weights_A[:count]
    gram[:count, :count] = gram_AA[:count, :count]
    return items, weights, gram


@njit(cache=True)
def _violators(waiting_I, rest_I, diagonal_I, penalties, tolerance, most):  # type: ignore[no-untyped-def]
    """Items without a weight that would get one larger than ``tolerance``, at most so many, the largest first in."""
    l1, l2, non_negative = penalties
    gains_I = np.zeros(len(rest_I))
    for item in np.flatnonzero(waiting_I):
        rest = rest_I[item] if non_negative else abs(rest_I[item])
        gain = (rest - l1) / (diagonal_I[item] + l2)
        if gain > tolerance:
            gains_I[item] = gain
    found = np.flatnonzero(gains_I)
    if len(found) <= most:
        return found
    least = np.partition(gains_I[found], len(found) - most)[len(found) - most]
    return np.flatnonzero(gains_I >= least)


@njit(cache=True)
def _settle(rest_A, gram_AA, weights_A, penalties, max_epochs, tolerance):  # type: ignore[no-untyped-def]
    """Rounds of coordinate descent over A, until no weight changes by more than ``tolerance``; how many there were.

    Behind a round over all of A come rounds over those with a weight alone, S, which are fewer.
    """
    count, epochs = len(rest_A), 0
    while epochs < max_epochs:
        epochs += 1
        if _round(rest_A, gram_AA, weights_A[:count], penalties) <= tolerance:
            break
        chosen_S = np.flatnonzero(weights_A[:count])
        gram_SS = np.empty((len(chosen_S), len(chosen_S)), np.float32)
        for s in range(len(chosen_S)):
            gram_A = gram_AA[chosen_S[s]]
            for other in range(len(chosen_S)):
                gram_SS[s, other] = gram_A[chosen_S[other]]
        rest_S, weights_S = rest_A[chosen_S], weights_A[chosen_S]
        while epochs < max_epochs:
            epochs += 1
            if _round(rest_S, gram_SS, weights_S, penalties) <= tolerance:
                break
        for s in range(len(chosen_S)):
            _subtract(rest_A, weights_S[s] - weights_A[chosen_S[s]], gram_AA[chosen_S[s]])
            weights_A[chosen_S[s]] = weights_S[s]
    return epochs


@njit(cache=True)
def _round(rest_A, gram_AA, weights_A, penalties):  # type: ignore[no-untyped-def]
    """Every weight once set to its best, given the others; the largest change."""
    l1, l2, non_negative = np.float32(penalties[0]), np.float32(penalties[1]), penalties[2]
    largest = np.float32(0)
    for a in range(len(rest_A)):
        before, own = weights_A[a], gram_AA[a, a]
        wanted = rest_A[a] + own * before
        after = np.float32(0)
        if wanted > l1:
            after = (wanted - l1) / (own + l2)
        elif wanted < -l1 and not non_negative:
            after = (wanted + l1) / (own + l2)
        change = after - before
        if change != 0:
            weights_A[a] = after
            _subtract(rest_A, change, gram_AA[a])
            largest = max(largest, abs(change))
    return largest


@njit(cache=True, fastmath={"contract", "reassoc"})
def _subtract(rest_A, change, gram_A):  # type: ignore[no-untyped-def]
    for other in range(len(rest_A)):
        rest_A[other] -= change * gram_A[other]
