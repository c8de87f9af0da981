"""One shard of users in memory, and the directory it is kept in.

E are the interactions of the shard's users, oldest first within a user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.errors import StorageError
from recsys_ray.base.ragged import Ragged, of_list_array
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, ByteArray, FloatArray, IntArray, LongArray

STAGING, USERS, ITEMS, MANIFEST = "staging", "users", "items.parquet", "manifest.json"
ATTRIBUTES = "attributes"
"""Beside the users, row by row, what the table of users says of them; only where there is one."""

# Why an event is SEEN_ONLY, while data is prepared: further bits of its part, of which the first holds. None of them:
# its source says so.
OUTSIDE, LOW, OLD, FUTURE = 8, 16, 32, 64
"""Outside filters.start and end; below min_rating; beyond newest_per_user; ahead of the clock."""

REPORT = ".report"


def part_file(shard: int) -> str:
    return f"part-{shard:05d}.parquet"


def grouped_file(directory: Location, shard: int) -> Location:
    """Histories with item rows, before k-core and split."""
    return directory / STAGING / f"grouped-{shard:05d}.parquet"


def chunk_file(directory: Location, chunk: int) -> Location:
    """Rows of one chunk, shard after shard."""
    return directory / STAGING / f"chunk-{chunk:05d}.arrow"


def user_chunk_file(directory: Location, chunk: int) -> Location:
    """Rows of one chunk of the table of users, shard after shard."""
    return directory / STAGING / f"user-chunk-{chunk:05d}.arrow"


def report_file(directory: Location, name: str) -> Location:
    """What a task said of the file of this name, kept for a rerun."""
    return directory / STAGING / f"{name}{REPORT}"


def forget_report(data: Location) -> None:
    """A file of the staging directory is damaged: the work that wrote it counts as not done."""
    (data.parent / f"{data.name.partition('.')[0]}{REPORT}").remove()


@dataclass(frozen=True, slots=True)
class Shard(Ragged):
    """``schema.prepared_users`` as flat arrays."""

    user_ids: pa.Array
    items_E: IntArray
    ratings_E: FloatArray
    timestamps_E: LongArray
    parts_E: ByteArray

    @property
    def positive_E(self) -> BoolArray:
        """Interactions that may teach or be a target."""
        return np.asarray((self.parts_E & schema.SEEN_ONLY) == 0, np.bool_)

    def to_table(self) -> pa.Table:
        columns = [self.user_ids, *self.to_columns()]
        return pa.Table.from_arrays(columns, schema=schema.prepared_users(self.user_ids.type))

    @classmethod
    def from_table(cls, table: pa.Table) -> Shard:
        lists = [of_list_array(table.column(name)) for name in ("items", "ratings", "timestamps", "parts")]
        values = [values_E.to_numpy(zero_copy_only=False) for _, values_E in lists]
        return cls(lists[0][0], table.column("user_id").combine_chunks(), *values)

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
            shard = shard.take(np.flatnonzero(shard.per_row(shard.positive_E) >= self.k_users))
        return shard


def load_grouped(directory: Location, shard: int, user_type: pa.DataType, core: Core) -> Shard:
    file = grouped_file(directory, shard)
    try:
        return core.apply(Shard.read(file, user_type))
    except StorageError as error:
        forget_report(file)
        raise StorageError(f"{error}; run the same command again, which gathers this shard anew") from error
