"""A table of item vectors on disk, and what is reused of earlier ones.

    <store>/<key>/_table.json          written first: the encoders, the number of shards
    <store>/<key>/part-00000.parquet   the items whose id falls into this shard; the file name is the commit
    <store>/<key>/manifest.json        written last, with the counts

Every vector is kept beside a hash of what it was made from (text or poster, encoder, weights). Earlier tables of the
same store are the cache: an item whose hash is found there is never encoded again, and since shards are hash buckets
of the item id, a worker looks into the one old part (or the few) that can hold its items.

N are the items of a shard.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError, StorageError
from recsys_ray.base.manifest import read_manifest, write_manifest
from recsys_ray.base.provenance import stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, FloatArray, ItemContent
from recsys_ray.content.config import ContentSettings
from recsys_ray.content.encoders.fusion import normalized
from recsys_ray.content.encoders.image import image_fingerprint
from recsys_ray.content.encoders.text import text_fingerprint
from recsys_ray.content.gaps import gaps
from recsys_ray.content.posters.reader import poster_stamps
from recsys_ray.data.prepare.shard import part_file

FORMAT = 2
START, MANIFEST = "_table.json", "manifest.json"
FACTS = b"recsys_ray.facts"
"""Key in a part's metadata: what its shard counted."""
NAMED_PROBLEMS = 20
EARLIER_TABLES = 2
KINDS = ("text", "image")


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """One table being made; small, and the same for every worker."""

    items: Location
    """``items.parquet`` of the prepared data."""
    table: Location
    known: tuple[Location, ...]
    """Earlier tables to take vectors from, newest first."""
    num_shards: int
    settings: ContentSettings


def table_facts(items: Location, settings: ContentSettings) -> dict[str, Any]:
    """Everything that decides what is in a table, JSON-ready: its fingerprint names the table's directory."""
    table = items.read_parquet()
    text, image = settings.text, settings.image
    return {
        "format": FORMAT,
        "catalogue": hashlib.sha256(items.read_bytes()).hexdigest(),
        "fusion": settings.fusion.model_dump(mode="json"),
        "fields": text.fields if text else [],
        "text": text_fingerprint(text) if text else None,
        "image": image_fingerprint(image) if image else None,
        "posters": poster_stamps(*posters_of(table), image) if image else None,
    }


def start_table(
    items: Location, store: Location, key: str, facts: dict[str, Any], settings: ContentSettings, owner: str
) -> EmbedJob:
    """The job of a new table, or of one that was begun: its parts stay."""
    table = store / key
    num_items = items.read_parquet(["item_id"]).num_rows
    num_shards = 1 << max(0, (-(-num_items // settings.items_per_shard) - 1).bit_length())
    begun = read_start(table)
    if begun is None:  # parts of a table whose start can't be read may be of another number of shards
        table.remove()
        begun = facts | {"num_shards": num_shards, "owner": owner, "started_at": datetime.now(UTC).isoformat()}
        write_manifest(table / START, begun)
    num_shards = int(begun["num_shards"])
    return EmbedJob(items, table, tuple(_earlier(store, key, facts)), num_shards, settings)


def _earlier(store: Location, key: str, facts: dict[str, Any]) -> list[Location]:
    """The newest tables that share an encoder with this one, finished or not."""
    shared = [
        store / name
        for name, start in _others(store, key)
        if any(facts[kind] is not None and facts[kind] == start.get(kind) for kind in KINDS)
    ]
    return shared[:EARLIER_TABLES]


def _others(store: Location, key: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and starts of the tables beside this one, newest first."""
    found = [(name, start) for name in store.names() if name != key and (start := read_start(store / name))]
    return sorted(found, key=lambda entry: str(entry[1]["started_at"]), reverse=True)


def read_start(table: Location) -> dict[str, Any] | None:
    """What was written when a table was begun; None where nothing is there that can be read."""
    if not (table / START).exists():
        return None
    try:
        start = read_manifest(table / START, since=FORMAT)
    except StorageError:
        return None
    return start if {"num_shards", "started_at"} <= start.keys() else None


def finish_table(job: EmbedJob, progress: Callable[[str], None] = lambda message: None) -> dict[str, Any]:
    """Commit the table with what all its parts counted, also those of earlier, killed attempts.

    Raises:
        DataError: more texts or posters are missing than ``content.missing_at_most`` allows; the parts stay.
    """
    counted, files = [], {}
    for name in map(part_file, range(job.num_shards)):
        data = (job.table / name).read_bytes()
        counted.append(json.loads(pq.read_schema(pa.BufferReader(data)).metadata[FACTS]))
        files[name] = stamp(data)
    facts = {"format": FORMAT, "num_shards": job.num_shards} | add_up(counted) | {"files": files}
    for line in gaps(facts, job.settings):
        progress(f"embed: {line}")
    write_manifest(job.table / MANIFEST, facts)
    return facts


def prune_tables(store: Location, current: Location, owner: str, keep: int) -> list[str]:
    """Delete all but the newest ``keep`` tables of this owner beside the current one; their names."""
    old = [name for name, start in _others(store, current.name) if start.get("owner") == owner][keep:]
    store.remove(old)
    return old


def posters_of(items: pa.Table) -> tuple[list[str | None], list[str]]:
    """Poster references and ids as text, as the encoders read them."""
    return items.column("poster").to_pylist(), items.column("item_id").cast(pa.string()).to_pylist()


def overlapping(shard: int, num_shards: int, others: int) -> range:
    """Shards of a table of ``others`` shards that can hold items of this shard; both counts are powers of two."""
    return range(shard % others, others, min(num_shards, others))


def known_vectors(part: Location, kind: str, wanted: dict[str, None]) -> dict[str, FloatArray]:
    """Vectors of an old part by hash, those that are wanted."""
    try:
        table = part.read_parquet()
    except StorageError:  # deleted in between: then it is encoded again
        return {}
    if kind not in table.schema.names:
        return {}
    position = KINDS.index(kind)
    hashes = [both.split("/")[position] for both in table.column("content_hash").to_pylist()]
    vectors_ND, _ = _vectors(table.column(kind).combine_chunks())
    return {found: vectors_ND[row] for row, found in enumerate(hashes) if found in wanted}


def write_part(
    part: Location,
    item_ids: pa.Array,
    content_hashes: list[str],
    columns: dict[str, tuple[FloatArray, BoolArray]],
    facts: dict[str, Any],
) -> None:
    table_schema = schema.embeddings(item_ids.type, {name: block.shape[1] for name, (block, _) in columns.items()})
    table_schema = table_schema.with_metadata({FACTS: json.dumps(facts).encode()})
    arrays = [
        pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(block_ND).reshape(-1)), block_ND.shape[1], mask=pa.array(~present_N)
        )
        for block_ND, present_N in columns.values()
    ]
    table = pa.Table.from_arrays([item_ids, pa.array(content_hashes, pa.string()), *arrays], schema=table_schema)
    # Vectors hardly repeat, and the bytes of a float compress when those of like weight stand together.
    encoding = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in columns}
    part.write_parquet(table, use_dictionary=False, column_encoding=encoding)


def _vectors(column: pa.Array) -> tuple[FloatArray, BoolArray]:
    """((N, D) vectors, zero where null; which are not null)."""
    present_N = pc.is_valid(column).to_numpy(zero_copy_only=False)
    dim = column.type.list_size
    values = column.values.slice(column.offset * dim, len(column) * dim).to_numpy(zero_copy_only=False)
    vectors_ND = np.where(present_N[:, None], values.reshape(len(column), dim), np.float32(0)).astype(np.float32)
    return vectors_ND, present_N


def read_content(table: Location, item_ids: pa.Array, kind: str = "fused") -> ItemContent:
    """The vectors of these items at length 1, in their order; items that the table does not hold have none.

    Raises:
        DataError: the table is not finished, or has no such kind of vector.
    """
    if not (table / MANIFEST).exists():
        raise DataError(f"{table}: no finished table of embeddings here; run embed")
    vectors_ID: npt.NDArray[np.float32] | None = None
    present_I = np.zeros(len(item_ids), np.bool_)
    for shard in range(int(read_manifest(table / MANIFEST, since=FORMAT)["num_shards"])):
        part = (table / part_file(shard)).read_parquet()
        if kind not in part.schema.names:
            raise DataError(f"{table}: no {kind} vectors; set content.{kind} and run embed")
        rows = pc.index_in(part.column("item_id"), value_set=item_ids)
        block_ND, block_present_N = _vectors(part.column(kind).combine_chunks())
        wanted_N = pc.is_valid(rows).to_numpy() & block_present_N
        rows_N = pc.fill_null(rows, -1).to_numpy()[wanted_N]
        if vectors_ID is None:
            vectors_ID = np.zeros((len(item_ids), block_ND.shape[1]), np.float32)
        vectors_ID[rows_N], present_I[rows_N] = block_ND[wanted_N], True
    assert vectors_ID is not None  # a table has at least one shard
    return ItemContent(vectors_ID if kind == "fused" else normalized(vectors_ID), present_I)


def add_up(shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The counts of all shards together; problems by category, and the first of them by name."""
    totals: Counter[str] = Counter()
    problems: list[tuple[str, str]] = []
    for facts in shards:
        problems += facts.get("problems", [])
        totals.update({name: value for name, value in facts.items() if name != "problems"})
    result: dict[str, Any] = dict(totals)
    if problems:
        result["poster_problems"] = dict(Counter(problem.partition(":")[0] for _, problem in problems))
        result["poster_problem_items"] = [list(problem) for problem in problems[:NAMED_PROBLEMS]]
    return result


def durable_counts(totals: dict[str, Any]) -> dict[str, Any]:
    """What stays true of a finished table: its gaps and problems, not who encoded what when."""
    kept = ("items", "without_text", "without_image", "without_vector", "poster_problems", "poster_problem_items")
    return {name: totals[name] for name in kept if name in totals}


def summary(facts: dict[str, Any]) -> str:
    """The counts and the speed of each stage in a few words."""
    parts = []
    for kind in ("text", "image"):
        if f"without_{kind}" in facts:
            encoded, seconds = facts[f"{kind}_encoded"], facts.get(f"{kind}_seconds", 0.0)
            speed = f" at {encoded / seconds:,.0f}/s an actor" if encoded and seconds else ""
            reused, without = facts.get(f"{kind}_reused", 0), facts[f"without_{kind}"]
            parts.append(f"{kind}: {encoded:,} encoded{speed}, {reused:,} known, {without:,} without")
    if facts.get("read_seconds"):
        parts.append(f"read {facts['items'] / facts['read_seconds']:,.0f} items/s an actor")
    for problem, count in facts.get("poster_problems", {}).items():
        parts.append(f"posters {problem}: {count:,}")
    return f"embed: {facts['items']:,} items; " + "; ".join(parts)
