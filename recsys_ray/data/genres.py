"""The genres of a catalogue as numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.ragged import offsets
from recsys_ray.base.types import ItemLists


def item_genres(items: pa.Table) -> tuple[ItemLists, list[str]]:
    """The genres of every item as ascending numbers, and the name of each number; empty where there is no column."""
    if "genres" not in items.schema.names:
        return ItemLists.empty(items.num_rows), []
    lists = items.column("genres").combine_chunks()
    named = lists.flatten().dictionary_encode()
    codes_E = np.asarray(named.indices.fill_null(-1), np.int64)
    keys_E = np.asarray(pc.list_parent_indices(lists), np.int64) * max(1, len(named.dictionary)) + codes_E
    keys_E = np.unique(keys_E[codes_E >= 0])
    items_E, genres_E = np.divmod(keys_E, max(1, len(named.dictionary)))
    lengths_I = np.bincount(items_E, minlength=items.num_rows)
    return ItemLists(offsets(lengths_I), genres_E.astype(np.int32)), named.dictionary.to_pylist()
