"""The items of a data set in row order: all ids sorted, with what the catalogue says about them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.types import LongArray


def build_items(
    catalogue: pa.Table | None, interacted: pa.Array, counts: LongArray, item_type: pa.DataType, unknown: str
) -> pa.Table:
    """The item table in vocabulary order: catalogue and interacted items, sorted by id.

    Raises:
        DataError: catalogue ids repeat or are of another type; interactions outside it, with ``unknown`` "error".
    """
    if catalogue is None:
        return _sorted(empty_items(interacted))
    catalogue = with_id_type(catalogue, item_type)
    ids = catalogue.column("item_id").combine_chunks()
    _refuse_repeated(ids)
    outside = pc.invert(pc.is_in(interacted, value_set=ids))
    missing = interacted.filter(outside)
    if len(missing) == 0 or unknown == "drop":
        return _sorted(catalogue)
    if unknown == "error":
        lost = int(counts[outside.to_numpy(zero_copy_only=False)].sum())
        raise DataError(
            f"{len(missing):,} items with {lost:,} interactions are not in the catalogue, for example "
            f"{missing[0].as_py()!r}; set data.unknown_items to drop or add"
        )
    return _sorted(with_new_items(catalogue, missing))


def with_new_items(catalogue: pa.Table, ids: pa.Array) -> pa.Table:
    """The catalogue and behind it items of which nothing but the id is known."""
    added = empty_items(ids)
    for field in list(catalogue.schema)[len(added.schema) :]:
        added = added.append_column(field, pa.nulls(len(ids), field.type))
    return pa.concat_tables([catalogue, added])


def empty_items(ids: pa.Array) -> pa.Table:
    """Items of which nothing but the id is known."""
    wanted = schema.items(ids.type)
    columns = [pa.nulls(len(ids), field.type) for field in list(wanted)[1:]]
    return pa.Table.from_arrays([ids, *columns], schema=wanted)


def with_id_type(catalogue: pa.Table, item_type: pa.DataType) -> pa.Table:
    """The catalogue with ids as the interactions have them."""
    field = catalogue.schema.field("item_id")
    if field.type == item_type:
        return catalogue
    example = catalogue.column("item_id")[0].as_py()
    kind = {pa.int64(): "integers", pa.string(): "strings"}
    raise DataError(
        f"catalogue item ids are {kind[field.type]} (such as {example!r}), "
        f"those of the interactions {kind[item_type]}; set data.id_type=string"
    )


def _refuse_repeated(ids: pa.Array) -> None:
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        example = repeated[0]["values"]
        raise DataError(
            f"the catalogue holds {len(repeated):,} item ids twice, for example {example!s}; keep one row of each in "
            "data.items"
        )


def _sorted(items: pa.Table) -> pa.Table:
    return items.take(pc.sort_indices(items, sort_keys=[("item_id", "ascending")])).combine_chunks()
