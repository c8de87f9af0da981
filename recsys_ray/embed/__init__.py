"""The embedding job without a cluster: shards of items to a table of vectors, nothing encoded twice."""

from recsys_ray.embed.shard import ShardEncoder, ShardReader, ShardWork
from recsys_ray.embed.table import (
    MANIFEST,
    EmbedJob,
    add_up,
    finish_table,
    lasting,
    prune_tables,
    read_content,
    start_table,
    summary,
    table_facts,
)

__all__ = [
    "MANIFEST",
    "EmbedJob",
    "ShardEncoder",
    "ShardReader",
    "ShardWork",
    "add_up",
    "finish_table",
    "lasting",
    "prune_tables",
    "read_content",
    "start_table",
    "summary",
    "table_facts",
]
