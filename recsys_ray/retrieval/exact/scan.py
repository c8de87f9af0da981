"""The compiled inner loops of exact search: bounds of a rough score, candidates of a tile, exact scores of candidates.

A scan computes rough scores of all items, in float32 or bfloat16, and keeps for every query the items that may still
be among its k best given how wrong a rough score can be. Those few are scored exactly. Loops are serial and run
without the interpreter lock; blocks of queries are what runs side by side.

R are the queries of a block, J the columns of the scan, T the scores of one query in a tile, L room for the candidates
of a query. A *position* (P) is a place in the scan's order of items.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys_ray.base.types import FloatArray, IntArray, LongArray
from recsys_ray.retrieval.exact.lanes import (
    LANES,
    SUM_LANES,
    lane_peaks,
    lanes_at_least,
    lowest_bit,
    sum_of_products,
)
from recsys_ray.retrieval.exact.ranking import (
    compiled,
    key_score,
    lane_bound,
    ordered,
    rank_key,
    rank_row,
    skip_to,
    smallest_first,
    stored_score,
    write_ranks,
)

Array = npt.NDArray[Any]

SCANNING, FINISHED, CROWDED, UNSOUND = 0, 1, 2, 3
FLOAT_ROUNDING = 2.0**-22  # four times what rounding a float64 sum to float32 can cost
SUBNORMAL = 1e-33  # far above what is lost where a machine takes subnormal numbers for zero


class Precision(NamedTuple):
    """How a scan rounds.

    ``shift`` as in ``lane_bound``; ``gamma`` is lost per unit of |q||x| while adding up; ``relative`` is lost of the
    finished score.
    """

    shift: int
    gamma: float
    relative: float


class Lengths(NamedTuple):
    """Euclidean lengths of R vectors: as given, as rounded for the scan, and of the difference."""

    given_R: Array
    rounded_R: Array
    lost_R: Array


class Span(NamedTuple):
    """A tile: positions start to stop, ``width`` scores wide; and the largest length, lost length, |bias| and bias of
    its items and of all items behind them."""

    start: int
    stop: int
    width: int
    length: float
    lost: float
    bias_size: float
    bias: float


class Pool(NamedTuple):
    """What a scan knows of its R queries: for each a state, a threshold (the k-th best lower bound so far) and
    candidates with a lower and an upper bound of the exact score; ``limit_R`` is when to sort them out."""

    state_R: Array
    threshold_R: Array
    count_R: Array
    limit_R: Array
    cursor_R: Array
    position_RL: Array
    low_RL: Array
    high_RL: Array
    keys_L: Array
    k: int


@compiled
def round_rows(values_RD: FloatArray, bits_RJ: Array, shift: int, lengths: Lengths) -> int:
    """Store vectors in the scan's precision and measure them; the first row that is not finite, or -1."""
    bad = -1
    for row in range(len(values_RD)):
        given = rounded = lost = 0.0
        for d in range(values_RD.shape[1]):
            value = np.float32(values_RD[row, d])
            bits = np.float32(value).view(np.uint32)
            if shift:
                half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
                bits = np.uint32(bits + half) & np.uint32(0xFFFF0000)
            stored = np.float64(np.uint32(bits).view(np.float32))
            bits_RJ[row, d] = bits >> np.uint32(shift)
            exact = np.float64(value)
            given += exact * exact
            rounded += stored * stored
            lost += (exact - stored) * (exact - stored)
        if bad < 0 and not given < np.inf:
            bad = row
        lengths.given_R[row], lengths.rounded_R[row], lengths.lost_R[row] = given**0.5, rounded**0.5, lost**0.5
    return bad


@compiled
def _noise(given: float, rounded: float, lost: float, span: Span, precision: Precision) -> float:
    """How far a rough score can be from the exact float32 score, but for the part relative to the score itself.

    |q.x - q'.x'| <= |q - q'||x| + |q'||x - x'| (Cauchy-Schwarz), plus summation in any order, plus the last rounding.
    """
    inputs = lost * span.length + rounded * span.lost
    summed = precision.gamma * (rounded * (span.length + span.lost) + span.bias_size)
    final = FLOAT_ROUNDING * (given * span.length + span.bias_size)
    return float((inputs + summed + final + SUBNORMAL * (1.0 + given) * (1.0 + span.length)) * (1.0 + 1e-6))


@compiled
def _compact(pool: Pool, row: int) -> None:
    """Raise the threshold to the k-th best lower bound and drop the candidates that can no longer reach it."""
    count, keys, k = pool.count_R[row], pool.keys_L, pool.k
    low, high, position = pool.low_RL[row], pool.high_RL[row], pool.position_RL[row]
    for c in range(count):
        keys[c] = rank_key(low[c], c)
    smallest_first(keys, count, k)
    threshold = max(pool.threshold_R[row], key_score(keys[k - 1]))
    kept = 0
    for c in range(count):
        if high[c] >= threshold:
            low[kept], high[kept], position[kept] = low[c], high[c], position[c]
            kept += 1
    pool.count_R[row], pool.threshold_R[row] = kept, threshold
    pool.limit_R[row] = min(len(low), kept + k + 16)


@compiled
def _admission(threshold: Any, noise: float, precision: Precision) -> Any:
    """(flip, bound) that pass every rough score whose exact score may reach the threshold."""
    gap = np.float64(threshold) - noise
    gap /= 1.0 + precision.relative if gap > 0 else 1.0 - precision.relative
    nearest = np.float32(gap)
    return lane_bound(ordered(nearest) - (1 if np.float64(nearest) > gap else 0), precision.shift)


@compiled
def _low(rough: float, error: float) -> float:
    low = rough - error
    return float(low - FLOAT_ROUNDING * abs(low))


@compiled
def _warm_up(
    bits_T: Array, peaks: Array, row: int, precision: Precision, noise: float, pool: Pool, num_hidden: int
) -> None:
    """A first threshold from the first tile, before any candidate is noted.

    The maxima of LANES interleaved parts are scores of different items, at most ``num_hidden`` of them hidden: so k
    others reach the (k + num_hidden)-th best maximum.
    """
    lane_peaks(bits_T, len(bits_T), peaks)
    for lane in range(LANES):
        rough = stored_score(peaks[lane], precision.shift)
        pool.keys_L[lane] = rank_key(_low(rough, noise + precision.relative * abs(rough)), lane)
    place = pool.k + num_hidden
    smallest_first(pool.keys_L, LANES, place)
    pool.threshold_R[row] = key_score(pool.keys_L[place - 1])


@compiled
def _first_group(bits_T: Array, width: int, flip: Any, bound: Any) -> int:
    """Where the first LANES scores begin of which one passes; ``width`` when none does."""
    for start in range(0, width, LANES):
        if lanes_at_least(bits_T, start, flip, bound) != np.uint64(0):
            return start
    return width


@compiled
def _admit(
    bits_T: Array, first: int, row: int, span: Span, precision: Precision, noise: float, pool: Pool, hidden_E: IntArray
) -> None:
    """Note the candidates among one query's scores from ``first`` on; ``hidden_E`` are its hidden positions, ascending.

    Whenever ``limit_R`` candidates are together they are sorted out, which raises the bar for the rest.
    """
    low_L, high_L, position_L = pool.low_RL[row], pool.high_RL[row], pool.position_RL[row]
    count, limit, cursor = pool.count_R[row], pool.limit_R[row], pool.cursor_R[row]
    flip, bound = _admission(pool.threshold_R[row], noise, precision)
    for start in range(first, span.width, LANES):
        mask = lanes_at_least(bits_T, start, flip, bound)
        while mask != np.uint64(0):
            lane = start + lowest_bit(mask)
            mask &= mask - np.uint64(1)
            position = span.start + lane
            cursor = skip_to(hidden_E, cursor, position)
            if position >= span.stop or (cursor < len(hidden_E) and hidden_E[cursor] == position):
                continue
            rough = stored_score(bits_T[lane], precision.shift)
            error = noise + precision.relative * abs(rough)
            low_L[count], high_L[count] = _low(rough, error), -_low(-rough, error)
            position_L[count] = position
            count += 1
            if count == limit:
                pool.count_R[row] = count
                _compact(pool, row)
                count, limit = pool.count_R[row], pool.limit_R[row]
                if count + 8 > len(low_L):
                    pool.state_R[row] = CROWDED
                    return
                flip, bound = _admission(pool.threshold_R[row], noise, precision)
    pool.count_R[row], pool.cursor_R[row] = count, cursor


@compiled
def scan_tile(
    bits_RT: Array,
    active_R: LongArray,
    span: Span,
    precision: Precision,
    lengths: Lengths,
    pool: Pool,
    offsets_R1: LongArray,
    hidden_E: IntArray,
) -> int:
    """Admit the candidates of one tile for the active rows; how many rows still need what lies behind it.

    A row is finished when the longest item left, lying along the query and with the largest bias left, would stay
    below the row's threshold. Items lie in descending length, so that comes early where lengths are uneven.
    """
    alive = 0
    peaks = np.empty(LANES, bits_RT.dtype)
    is_first = span.start == 0 and span.stop == span.width
    for i in range(len(active_R)):
        row = active_R[i]
        if pool.state_R[row] != SCANNING:
            continue
        along = lengths.given_R[row] * span.length
        if along + span.bias + FLOAT_ROUNDING * (along + span.bias_size) + SUBNORMAL < pool.threshold_R[row]:
            pool.state_R[row] = FINISHED
            continue
        noise = _noise(lengths.given_R[row], lengths.rounded_R[row], lengths.lost_R[row], span, precision)
        hidden = hidden_E[offsets_R1[row] - offsets_R1[0] : offsets_R1[row + 1] - offsets_R1[0]]
        if is_first:
            num_hidden = skip_to(hidden, 0, span.stop)
            if pool.k + num_hidden <= LANES:
                _warm_up(bits_RT[i], peaks, row, precision, noise, pool, num_hidden)
        flip, bound = _admission(pool.threshold_R[row], noise, precision)
        first = _first_group(bits_RT[i], span.width, flip, bound)
        if first < span.width:
            _admit(bits_RT[i], first, row, span, precision, noise, pool, hidden)
        if pool.state_R[row] == SCANNING:
            alive += 1
    return alive


@compiled
def exact_dot(query_D: FloatArray, item_D: FloatArray) -> float:
    """The inner product in float64, added up in one fixed order (a product of two float32 is exact in float64)."""
    total = sum_of_products(query_D, item_D, len(query_D))
    for d in range(len(query_D) // SUM_LANES * SUM_LANES, len(query_D)):
        total += np.float64(query_D[d]) * np.float64(item_D[d])
    return float(total)


@compiled
def settle_rows(
    pool: Pool,
    queries_RD: FloatArray,
    items_ID: FloatArray,
    bias_I: FloatArray,
    order_P: IntArray,
    items_RK: IntArray,
    scores_RK: FloatArray,
) -> None:
    """Score the candidates exactly and rank them. A score outside its bounds marks the row UNSOUND: the arithmetic of
    the scan was worse than assumed, so nothing it left out can be trusted."""
    keys, k = pool.keys_L, items_RK.shape[1]
    for row in range(len(queries_RD)):
        if pool.state_R[row] == CROWDED:
            continue
        if pool.count_R[row] > k:
            _compact(pool, row)
        pool.state_R[row] = FINISHED
        count = pool.count_R[row]
        for c in range(count):
            item = order_P[pool.position_RL[row, c]]
            score = np.float32(exact_dot(queries_RD[row], items_ID[item]) + np.float64(bias_I[item]))
            if not pool.low_RL[row, c] <= score <= pool.high_RL[row, c]:
                pool.state_R[row] = UNSOUND
            keys[c] = rank_key(score, item)
        if pool.state_R[row] == FINISHED:
            keys[:count].sort()
            write_ranks(keys, min(count, k), items_RK[row], scores_RK[row])


@compiled
def rank_exactly(
    query_D: FloatArray,
    items_ID: FloatArray,
    bias_I: FloatArray,
    rows_P: IntArray,
    hidden_E: IntArray,
    scores_P: FloatArray,
    keys: LongArray,
    items_K: IntArray,
    scores_K: FloatArray,
) -> bool:
    """Score every item of ``rows_P`` (ascending) exactly and rank them; False when a score is beyond float32.

    ``hidden_E`` are places in ``rows_P``, ascending; ``scores_P`` and ``keys`` are scratch.
    """
    for place in range(len(rows_P)):
        item = rows_P[place]
        score = np.float32(exact_dot(query_D, items_ID[item]) + np.float64(bias_I[item]))
        if not abs(score) < np.inf:
            return False
        scores_P[place] = score
    count = rank_row(scores_P, scores_P.view(np.int32), hidden_E, np.zeros(0, np.bool_), len(items_K), keys)
    write_ranks(keys, count, items_K, scores_K)
    for rank in range(count):
        items_K[rank] = rows_P[items_K[rank]]
    return True
