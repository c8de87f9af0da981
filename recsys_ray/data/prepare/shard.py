"""One shard of users in memory, and the directory it is kept in.

Suffixes: B users of the shard, E their interactions, end to end, oldest first within a user.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, FloatArray, IntArray, LongArray

STAGING, USERS, ITEMS, MANIFEST = "staging", "users", "items.parquet", "manifest.json"


def part_file(shard: int) -> str:
    return f"part-{shard:05d}.parquet"


def grouped_file(directory: Location, shard: int) -> Location:
    """Histories with item rows, before k-core and split."""
    return directory / STAGING / f"grouped-{shard:05d}.parquet"


def chunk_file(directory: Location, chunk: int) -> Location:
    """Rows of one chunk, one record batch per shard."""
    return directory / STAGING / f"chunk-{chunk:05d}.arrow"


@dataclass(frozen=True, slots=True)
class Shard:
    """``schema.prepared_users`` as flat arrays."""

    user_ids: pa.Array
    offsets_B1: LongArray
    items_E: IntArray
    ratings_E: FloatArray
    timestamps_E: LongArray
    parts_E: npt.NDArray[np.uint8]

    @property
    def positive_E(self) -> BoolArray:
        """Interactions that may teach or be a target."""
        return np.asarray((self.parts_E & schema.SEEN_ONLY) == 0, np.bool_)

    @property
    def rows_E(self) -> LongArray:
        return np.repeat(np.arange(len(self.user_ids)), np.diff(self.offsets_B1))

    def per_user(self, chosen_E: BoolArray) -> LongArray:
        """(B,) how many of the chosen interactions each user has."""
        total = np.concatenate([[0], np.cumsum(chosen_E, dtype=np.int64)])
        return np.asarray(total[self.offsets_B1[1:]] - total[self.offsets_B1[:-1]], np.int64)

    def only(self, kept_E: BoolArray) -> Shard:
        """All users, with these interactions only."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.per_user(kept_E))])
        return replace(
            self,
            offsets_B1=offsets,
            items_E=self.items_E[kept_E],
            ratings_E=self.ratings_E[kept_E],
            timestamps_E=self.timestamps_E[kept_E],
            parts_E=self.parts_E[kept_E],
        )

    def only_users(self, kept_B: BoolArray) -> Shard:
        """These users only, with all their interactions."""
        inside = self.only(kept_B[self.rows_E])
        offsets = np.concatenate([inside.offsets_B1[:1], inside.offsets_B1[1:][kept_B]])
        return replace(inside, user_ids=self.user_ids.filter(pa.array(kept_B)), offsets_B1=offsets)

    def to_table(self) -> pa.Table:
        offsets = pa.array(self.offsets_B1.astype(np.int32))
        lists = [
            pa.ListArray.from_arrays(offsets, pa.array(values))
            for values in (self.items_E, self.ratings_E, self.timestamps_E, self.parts_E)
        ]
        return pa.Table.from_arrays([self.user_ids, *lists], schema=schema.prepared_users(self.user_ids.type))

    @classmethod
    def from_table(cls, table: pa.Table) -> Shard:
        columns = [table.column(name).combine_chunks() for name in ("items", "ratings", "timestamps", "parts")]
        lengths = columns[0].value_lengths().to_numpy(zero_copy_only=False)
        flat = [column.flatten().to_numpy(zero_copy_only=False) for column in columns]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        return cls(table.column("user_id").combine_chunks(), offsets, *flat)

    @classmethod
    def read(cls, file: Location, user_type: pa.DataType) -> Shard:
        table = file.read_parquet()
        return cls.from_table(schema.check(table, schema.prepared_users(user_type), str(file)))


@dataclass(frozen=True, slots=True)
class Core:
    """What k-core left: users with ``k_users`` positives on living items, and those items."""

    k_users: int
    alive_I: BoolArray

    def apply(self, shard: Shard) -> Shard:
        if not self.alive_I.all():
            shard = shard.only(self.alive_I[shard.items_E])
        if self.k_users > 0:
            shard = shard.only_users(shard.per_user(shard.positive_E) >= self.k_users)
        return shard


def load_grouped(directory: Location, shard: int, user_type: pa.DataType, core: Core) -> Shard:
    return core.apply(Shard.read(grouped_file(directory, shard), user_type))
