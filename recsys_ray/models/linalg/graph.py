"""The user-item graph and its propagation: sums over neighbours with symmetric normalisation. No torch.

The nodes are all users, then all items; with B the binary interactions and D the degrees, the adjacency is
A = D^-1/2 [[0, B], [B', 0]] D^-1/2, kept once in compressed rows. It is symmetric: a gradient flows back through it by
the same product.

N are the nodes, E the stored entries, two per pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsys_ray.base.kernels import njit, prange
from recsys_ray.base.types import FloatArray, IntArray, LongArray
from recsys_ray.models.linalg.sparse import read_only, threads_for

if TYPE_CHECKING:
    import scipy.sparse as sp

WIDTH = 64  # columns summed in registers; known to the compiler
CHUNKS = 64  # pieces of equal work that threads take up one after the other


@dataclass(frozen=True, slots=True)
class Graph:
    """A in compressed rows."""

    offsets_N1: LongArray
    neighbors_E: IntArray
    values_E: FloatArray

    @property
    def num_nodes(self) -> int:
        return len(self.offsets_N1) - 1

    @classmethod
    def of(cls, users_items: sp.csr_matrix) -> Graph:
        """The graph of binary interactions (U, I)."""
        import scipy.sparse as sp

        normalised = normalised_interactions(users_items)
        matrix = sp.block_array([[None, normalised], [normalised.T, None]], format="csr", dtype=np.float32)
        matrix.sort_indices()
        return cls(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)

    @classmethod
    def rows_of(cls, matrix: sp.csr_matrix) -> Graph:
        """Any sparse matrix (N, columns) as it is."""
        return cls(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32))

    def times(
        self, values_ND: FloatArray, scale: float = 1.0, added_ND: FloatArray | None = None, weight: float = 0.0
    ) -> FloatArray:
        """``scale * A @ values + weight * added``; A need not be square, and ``added`` has its rows."""
        out_ND = np.empty((self.num_nodes, values_ND.shape[1]), np.float32)
        if added_ND is None:
            added_ND, weight = np.zeros_like(out_ND), 0.0
        arrays = read_only(self.offsets_N1, self.neighbors_E, self.values_E, self.chunks(), values_ND, added_ND)
        with threads_for(float(len(self.neighbors_E)) * values_ND.shape[1]):
            _multiply_add(*arrays, np.float32(scale), np.float32(weight), out_ND)
        return out_ND

    def chunks(self) -> LongArray:
        """Edges of row ranges of about equal work."""
        # Entries and rows before each node; the edges stand where equal shares of that are reached.
        work = self.offsets_N1 + np.arange(self.num_nodes + 1)
        inner = np.searchsorted(work, np.linspace(0, work[-1], min(CHUNKS, self.num_nodes) + 1)[1:-1])
        return np.concatenate([[0], inner, [self.num_nodes]]).astype(np.int64)


def equal_weights(layers: int) -> tuple[float, ...]:
    """Of layer 0, 1, ..., ``layers``: their mean."""
    return (1 / (layers + 1),) * (layers + 1)


def normalised_interactions(users_items: sp.csr_matrix) -> sp.csr_matrix:
    """(U, I) every interaction as 1 / sqrt(degree of the user * degree of the item)."""
    import scipy.sparse as sp

    pairs = users_items.astype(np.float32)
    pairs.data[:] = 1.0
    scales = [1 / np.sqrt(np.maximum(np.asarray(pairs.sum(axis=axis)).ravel(), 1)) for axis in (1, 0)]
    return sp.csr_matrix(sp.diags_array(scales[0]) @ pairs @ sp.diags_array(scales[1]))


class Propagator:
    """``sum over k of layer_weights[k] * A^k``, applied by Horner's rule: one product a layer, no layer kept.

    Args:
        layer_weights: of layer 0 (the values themselves), 1, ...
        reuse: give out the same memory at every second call; the caller is then done with it before. Fresh pages cost
            a fifth of the product.
    """

    def __init__(self, graph: Graph, layer_weights: Sequence[float], reuse: bool = False) -> None:
        self.layer_weights = tuple(layer_weights)
        self.reuse = reuse
        self._arrays = read_only(graph.offsets_N1, graph.neighbors_E, graph.values_E, graph.chunks())
        self._buffers: list[FloatArray] = []

    def __call__(self, values_ND: FloatArray) -> FloatArray:
        """(N, D) for (N, D)."""
        if len(self.layer_weights) == 1:
            return values_ND * np.float32(self.layer_weights[0])
        # From the deepest layer up: sums = weight * values + A @ sums, where the first sums are the values, scaled.
        sums_ND, scale = values_ND, self.layer_weights[-1]
        with threads_for(float(len(self._arrays[1])) * values_ND.shape[1]):
            for weight in reversed(self.layer_weights[:-1]):
                out_ND = self._buffer(values_ND, sums_ND)
                parts = read_only(sums_ND, values_ND)
                _multiply_add(*self._arrays, *parts, np.float32(scale), np.float32(weight), out_ND)
                sums_ND, scale = out_ND, 1.0
        return sums_ND

    def _buffer(self, like_ND: FloatArray, taken_ND: FloatArray) -> FloatArray:
        """Memory for a result that is not ``taken_ND``."""
        if not self.reuse:
            return np.empty_like(like_ND)
        if not self._buffers:
            self._buffers = [np.empty_like(like_ND), np.empty_like(like_ND)]
        return self._buffers[1] if taken_ND is self._buffers[0] else self._buffers[0]


@njit(cache=True, parallel=True, fastmath={"contract"})
def _multiply_add(  # type: ignore[no-untyped-def]
    offsets_N1, neighbors_E, values_E, chunks, sums_ND, added_ND, scale, weight, out_ND
) -> None:
    """``out = scale * A @ sums + weight * added``: tiles of WIDTH columns in registers, then what is left of them."""
    for chunk in prange(len(chunks) - 1):
        rows = chunks[chunk], chunks[chunk + 1]
        _tiles(offsets_N1, neighbors_E, values_E, rows, sums_ND, added_ND, scale, weight, out_ND)
        if sums_ND.shape[1] % WIDTH:
            _rest(offsets_N1, neighbors_E, values_E, rows, sums_ND, added_ND, scale, weight, out_ND)


@njit(cache=True, fastmath={"contract"})
def _tiles(  # type: ignore[no-untyped-def]
    offsets_N1, neighbors_E, values_E, rows, sums_ND, added_ND, scale, weight, out_ND
) -> None:
    total = np.zeros(WIDTH, np.float32)
    # Counted in tiles, not columns: the compiler then knows that no index is negative and need not check each.
    for tile in range(sums_ND.shape[1] // WIDTH):
        for node in range(rows[0], rows[1]):
            total[:] = 0
            for entry in range(offsets_N1[node], offsets_N1[node + 1]):
                value, neighbor = values_E[entry], neighbors_E[entry]
                for column in range(WIDTH):
                    total[column] += value * sums_ND[neighbor, tile * WIDTH + column]
            for column in range(WIDTH):
                place = tile * WIDTH + column
                out_ND[node, place] = scale * total[column] + weight * added_ND[node, place]


@njit(cache=True, fastmath={"contract"})
def _rest(  # type: ignore[no-untyped-def]
    offsets_N1, neighbors_E, values_E, rows, sums_ND, added_ND, scale, weight, out_ND
) -> None:
    first = sums_ND.shape[1] - sums_ND.shape[1] % WIDTH
    for node in range(rows[0], rows[1]):
        out_ND[node, first:] = 0
        for entry in range(offsets_N1[node], offsets_N1[node + 1]):
            value, neighbor = values_E[entry], neighbors_E[entry]
            for column in range(first, sums_ND.shape[1]):
                out_ND[node, column] += value * sums_ND[neighbor, column]
        for column in range(first, sums_ND.shape[1]):
            out_ND[node, column] = scale * out_ND[node, column] + weight * added_ND[node, column]
