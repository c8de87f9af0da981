"""Approximate search by FAISS, with exact scores, exact filters and the one tie rule.

FAISS only names candidates. They are scored as exact search scores them, so an item in a list has the score and, among
the items found, the place it would have there. Items of a list's ``exclude`` are found and dropped, so more is asked
for; where fewer than k are left (a narrow ``allowed``, a graph that led nowhere), the exact index answers that query.

    flat    all inner products
    ivf     k-means cells by distance, after the reduction of inner products to distances of Bachrach et al. (2014):
            items get one more coordinate that brings all to the same length. Cells by inner product put most items of
            uneven length into few cells and find a fraction.
    hnsw    the graph by inner product itself (Morozov & Babenko 2018). After the reduction all items are far apart and
            about equally far, and the walk gets lost.
    sq8     all inner products of numbers of 8 bits (a quarter of the memory)
    pq      all inner products of product codes (Jegou, Douze and Schmid 2011), of code_bytes each

A bias is one more coordinate, 1 in every query. A query is answered alike in any batch and by any number of threads:
FAISS's switch to another order of summation for large batches is turned off, and building takes one thread.

J are coordinates as FAISS sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from recsys_ray.base.errors import BundleError, ConfigError, ModelError
from recsys_ray.base.types import BoolArray, FloatArray, IntArray, ItemLists, ItemVectors
from recsys_ray.retrieval.config import IndexSettings
from recsys_ray.retrieval.exact.threads import num_workers
from recsys_ray.retrieval.pairs import pair_scores
from recsys_ray.retrieval.topk import NO_ITEM, Index, TopK, checked_filters, checked_finite

FAISS: Any = faiss  # the types it ships know only a part of it
ONE_ORDER = 2**31 - 1  # queries per batch from which FAISS would multiply matrices instead
TRAINING_ROUNDS, POINTS_PER_CELL = 10, 64
COARSE = ("sq8", "pq")
"""Kinds that keep less of an item than its vector, and so find more than is asked for."""
LARGEST_PART = 4  # where more than 1 / LARGEST_PART of the items would be asked for, exact search is the faster one


class ApproximateIndex:
    """A FAISS index over item vectors.

    Args:
        graph: as ``build`` made it or ``restored`` read it. items: the vectors and bias it was built from.
        settings: what a search looks at. exact: gives the exact index over the same items, when it is first needed.
    """

    is_exact = False

    def __init__(self, graph: Any, items: ItemVectors, settings: IndexSettings, exact: Callable[[], Index]) -> None:
        self._graph = graph
        self._items = items
        self._settings = settings
        self._exact = exact
        self._on_gpu: Any = None
        if settings.gpu and not (hasattr(FAISS, "StandardGpuResources") and FAISS.get_num_gpus()):
            raise ConfigError("recommend.index.gpu: this FAISS sees no GPU; install one built for it, or set gpu=false")

    @property
    def num_items(self) -> int:
        return len(self._items.vectors_ID)

    def search(
        self, queries_BD: FloatArray, k: int, exclude: ItemLists | None = None, allowed_I: BoolArray | None = None
    ) -> TopK:
        """The k best items found for each query; see ``Index``.

        Raises:
            ModelError: a query is not finite, a score is beyond float32, or shapes do not fit.
        """
        queries_BD = checked_finite(queries_BD, "queries")
        if queries_BD.shape[1] != self._items.vectors_ID.shape[1]:
            raise ModelError(
                f"queries have {queries_BD.shape[1]} columns, the index has {self._items.vectors_ID.shape[1]}"
            )
        exclude, allowed_I = checked_filters(len(queries_BD), self.num_items, k, exclude, allowed_I)
        top = self._approximate(queries_BD, k, exclude, allowed_I, self.num_items // LARGEST_PART)
        short_R = np.flatnonzero((top.rows_BK == NO_ITEM).any(axis=1))
        if len(short_R):
            exact = self._exact().search(queries_BD[short_R], k, exclude.take(short_R), allowed_I)
            top.rows_BK[short_R], top.scores_BK[short_R] = exact.rows_BK, exact.scores_BK
        return top

    def search_alone(self, queries_BD: FloatArray, k: int) -> TopK:
        """What is found without the exact index, to be measured: short where ``search`` would ask that one."""
        return self._approximate(queries_BD, k, ItemLists.empty(len(queries_BD)), None, self.num_items)

    def _approximate(
        self, queries_BD: FloatArray, k: int, exclude: ItemLists, allowed_I: BoolArray | None, most: int
    ) -> TopK:
        """Lists of what is found by asking for at most so many candidates, and empty ones where it takes more."""
        top = TopK.nothing(len(queries_BD), k)
        # How many candidates a query takes depends on its own list alone; powers of two let many go together.
        depth_B = 1 << np.ceil(np.log2(k + exclude.lengths_B)).astype(np.int64)
        depth_B[(depth_B > most) & (k + exclude.lengths_B <= most)] = most
        depth_B[depth_B > most] = 0
        for depth in np.unique(depth_B[depth_B > 0]):
            # R: the queries that take so many candidates; their lists are sorted by score, of equals the lower row.
            rows_R = np.flatnonzero(depth_B == depth)
            found = self._found(queries_BD[rows_R], int(depth), allowed_I)
            _drop(found, exclude.take(rows_R))
            scores_RK = pair_scores(queries_BD[rows_R], self._items, found)
            if not (np.isfinite(scores_RK) | (found < 0)).all():
                raise ModelError("a score is beyond float32; scale the query or item vectors down")
            order_RK = np.lexsort((found, -scores_RK))[:, :k]
            top.rows_BK[rows_R, : order_RK.shape[1]] = np.take_along_axis(found, order_RK, axis=1)
            top.scores_BK[rows_R, : order_RK.shape[1]] = np.take_along_axis(scores_RK, order_RK, axis=1)
        return top

    def _found(self, queries_RD: FloatArray, depth: int, allowed_I: BoolArray | None) -> IntArray:
        """(R, K) candidates of each query in no order, -1 where there are fewer."""
        FAISS.cvar.distance_compute_blas_threshold = ONE_ORDER
        FAISS.omp_set_num_threads(num_workers())
        mask = None if allowed_I is None else np.packbits(allowed_I, bitorder="little")
        chosen = {} if mask is None else {"sel": FAISS.IDSelectorBitmap(mask)}
        if self._settings.kind == "hnsw":
            chosen |= {"efSearch": max(depth, self._settings.ef_search)}
            parameters = FAISS.SearchParametersHNSW(**chosen)
        elif self._settings.kind == "ivf":
            parameters = FAISS.SearchParametersIVF(nprobe=self._settings.nprobe, **chosen)
        else:
            parameters = FAISS.SearchParameters(**chosen)
        if self._settings.kind in COARSE:
            depth = min(depth * self._settings.oversample, self.num_items)
        seen_RJ = _query_coordinates(queries_RD, self._items, self._settings)
        if self._settings.gpu or self._settings.kind == "pq":
            found_RK = np.asarray(self._searcher().search(seen_RJ, depth)[1], np.int32)
            if allowed_I is not None:  # these know no filters
                found_RK[~allowed_I[found_RK]] = NO_ITEM
            return found_RK
        _, rows_RK = self._graph.search(seen_RJ, depth, params=parameters)
        return np.asarray(rows_RK, np.int32)

    def _searcher(self) -> Any:
        """The FAISS index, on the GPU where that is asked for."""
        if not self._settings.gpu:
            return self._graph
        if self._on_gpu is None:
            if self._settings.kind == "ivf":
                self._graph.nprobe = self._settings.nprobe
            self._on_gpu = FAISS.index_cpu_to_gpu(FAISS.StandardGpuResources(), 0, self._graph)
        return self._on_gpu

    def saved(self) -> bytes:
        """The FAISS index, for ``restored``."""
        return bytes(FAISS.serialize_index(self._graph))


def build(items: ItemVectors, settings: IndexSettings, exact: Callable[[], Index]) -> ApproximateIndex:
    """Index the items.

    Raises:
        ModelError: an item vector or bias is not finite.
    """
    checked_finite(items.vectors_ID, "item vectors")
    points_IJ = _item_coordinates(items, settings)
    num_items, dim = points_IJ.shape
    FAISS.cvar.distance_compute_blas_threshold = ONE_ORDER
    FAISS.omp_set_num_threads(1)
    if settings.kind == "hnsw":
        graph = FAISS.IndexHNSWFlat(dim, settings.m, FAISS.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = settings.ef_construction
    elif settings.kind == "ivf":
        cells = min(settings.nlist or max(1, round(4 * num_items**0.5)), num_items)
        graph = FAISS.IndexIVFFlat(FAISS.IndexFlatL2(dim), dim, cells, FAISS.METRIC_L2)
        graph.cp.niter, graph.cp.max_points_per_centroid, graph.cp.min_points_per_centroid = (
            TRAINING_ROUNDS,
            POINTS_PER_CELL,
            1,
        )
        graph.train(points_IJ)
    elif settings.kind == "sq8":
        graph = FAISS.IndexScalarQuantizer(dim, FAISS.ScalarQuantizer.QT_8bit, FAISS.METRIC_INNER_PRODUCT)
        graph.train(points_IJ)
    elif settings.kind == "pq":
        bits = min(8, max(1, int(np.log2(max(num_items, 2)))))  # no more centres than items
        graph = FAISS.IndexPQ(dim, _code_bytes(items, settings), bits, FAISS.METRIC_INNER_PRODUCT)
        graph.pq.cp.niter, graph.pq.cp.max_points_per_centroid, graph.pq.cp.min_points_per_centroid = (
            TRAINING_ROUNDS,
            POINTS_PER_CELL,
            1,
        )
        graph.train(np.vstack([points_IJ, points_IJ]) if num_items < 2 else points_IJ)
    else:
        graph = FAISS.IndexFlatIP(dim)
    graph.add(points_IJ)
    return ApproximateIndex(graph, items, settings, exact)


def restored(
    data: bytes, items: ItemVectors, settings: IndexSettings, exact: Callable[[], Index], where: str
) -> ApproximateIndex:
    """An index from what ``saved`` gave.

    Raises:
        BundleError: it is not a FAISS index, or one of other items.
    """
    try:
        graph = FAISS.deserialize_index(np.frombuffer(data, np.uint8))
    except RuntimeError as error:
        raise BundleError(f"{where}: not a readable index; delete it, and it is built again") from error
    expected = (len(items.vectors_ID), _num_coordinates(items, settings))
    if (graph.ntotal, graph.d) != expected:
        raise BundleError(f"{where}: an index of other item vectors; delete it, and it is built again")
    return ApproximateIndex(graph, items, settings, exact)


def _own_coordinates(items: ItemVectors) -> int:
    return int(items.vectors_ID.shape[1]) + (items.bias_I is not None)


def _code_bytes(items: ItemVectors, settings: IndexSettings) -> int:
    """Of pq: a byte stands for one or more coordinates."""
    return min(settings.code_bytes, _own_coordinates(items))


def _padding(items: ItemVectors, settings: IndexSettings) -> int:
    """Coordinates behind the others: one for ivf, and zeros for pq, so that each byte has equally many."""
    if settings.kind == "pq":
        return -_own_coordinates(items) % _code_bytes(items, settings)
    return int(settings.kind == "ivf")


def _num_coordinates(items: ItemVectors, settings: IndexSettings) -> int:
    return _own_coordinates(items) + _padding(items, settings)


def _item_coordinates(items: ItemVectors, settings: IndexSettings) -> FloatArray:
    """(I, J) item vectors, then the bias, then for ivf what brings all to the length of the longest."""
    parts = [items.vectors_ID]
    if items.bias_I is not None:
        parts.append(checked_finite(items.bias_I[:, None], "item bias"))
    if settings.kind == "ivf":
        squares_I = np.sum([np.einsum("ij,ij->i", part, part, dtype=np.float64) for part in parts], axis=0)
        parts.append(np.sqrt(squares_I.max(initial=0.0) - squares_I)[:, None].astype(np.float32))
    else:
        parts.append(np.zeros((len(items.vectors_ID), _padding(items, settings)), np.float32))
    return np.ascontiguousarray(np.hstack(parts), np.float32)


def _query_coordinates(queries_RD: FloatArray, items: ItemVectors, settings: IndexSettings) -> FloatArray:
    ones = [np.ones((len(queries_RD), 1), np.float32)] * (items.bias_I is not None)
    zeros = np.zeros((len(queries_RD), _padding(items, settings)), np.float32)
    return np.ascontiguousarray(np.hstack([queries_RD, *ones, zeros]), np.float32)


def _drop(found_RK: IntArray, exclude: ItemLists) -> None:
    """Write -1 over every excluded candidate."""
    # One number for a pair of row and item, in the candidates as in the lists.
    width = 1 + max(int(found_RK.max(initial=0)), int(exclude.items_E.max(initial=0)))
    keys_RK = np.arange(len(found_RK))[:, None] * width + found_RK
    found_RK[np.isin(keys_RK, exclude.rows_E.astype(np.int64) * width + exclude.items_E) & (found_RK >= 0)] = NO_ITEM
