"""Lists of items beside the items that there are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.errors import DataError
from recsys_ray.base.types import IntArray

WHOLE = r"^-?\d{1,18}$"


def listed_rows(ids: pa.Array, item_ids: pa.Array, what: str) -> tuple[IntArray, pa.Array]:
    """Row numbers of those of the ids that ``item_ids`` has, and the others.

    Raises:
        DataError: the ids are of a type that can be no id of these.
    """
    if pa.types.is_null(ids.type) or not len(ids):
        return np.zeros(0, np.int32), ids
    given = ids
    try:
        if pa.types.is_integer(item_ids.type) and (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
            given = pc.if_else(pc.match_substring_regex(ids, WHOLE), ids, pa.scalar(None, ids.type))
        rows = pc.index_in(given.cast(item_ids.type), value_set=item_ids, skip_nulls=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{what}: item ids must be {item_ids.type}, found {ids.type}") from error
    unknown = ids.filter(pc.is_null(rows))
    return np.asarray(rows.drop_null().to_numpy(zero_copy_only=False), np.int32), unknown
