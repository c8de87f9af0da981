"""The table of users through the passes of ``prepare``: sorted into shards with the interactions, then laid beside the
users of each shard, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.files import Chunk
from recsys_ray.data.prepare.shard import user_chunk_file
from recsys_ray.data.prepare.staging import Staged, by_shard, read_staged
from recsys_ray.data.sources.users import HasUsers


@dataclass(frozen=True, slots=True)
class UserStageJob:
    source: HasUsers
    directory: Location
    num_shards: int


def stage_users(block: tuple[int, Chunk], job: UserStageJob) -> Staged:
    """One chunk of the table written out, its rows sorted into shards."""
    index, chunk = block
    data, staged = by_shard(job.source.read_users(chunk), job.num_shards)
    user_chunk_file(job.directory, index).write_bytes(data)
    return staged


def check_user_type(chunks: Sequence[Staged], user_type: pa.DataType) -> None:
    """DataError where ids of the table and of the interactions are not of one type."""
    for staged in chunks:
        found = staged.schema.field("user_id").type
        if found != user_type and staged.offsets_S1[0] != staged.offsets_S1[-1]:
            kinds = {pa.int64(): "integers", pa.string(): "strings"}
            raise DataError(
                f"user ids in data.users are {kinds[found]}, those of the interactions {kinds[user_type]}; "
                "set data.id_type=string"
            )


def users_of_shard(directory: Location, chunks: Sequence[Staged], shard: int, user_type: pa.DataType) -> pa.Table:
    """The rows of the table that belong to a shard, in the order of the files.

    Raises:
        DataError: a user stands in it twice.
    """
    parts = []
    for index, staged in enumerate(chunks):
        part = read_staged(user_chunk_file(directory, index), staged, shard)
        field = pa.field("user_id", user_type)
        parts.append(part.cast(pa.schema([field, *list(part.schema)[1:]])))
    users = pa.concat_tables(parts).combine_chunks()
    ids = users.column("user_id").combine_chunks()
    if len(pc.unique(ids)) < len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
        raise DataError(f"data.users holds a user twice, for example {twice!s}; keep one row of each")
    return users


def attributes_of(users: pa.Table, user_ids: pa.Array) -> pa.Table:
    """(B rows) the attributes of these users, null where the table has no row of them."""
    rows = pc.index_in(user_ids, value_set=users.column("user_id").combine_chunks())
    return users.drop_columns("user_id").take(rows).combine_chunks()
