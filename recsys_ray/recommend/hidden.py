"""What users don't want to see any more: lists that outlive a run, applied whether or not seen items are filtered.

A list is a table user_id, item_id. Where it has a column ``kind``, only "hidden" hides, "shown" takes that back, and
other kinds are other events. Of one user and item the last row counts: by the column ``timestamp`` where there is one,
else by the order of the rows, files in the order of their names. The service writes such tables itself, into
``<output>/hidden``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from recsys_ray.base.errors import DataError
from recsys_ray.base.ragged import offsets
from recsys_ray.base.storage import Location
from recsys_ray.base.types import IntArray, ItemLists, Requests
from recsys_ray.data.prepare.guard import reading
from recsys_ray.recommend.bundle import Bundle

HIDDEN, SHOWN = "hidden", "shown"
ENDINGS = (".parquet", ".csv")
EMPTY = b"user_id,item_id\n"


@dataclass(frozen=True, slots=True)
class HiddenLists:
    """The items that each of some users hides."""

    user_ids: pa.Array
    items: ItemLists

    def of(self, user_ids: pa.Array) -> ItemLists:
        """One list for each of these users, empty for those who hide nothing."""
        places = pc.fill_null(pc.index_in(user_ids, value_set=self.user_ids), len(self.user_ids))
        with_nobody = ItemLists(np.append(self.items.offsets_B1, self.items.offsets_B1[-1]), self.items.items_E)
        return with_nobody.take(places.to_numpy(zero_copy_only=False).astype(np.int64))


def with_hidden(requests: Requests, hidden: HiddenLists | None) -> Requests:
    """The same requests, of users who hide what these lists say."""
    return requests if hidden is None else replace(requests, hidden=hidden.of(requests.user_ids))


def read_hidden(bundle: Bundle, path: str, what: str = "recommend.hidden") -> HiddenLists:
    """The lists in a file (.parquet or .csv), or in all such files of a directory, which may not exist yet.

    Users and items that the bundle does not know are left out: nobody can be shown them.

    Raises:
        StorageError: the file is not there. DataError: a column is missing or of another type.
    """
    location = Location.of(path)
    files = [location]
    if not path.endswith(ENDINGS):
        files = [location / name for name in location.names() if name.endswith(ENDINGS) and name[0] not in "._"]
    tables = []
    for file in files:
        with reading(f"{what}: {file}"):
            tables.append(_read(bundle, file, what))
    kinds = bundle.user_id_type, bundle.item_ids.type
    table = pa.concat_tables(tables) if tables else _table(pa.array([], kinds[0]), pa.array([], kinds[1]))
    users, rows = table.column("user_id").combine_chunks(), pc.index_in(table.column("item_id"), bundle.item_ids)
    known = pc.and_(pc.is_valid(rows), pc.is_valid(users))
    table, rows = table.filter(known), rows.filter(known)
    encoded = table.column("user_id").combine_chunks().dictionary_encode()
    return _lists(
        encoded.dictionary,
        encoded.indices.to_numpy(),
        rows.to_numpy().astype(np.int32),
        table.column("timestamp").to_numpy(),
        table.column("hides").to_numpy(),
    )


def _lists(
    user_ids: pa.Array, users_E: IntArray, items_E: IntArray, times_E: IntArray, hides_E: IntArray
) -> HiddenLists:
    """From events: the last of each user and item decides."""
    order_E = np.lexsort((np.arange(len(users_E)), times_E, items_E, users_E))
    users_E, items_E, hides_E = users_E[order_E], items_E[order_E], hides_E[order_E]
    last_E = np.append((np.diff(users_E) != 0) | (np.diff(items_E) != 0), np.ones(min(1, len(users_E)), np.bool_))
    kept_E = last_E.astype(np.bool_) & hides_E.astype(np.bool_)
    lengths_B = np.bincount(users_E[kept_E], minlength=len(user_ids))
    return HiddenLists(user_ids, ItemLists(offsets(lengths_B), items_E[kept_E].astype(np.int32)))


def _read(bundle: Bundle, file: Location, what: str) -> pa.Table:
    if file.name.endswith(".parquet"):
        table = file.read_parquet()
    else:
        texts = pcsv.ConvertOptions(column_types={"user_id": pa.string(), "item_id": pa.string()})
        data = file.read_bytes()
        table = pcsv.read_csv(pa.BufferReader(data if data.strip() else EMPTY), convert_options=texts)
    for name in ("user_id", "item_id"):
        if name not in table.schema.names:
            raise DataError(f"{what}: {file} has no column {name}; found {', '.join(table.schema.names)}")
    if "kind" in table.schema.names:
        table = table.filter(pc.is_in(table.column("kind").cast(pa.string()), value_set=pa.array([HIDDEN, SHOWN])))
    typed = {}
    for name, kind in (("user_id", bundle.user_id_type), ("item_id", bundle.item_ids.type)):
        try:
            typed[name] = table.column(name).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            found = table.schema.field(name).type
            raise DataError(f"{what}: {file}: column {name} must hold ids of type {kind}, found {found}") from error
    return _table(
        typed["user_id"],
        typed["item_id"],
        table.column("kind").cast(pa.string()) if "kind" in table.schema.names else None,
        _times(table, f"{what}: {file}"),
    )


def _times(table: pa.Table, where: str) -> pa.ChunkedArray | None:
    if "timestamp" not in table.schema.names:
        return None
    column = table.column("timestamp")
    try:
        return (column.cast(pa.timestamp("ms")) if pa.types.is_temporal(column.type) else column).cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{where}: column timestamp must hold times, found {column.type}") from error


def _table(
    user_ids: pa.Array, item_ids: pa.Array, kinds: pa.Array | None = None, times: pa.Array | None = None
) -> pa.Table:
    """user_id, item_id, timestamp (0 where unknown), and hides, 0 where the event takes it back."""
    hides = np.ones(len(user_ids), np.int8)
    if kinds is not None:
        hides = pc.equal(kinds, HIDDEN).to_numpy().astype(np.int8)
    if times is None:
        times = pa.array(np.zeros(len(user_ids), np.int64))
    return pa.table({"user_id": user_ids, "item_id": item_ids, "timestamp": pc.fill_null(times, 0), "hides": hides})
