"""One shard of items to vectors: read, hash, look up what is known, decode; then encode, fuse, write.

N are the items of a shard, R those to be encoded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from recsys_ray.base.types import BoolArray, FloatArray
from recsys_ray.content.encoders.fusion import fuse
from recsys_ray.content.encoders.hashing import NOTHING, content_hash, image_hashes, text_hashes
from recsys_ray.content.encoders.image import image_fingerprint, open_image_encoder, prepare_image
from recsys_ray.content.encoders.problems import PosterError
from recsys_ray.content.encoders.text import compose, open_text_encoder, text_fingerprint
from recsys_ray.content.posters.reader import read_posters
from recsys_ray.content.table import KINDS, EmbedJob, known_vectors, overlapping, posters_of, read_start, write_part
from recsys_ray.data.prepare.keys import hash_ids
from recsys_ray.data.prepare.shard import part_file


@dataclass(slots=True)
class Todo:
    """One kind of vector of N items: known by hash, or still to be encoded."""

    hashes_N: list[str]
    known: dict[str, FloatArray]
    missing_R: list[str] = field(default_factory=list)
    """Hashes nobody has a vector for, each once."""
    inputs_R: Any = field(default_factory=list)
    """Their texts, or their decoded images as one (R, Y, X, 3) uint8 array."""


@dataclass(slots=True)
class ShardWork:
    """What the reading side hands to the encoding side."""

    shard: int
    item_ids: pa.Array
    columns: dict[str, Todo]
    """By kind: "text", "image"."""
    facts: dict[str, Any]


class Encoder(Protocol):
    """Texts or images in, one vector each out."""

    @property
    def dim(self) -> int: ...

    def encode(self, inputs: Any, /) -> FloatArray: ...


class ShardReader:
    """The reading side: texts and posters of a shard, hashed, looked up, decoded. Needs no encoder in memory."""

    def __init__(self, job: EmbedJob) -> None:
        self.job = job
        self.items = job.items.read_parquet()
        ids = self.items.column("item_id").combine_chunks()
        self.shards_I = hash_ids(ids) & np.uint64(job.num_shards - 1)
        text, image = job.settings.text, job.settings.image
        self.fingerprints = {
            "text": text_fingerprint(text) if text else {},
            "image": image_fingerprint(image) if image else {},
        }
        starts = [(table, read_start(table)) for table in job.known]
        self.earlier = [(table, int(start["num_shards"])) for table, start in starts if start]

    def __call__(self, shard: int) -> ShardWork:
        started = time.perf_counter()
        items = self.items.filter(pa.array(self.shards_I == shard))
        item_ids = items.column("item_id").combine_chunks()
        facts: dict[str, Any] = {"items": items.num_rows}
        columns: dict[str, Todo] = {}
        settings = self.job.settings
        if settings.text:
            columns["text"] = self._texts(items, shard, facts)
        if settings.image:
            columns["image"] = self._images(items, shard, facts)
        facts["read_seconds"] = time.perf_counter() - started
        return ShardWork(shard, item_ids, columns, facts)

    def _texts(self, items: pa.Table, shard: int, facts: dict[str, Any]) -> Todo:
        assert self.job.settings.text is not None
        texts = compose(items, self.job.settings.text.fields)
        made = text_hashes(texts, self.fingerprints["text"])
        hashes_N = [found if text else NOTHING for text, found in zip(texts, made, strict=True)]
        todo = self._todo("text", hashes_N, shard)
        inputs = dict(zip(hashes_N, texts, strict=True))
        todo.inputs_R = [inputs[found] for found in todo.missing_R]
        _count(facts, "text", todo)
        return todo

    def _images(self, items: pa.Table, shard: int, facts: dict[str, Any]) -> Todo:
        settings = self.job.settings.image
        assert settings is not None
        references, item_ids = posters_of(items)
        posters = read_posters(references, item_ids, settings)
        problems = {row: poster.problem for row, poster in enumerate(posters) if poster.problem}
        data = [poster.data for poster in posters]
        made = iter(image_hashes([one for one in data if one is not None], self.fingerprints["image"]))
        hashes_N = [NOTHING if one is None else next(made) for one in data]
        todo = self._todo("image", hashes_N, shard)
        rows = {found: row for row, found in enumerate(hashes_N)}
        decoded, images = [], []
        for missing in todo.missing_R:
            bytes_ = data[rows[missing]]
            assert bytes_ is not None
            try:
                images.append(prepare_image(bytes_, settings))
                decoded.append(missing)
            except PosterError as error:
                problems |= {row: str(error) for row, found in enumerate(hashes_N) if found == missing}
        todo.missing_R, todo.inputs_R = decoded, np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8)
        todo.hashes_N = [NOTHING if row in problems else found for row, found in enumerate(hashes_N)]
        _count(facts, "image", todo)
        facts["problems"] = [(item_ids[row], problem) for row, problem in sorted(problems.items())]
        return todo

    def _todo(self, kind: str, hashes_N: list[str], shard: int) -> Todo:
        """Split the hashes into those with a known vector and those without."""
        wanted = dict.fromkeys(found for found in hashes_N if found != NOTHING)
        known: dict[str, FloatArray] = {}
        for table, num_shards in self.earlier:
            for other in overlapping(shard, self.job.num_shards, num_shards):
                if len(known) < len(wanted) and (table / part_file(other)).exists():
                    known |= known_vectors(table / part_file(other), kind, wanted)
        return Todo(hashes_N, known, [found for found in wanted if found not in known])


def _count(facts: dict[str, Any], kind: str, todo: Todo) -> None:
    present = [found for found in todo.hashes_N if found != NOTHING]
    facts[f"{kind}_encoded"] = sum(found not in todo.known for found in present)
    facts[f"{kind}_reused"] = sum(found in todo.known for found in present)
    facts[f"without_{kind}"] = len(todo.hashes_N) - len(present)


class ShardEncoder:
    """The encoding side: opens the encoders when something needs them, and writes the part of each shard."""

    def __init__(self, job: EmbedJob) -> None:
        self.job = job
        self._opened: dict[str, Encoder] = {}

    def __call__(self, work: ShardWork) -> dict[str, Any]:
        """Encode, fuse, write; the counts of the shard and the seconds of each kind."""
        facts = work.facts
        vectors: dict[str, FloatArray] = {}
        present: dict[str, BoolArray] = {}
        for kind, todo in work.columns.items():
            started = time.perf_counter()
            vectors[kind] = self._column(kind, todo)
            present[kind] = np.array([found != NOTHING for found in todo.hashes_N], np.bool_)
            facts[f"{kind}_seconds"] = time.perf_counter() - started
        fused_ND, present_N = fuse(
            vectors.get("text"),
            vectors.get("image"),
            present.get("text"),
            present.get("image"),
            self.job.settings.fusion,
        )
        none = [NOTHING] * len(work.item_ids)
        text, image = (work.columns[kind].hashes_N if kind in work.columns else none for kind in KINDS)
        facts["without_vector"] = int((~present_N).sum())
        write_part(
            self.job.table / part_file(work.shard),
            work.item_ids,
            [content_hash(one, other) for one, other in zip(text, image, strict=True)],
            {kind: (vectors[kind], present[kind]) for kind in work.columns} | {"fused": (fused_ND, present_N)},
            facts,
        )
        return facts

    def _column(self, kind: str, todo: Todo) -> FloatArray:
        by_hash = dict(todo.known)
        if len(todo.missing_R):
            by_hash |= zip(todo.missing_R, self._encoder(kind).encode(todo.inputs_R), strict=True)
        dim = len(next(iter(by_hash.values()))) if by_hash else self._encoder(kind).dim
        vectors_ND = np.zeros((len(todo.hashes_N), dim), np.float32)
        for row, found in enumerate(todo.hashes_N):
            if found != NOTHING:
                vectors_ND[row] = by_hash[found]
        return vectors_ND

    def _encoder(self, kind: str) -> Encoder:
        if kind not in self._opened:
            settings = self.job.settings
            if kind == "text":
                assert settings.text is not None
                self._opened[kind] = open_text_encoder(settings.text)
            else:
                assert settings.image is not None
                self._opened[kind] = open_image_encoder(settings.image)
        return self._opened[kind]
