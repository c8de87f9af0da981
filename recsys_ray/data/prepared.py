"""Prepared data as later stages read it: item table, user shards, counts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError, StorageError
from recsys_ray.base.manifest import read_manifest
from recsys_ray.base.provenance import Stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import (
    BoolArray,
    Counts,
    FloatArray,
    Histories,
    ItemLists,
    LongArray,
    Requests,
    TrainData,
)
from recsys_ray.data.prepare.shard import ATTRIBUTES, ITEMS, MANIFEST, USERS, Shard, part_file

FORMAT, FORMAT_3, FORMAT_2 = 4, 3, 2
"""Written, and also read: format 3 forgot what lies outside filters.start and end, format 2 also has no checksum of its
manifest."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What B users did in a held-out part, one list per user of the shard, empty for those without."""

    user_ids: pa.Array
    items: ItemLists
    ratings_E: FloatArray
    lengths_B: LongArray
    """Positives each user has in the training part."""

    def __len__(self) -> int:
        return len(self.lengths_B)


@dataclass(frozen=True)
class Prepared:
    """A directory that ``prepare`` has completed. Users are numbered shard after shard, sorted by id inside each."""

    location: Location
    manifest: dict[str, Any]

    @staticmethod
    def is_at(location: Location) -> bool:
        """Whether ``prepare`` has completed this directory."""
        return (location / MANIFEST).exists()

    @classmethod
    def open(cls, location: Location) -> Prepared:
        """Raises DataError when the directory is missing, incomplete, or written by another version."""
        if not cls.is_at(location):
            raise DataError(f"{location}: no complete prepared data here; run prepare")
        try:
            manifest = read_manifest(location / MANIFEST, since=FORMAT_3)
        except StorageError as error:
            raise DataError(f"{error}; run prepare again, which makes it anew") from error
        if (found := manifest.get("format")) not in (FORMAT, FORMAT_3, FORMAT_2):
            raise DataError(f"{location}: prepared data of format {found}, this is {FORMAT}; delete it and run prepare")
        return cls(location, manifest)

    @property
    def num_users(self) -> int:
        return int(self.manifest["num_users"])

    @property
    def num_items(self) -> int:
        return int(self.manifest["num_items"])

    @property
    def users_per_shard(self) -> list[int]:
        return list(self.manifest["users_per_shard"])

    @property
    def files(self) -> dict[str, Stamp]:
        """Size and checksum of every file, by its name in the directory."""
        return dict(self.manifest["files"])

    @property
    def num_shards(self) -> int:
        return len(self.users_per_shard)

    @property
    def user_id_type(self) -> pa.DataType:
        return pa.int64() if self.manifest["user_id_type"] == "int64" else pa.string()

    @cached_property
    def items(self) -> pa.Table:
        """The catalogue in vocabulary order."""
        table = (self.location / ITEMS).read_parquet()
        if table.num_rows != self.num_items:
            raise DataError(
                f"{self.location}/{ITEMS}: {table.num_rows} rows, manifest says {self.num_items}; run prepare"
            )
        return table

    def first_user(self, shard: int) -> int:
        """Row number of the first user of a shard."""
        return sum(self.users_per_shard[:shard])

    def counts(self, parts: Sequence[str]) -> Counts:
        """Sizes when only these parts are looked at; all users and items count, also those without interactions."""
        codes = [code for part in parts if (code := _code(part)) < len(self.manifest["pair_products"])]
        products = self.manifest["pair_products"]
        return Counts(
            num_users=self.num_users,
            num_items=self.num_items,
            num_interactions=sum(int(self.manifest["interactions"].get(part, 0)) for part in parts),
            num_pairs=sum(int(products[one][other]) for one in codes for other in codes),
        )

    def shard(self, shard: int) -> pa.Table:
        """``schema.prepared_users`` of one shard."""
        file = self.location / USERS / part_file(shard)
        table = schema.check(file.read_parquet(), schema.prepared_users(self.user_id_type), str(file))
        if table.num_rows != self.users_per_shard[shard]:
            raise DataError(f"{file}: {table.num_rows} rows, manifest says {self.users_per_shard[shard]}; run prepare")
        return table

    def requests(self, shard: int, parts: Sequence[str]) -> Requests:
        """All users of a shard: positives in these parts and those that are shown as histories, those that
        teach nothing as ``seen``."""
        users = Shard.from_table(self.shard(shard))
        users = users.only(_inside(users, {*parts, "shown"}))
        positive, seen = users.split(users.positive_E)
        first = self.first_user(shard)
        return Requests(
            attributes=self.attributes(shard),
            user_ids=users.user_ids,
            users_B=np.arange(first, first + len(users.user_ids), dtype=np.int32),
            histories=Histories(positive.offsets_B1, positive.items_E, positive.ratings_E, positive.timestamps_E),
            seen=ItemLists(seen.offsets_B1, seen.items_E),
        )

    def attributes(self, shard: int) -> pa.Table | None:
        """What the table of users says of those of a shard, row by row; None without such a table."""
        if "user_columns" not in self.manifest:
            return None
        file = self.location / ATTRIBUTES / part_file(shard)
        table = file.read_parquet()
        if table.num_rows != self.users_per_shard[shard]:
            raise DataError(f"{file}: {table.num_rows} rows, manifest says {self.users_per_shard[shard]}; run prepare")
        return table

    def targets(self, shard: int, part: str) -> Targets:
        """All users of a shard with their positives in one part, oldest first."""
        users = Shard.from_table(self.shard(shard))
        wanted = users.only(_inside(users, (part,)) & users.positive_E)
        train_B = users.per_row(_inside(users, ("train",)) & users.positive_E)
        return Targets(users.user_ids, ItemLists(wanted.offsets_B1, wanted.items_E), wanted.ratings_E, train_B)

    def item_counts(self, parts: Sequence[str]) -> LongArray:
        """(I,) positives of each item in these parts; reads every shard."""
        counts_I = np.zeros(self.num_items, np.int64)
        for shard in range(self.num_shards):
            counts_I += np.bincount(self._taught(shard, parts).items_E, minlength=self.num_items)
        return counts_I

    def _taught(self, shard: int, parts: Sequence[str]) -> Histories:
        """All users of a shard: their positives in these parts alone."""
        users = Shard.from_table(self.shard(shard))
        users = users.only(_inside(users, parts) & users.positive_E)
        return Histories(users.offsets_B1, users.items_E, users.ratings_E, users.timestamps_E)

    def train_data(self, parts: Sequence[str]) -> TrainData:
        """The positives of all users in these parts, in user order; reads every shard."""
        shards = range(self.num_shards)
        histories = Histories.concatenate([self._taught(shard, parts) for shard in shards])
        known = [table for shard in shards if (table := self.attributes(shard)) is not None]
        attributes = pa.concat_tables(known).combine_chunks() if known else None
        return TrainData(histories, self.items, attributes=attributes)


def _code(part: str) -> int:
    if part not in schema.PARTS:
        raise DataError(f"no part {part!r}; parts are {', '.join(schema.PARTS)}")
    return schema.PARTS[part]


def _inside(users: Shard, parts: Collection[str]) -> BoolArray:
    wanted = np.zeros(schema.PART_MASK + 1, np.bool_)
    wanted[[_code(part) for part in parts]] = True
    return np.asarray(wanted[users.parts_E & np.uint8(schema.PART_MASK)], np.bool_)
