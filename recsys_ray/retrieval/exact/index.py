"""Exact top-k under inner product, and of finished score blocks.

The list of a user never depends on the batch, block, thread or precision it was computed with: a score is the inner
product summed in float64 in one fixed order, plus the bias, rounded to float32; ties go to the lower item row. What is
fast is the scan before it (see ``scan``), which only decides which items are worth that.

E are the hidden items of all queries end to end.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import BoolArray, FloatArray, ItemLists
from recsys_ray.retrieval.exact.common import walk_down
from recsys_ray.retrieval.exact.product import bfloat16_is_fast, loaded_torch
from recsys_ray.retrieval.exact.scan_items import PreparedItems, prepare_items
from recsys_ray.retrieval.exact.search import Search
from recsys_ray.retrieval.topk import TopK, checked_filters, checked_finite

DEFAULT_BLOCK_BYTES = 64 << 20
TORCH_PAYS_FROM = 1e12
"""Multiplications asked of one index, from which bfloat16 saves about the time that the import of torch takes."""


class ExactIndex:
    """Full inner-product search. Time: B I D multiplications in the scan's precision, less where item lengths are
    uneven; memory: one rounded copy of the items and ``block_bytes`` of scratch.

    Args:
        items_ID: item vectors, float32; kept by reference.
        bias_I: added to every score of an item.
        precision: of the scan, never of the result. "auto" is float32, and goes on in bfloat16 where the processor has
            it and torch, which multiplies it, is loaded already or worth loading for what is asked of this index.
        block_bytes: scratch of all threads together.

    Raises:
        ModelError: an item vector or bias is not float32, not finite, or of the wrong shape.
    """

    is_exact = True

    def __init__(
        self,
        items_ID: FloatArray,
        bias_I: FloatArray | None = None,
        *,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        block_bytes: int = DEFAULT_BLOCK_BYTES,
    ) -> None:
        if precision not in ("auto", "float32", "bfloat16"):
            raise ModelError(f"precision must be auto, float32 or bfloat16, found {precision!r}")
        if block_bytes < 1:
            raise ModelError(f"block_bytes must be at least 1, found {block_bytes}")
        self._items_ID = checked_finite(items_ID, "item vectors")
        self._has_bias = bias_I is not None
        self._bias_I = np.zeros(self.num_items, np.float32)
        if bias_I is not None:
            self._bias_I = checked_finite(np.asarray(bias_I).reshape(-1, 1), "item bias")[:, 0]
        if len(self._bias_I) != self.num_items:
            raise ModelError(f"item bias has {len(self._bias_I)} entries for {self.num_items} items")
        self._block_bytes = block_bytes
        self._scans: tuple[str, ...] = ("bfloat16", "float32") if precision == "bfloat16" else ("float32",)
        self._waits_for_torch = precision == "auto" and bfloat16_is_fast()
        self._multiplications = 0.0
        self._prepared: dict[str, PreparedItems] = {}
        self._limited: dict[str, tuple[BoolArray, PreparedItems]] = {}
        if self._items_ID.size:  # without dimensions there is one order for all, and nothing to scan
            self._consider_bfloat16(0.0)
            self._prepare(self._scans[0], None)

    @property
    def num_items(self) -> int:
        return len(self._items_ID)

    @property
    def dim(self) -> int:
        return int(self._items_ID.shape[1])

    def search(
        self, queries_BD: FloatArray, k: int, exclude: ItemLists | None = None, allowed_I: BoolArray | None = None
    ) -> TopK:
        """The k best items of each query; see ``Index``.

        Args:
            queries_BD: float32.
            k: list length; rows are filled up with item -1 and score -inf.
            exclude: B lists of item rows, in any order, repeats allowed.
            allowed_I: True where an item may be shown to anyone.

        Raises:
            ModelError: a query is not finite, a score is beyond float32, or shapes do not fit.
        """
        queries_BD = checked_finite(queries_BD, "queries")
        if queries_BD.shape[1] != self.dim:
            raise ModelError(f"queries have {queries_BD.shape[1]} columns, the index has {self.dim}")
        exclude, allowed_I = checked_filters(len(queries_BD), self.num_items, k, exclude, allowed_I)
        rows_P = np.arange(self.num_items) if allowed_I is None else np.flatnonzero(allowed_I)
        top = TopK.nothing(len(queries_BD), min(k, len(rows_P)))
        if top.rows_BK.size and self.dim == 0:
            walk_down(self._bias_I, rows_P.astype(np.int32), exclude, top)
        elif top.rows_BK.size:
            self._consider_bfloat16(float(len(queries_BD)) * len(rows_P) * self.dim)
            # A list that holds a quarter of the catalogue leaves the scan nothing to leave out.
            scans = self._scans if 4 * top.rows_BK.shape[1] < len(rows_P) else ()
            Search(
                self._items_ID,
                self._bias_I,
                queries_BD,
                exclude,
                rows_P.astype(np.int32),
                scans,
                lambda name: self._prepare(name, allowed_I),
                self._drop_scan,
                top,
            ).run(self._block_bytes)
        return top.padded(k)

    def _consider_bfloat16(self, multiplications: float) -> None:
        """Begin every scan with bfloat16 once torch is there, or once enough was asked for its import to pay."""
        if not self._waits_for_torch:
            return
        self._multiplications += multiplications
        if loaded_torch() is not None or self._multiplications >= TORCH_PAYS_FROM:
            self._waits_for_torch = False
            self._scans = ("bfloat16", "float32")

    def _drop_scan(self, name: str) -> None:
        """Start with the next finer precision from now on: slower a score, but fewer queries are done twice."""
        if len(self._scans) > 1 and self._scans[0] == name:
            self._scans = self._scans[1:]

    def _prepare(self, name: str, allowed_I: BoolArray | None) -> PreparedItems:
        """The scan's items, from the cache where this mask (or none) was asked for last."""
        if name not in self._prepared:
            self._prepared[name] = prepare_items(self._items_ID, self._bias_I if self._has_bias else None, name)
        if allowed_I is None:
            return self._prepared[name]
        last = self._limited.get(name)
        if last is None or not np.array_equal(last[0], allowed_I):
            last = (allowed_I.copy(), self._prepared[name].limited_to(allowed_I))
            self._limited[name] = last
        return last[1]
