"""Which items are like an item, as the model of a bundle sees it.

R are the items to compare, E the items found for all of them end to end.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import ConfigError, DataError
from recsys_ray.base.types import BoolArray, IntArray
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.retrieval import TopK, top_k_scores

BLOCK_BYTES = 64 << 20  # of scores, as wide as the catalogue


def similar_rows(bundle: Bundle, rows_R: IntArray, n: int, allowed_I: BoolArray | None = None) -> TopK:
    """The n items most like each of these, as catalogue rows.

    What a score means is the model's: a cosine where items have vectors, an entry of the item-item matrix where there
    is one. Never the item itself, and only items the model can recommend; fewer than n where it can't compare more,
    none for an item it knows nothing of, or where the model compares no items at all.

    Args:
        bundle: an opened bundle. rows_R: catalogue rows, see ``Bundle.item_rows``. n: ranks per item.
        allowed_I: (I,) items that may be shown; None for all.

    Raises:
        ConfigError: n is not between 1 and the number of items.
        DataError: a row is not in the catalogue.
    """
    if not 1 <= n <= bundle.num_items:
        raise ConfigError(f"similar items: n must be between 1 and the {bundle.num_items} items, found {n}")
    rows_R = np.asarray(rows_R, np.int32)
    outside_R = (rows_R < 0) | (rows_R >= bundle.num_items)
    if outside_R.any():
        raise DataError(f"similar items: row {rows_R[outside_R][0]} is not one of the {bundle.num_items} items")
    found = TopK.nothing(len(rows_R), n)
    scorer, per_block = bundle.scorer, max(1, BLOCK_BYTES // (4 * bundle.num_items))
    shown_I = scorer.scorable_I if allowed_I is None else scorer.scorable_I & allowed_I
    for start in range(0, len(rows_R), per_block):
        block = slice(start, start + per_block)
        top = top_k_scores(scorer.similar(rows_R[block]), n, allowed_I=shown_I)
        found.rows_BK[block], found.scores_BK[block] = top.rows_BK, top.scores_BK
    return found


def similar_items(bundle: Bundle, item_rows: IntArray, n: int) -> pa.Table:
    """``similar_rows`` with outside ids: item_id, rank from 1, similar_item_id, score, in the order of the items."""
    rows_R = np.asarray(item_rows, np.int32)
    top = similar_rows(bundle, rows_R, n)
    found_RK = top.rows_BK >= 0
    # E: what was found, item by item and rank by rank; places among the R, columns are ranks from 0.
    places_E, columns_E = np.nonzero(found_RK)
    return pa.table(
        [
            bundle.item_ids.take(pa.array(rows_R[places_E])),
            pa.array((columns_E + 1).astype(np.int32)),
            bundle.item_ids.take(pa.array(top.rows_BK[found_RK])),
            pa.array(top.scores_BK[found_RK]),
        ],
        schema=_schema(bundle),
    )


def _schema(bundle: Bundle) -> pa.Schema:
    item_type = bundle.item_ids.type
    return pa.schema(
        [("item_id", item_type), ("rank", pa.int32()), ("similar_item_id", item_type), ("score", pa.float32())]
    )
