"""The embedding job without Ray: what is encoded, what is reused, what a part holds."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.content import encode
from recsys_ray.content import table as table_module
from recsys_ray.content.config import ContentSettings
from recsys_ray.content.encode import ShardEncoder, ShardReader
from recsys_ray.content.table import (
    START,
    EmbedJob,
    finish_table,
    overlapping,
    prune_tables,
    read_content,
    start_table,
    table_facts,
)

DIM = 16
ITEMS = 150


class HashEncoder:
    """A vector of each text that nothing else has, and a record of what was asked for."""

    dim = DIM
    asked: list[str]

    def __init__(self) -> None:
        self.asked = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.stack([self.vector(text) for text in texts])

    @staticmethod
    def vector(text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> HashEncoder:
    one = HashEncoder()
    monkeypatch.setattr(encode, "open_text_encoder", lambda settings: one)
    for module in (encode, table_module):
        monkeypatch.setattr(module, "text_fingerprint", lambda settings: {"model": settings.model})
    return one


def png(color: tuple[int, int, int]) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (12, 18), color).save(sink, "PNG")
    return sink.getvalue()


def write_items(folder: Path, titles: Sequence[str | None], posters: Sequence[str | None] | None = None) -> Location:
    folder.mkdir(parents=True, exist_ok=True)
    rows = len(titles)
    table = pa.table(
        {
            "item_id": pa.array([f"item {row}" for row in range(rows)]),
            "title": pa.array(titles, pa.string()),
            "text": pa.nulls(rows, pa.string()),
            "genres": pa.nulls(rows, pa.list_(pa.string())),
            "year": pa.nulls(rows, pa.int32()),
            "poster": pa.array(posters or [None] * rows, pa.string()),
        }
    )
    pq.write_table(table, folder / "items.parquet")
    return Location.of(folder / "items.parquet")


def embed(items: Location, store: Location, settings: ContentSettings, stop_after: int | None = None) -> Location:
    """All shards here, one after the other; with ``stop_after``, as if killed behind that many parts."""
    facts = table_facts(items, settings)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    job = start_table(items, store, key, facts, settings, "me")
    reader, writer = ShardReader(job), ShardEncoder(job)
    for shard in range(job.num_shards):
        if not (job.table / f"part-{shard:05d}.parquet").exists():
            if shard == stop_after:
                return job.table
            writer(reader(shard))
    finish_table(job)
    return job.table


def settings(**changes: Any) -> ContentSettings:
    return ContentSettings.model_validate({"items_per_shard": 20, "text": {"fields": ["title"]}, **changes})


TITLES = [f"Title {row}" for row in range(ITEMS)]


def test_every_item_gets_the_vector_of_its_own_text(tmp_path: Path, encoder: HashEncoder) -> None:
    table = embed(write_items(tmp_path, TITLES), Location.of(tmp_path / "store"), settings())
    ids = pa.array([f"item {row}" for row in (7, 149, 0)] + ["stranger"])
    content = read_content(table, ids)
    assert content.present_I.tolist() == [True, True, True, False]
    for row, number in enumerate((7, 149, 0)):
        np.testing.assert_allclose(content.vectors_ID[row], HashEncoder.vector(TITLES[number]), atol=1e-6)
    assert not content.vectors_ID[3].any()


def test_a_second_table_encodes_only_what_changed(tmp_path: Path, encoder: HashEncoder) -> None:
    store = Location.of(tmp_path / "store")
    first = embed(write_items(tmp_path / "a", TITLES), store, settings())
    assert sorted(encoder.asked) == sorted(TITLES)
    encoder.asked.clear()
    changed = ["New 3" if row == 3 else "New 77" if row == 77 else title for row, title in enumerate(TITLES)]
    second = embed(write_items(tmp_path / "b", [*changed, "One more"]), store, settings(items_per_shard=100))
    assert second != first
    assert sorted(encoder.asked) == ["New 3", "New 77", "One more"]
    ids = pa.array([f"item {row}" for row in range(ITEMS)])
    before, after = read_content(first, ids).vectors_ID, read_content(second, ids).vectors_ID
    assert np.flatnonzero((before != after).any(axis=1)).tolist() == [3, 77]


def test_another_encoder_shares_nothing(tmp_path: Path, encoder: HashEncoder) -> None:
    store, items = Location.of(tmp_path / "store"), write_items(tmp_path, TITLES)
    embed(items, store, settings())
    encoder.asked.clear()
    embed(items, store, settings(text={"fields": ["title"], "model": "other"}))
    assert len(encoder.asked) == ITEMS


def test_killed_and_run_again_encodes_nothing_twice(tmp_path: Path, encoder: HashEncoder) -> None:
    items = write_items(tmp_path, TITLES)
    whole = embed(items, Location.of(tmp_path / "whole"), settings())
    encoder.asked.clear()
    store = Location.of(tmp_path / "store")
    broken = embed(items, store, settings(), stop_after=3)
    with pytest.raises(DataError, match="run embed"):
        read_content(broken, pa.array(["item 0"]))
    assert 0 < len(encoder.asked) < ITEMS
    again = embed(items, store, settings())
    assert again == broken and sorted(encoder.asked) == sorted(TITLES)
    for name in whole.names():
        if name.startswith("part-"):
            assert (whole / name).read_parquet().equals((again / name).read_parquet())
    timed = {"read_seconds": 0, "text_seconds": 0, "files": {}, "checksum": ""}  # parts hold how long they took
    found, expected = ((table / "manifest.json").read_json() | timed for table in (again, whole))
    assert found == expected


def test_a_table_cut_off_midway_still_feeds_the_next(tmp_path: Path, encoder: HashEncoder) -> None:
    store = Location.of(tmp_path / "store")
    embed(write_items(tmp_path / "a", TITLES), store, settings(), stop_after=4)
    known = set(encoder.asked)
    encoder.asked.clear()
    embed(write_items(tmp_path / "b", [*TITLES, "One more"]), store, settings())
    assert not known & set(encoder.asked) and known | set(encoder.asked) == {*TITLES, "One more"}


def test_equal_texts_are_encoded_once_and_items_without_text_have_no_vector(
    tmp_path: Path, encoder: HashEncoder
) -> None:
    titles = ["Twin", "Twin", None, "", "Alone"]
    table = embed(write_items(tmp_path, titles), Location.of(tmp_path / "store"), settings())
    assert sorted(encoder.asked) == ["Alone", "Twin"]
    content = read_content(table, pa.array([f"item {row}" for row in range(5)]))
    assert content.present_I.tolist() == [True, True, False, False, True]
    np.testing.assert_array_equal(content.vectors_ID[0], content.vectors_ID[1])
    manifest = (table / "manifest.json").read_json()
    assert (manifest["items"], manifest["without_text"], manifest["without_vector"]) == (5, 2, 2)


def test_posters_are_read_fused_counted_and_noticed_when_they_change(tmp_path: Path, encoder: HashEncoder) -> None:
    folder = tmp_path / "posters"
    folder.mkdir()
    for row, color in enumerate([(250, 20, 20), (20, 20, 250)]):
        (folder / f"{row}.png").write_bytes(png(color))
    (folder / "broken.png").write_bytes(b"not an image at all")
    posters = [str(folder / "0.png"), str(folder / "1.png"), str(folder / "broken.png"), "nowhere.png", None]
    items, store = write_items(tmp_path, TITLES[:5], posters), Location.of(tmp_path / "store")
    both = settings(image={"encoder": "palette"})
    table = embed(items, store, both)
    manifest = (table / "manifest.json").read_json()
    assert (manifest["image_encoded"], manifest["without_image"]) == (2, 3)
    assert sum(manifest["poster_problems"].values()) == 2
    assert {name for name, _ in manifest["poster_problem_items"]} == {"item 2", "item 3"}
    ids = pa.array([f"item {row}" for row in range(5)])
    fused, text = read_content(table, ids).vectors_ID, read_content(table, ids, "text").vectors_ID
    np.testing.assert_allclose(np.linalg.norm(fused, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(fused[2:], text[2:], atol=1e-6)
    assert (np.abs(fused[:2] - text[:2]).max(axis=1) > 0.01).all()

    encoder.asked.clear()
    assert embed(items, store, both) == table
    (folder / "1.png").write_bytes(png((20, 250, 20)))
    again = embed(items, store, both)
    counted = (again / "manifest.json").read_json()
    assert again != table and (counted["image_encoded"], counted["image_reused"]) == (1, 1) and not encoder.asked


def test_parts_are_written_without_dictionaries_byte_by_byte(tmp_path: Path, encoder: HashEncoder) -> None:
    table = embed(write_items(tmp_path, TITLES), Location.of(tmp_path / "store"), settings())
    parts = sorted(Path(str(table)).glob("part-*.parquet"))
    assert len(parts) == 8
    group = pq.ParquetFile(parts[0]).metadata.row_group(0)
    encodings = {group.column(column).path_in_schema: group.column(column).encodings for column in range(4)}
    for name in ("text.list.element", "fused.list.element"):
        assert "BYTE_STREAM_SPLIT" in encodings[name]
    assert not any("DICTIONARY" in name for found in encodings.values() for name in found)


def test_old_tables_are_deleted_but_not_those_of_others(tmp_path: Path, encoder: HashEncoder) -> None:
    store = Location.of(tmp_path / "store")
    tables = [embed(write_items(tmp_path / str(n), TITLES[: n + 1]), store, settings()) for n in range(4)]
    foreign = tables[0] / START
    foreign.write_json(foreign.read_json() | {"owner": "somebody else"})
    assert prune_tables(store, tables[3], "me", keep=1) == [tables[1].name]
    assert store.names() == sorted(table.name for table in (tables[0], tables[2], tables[3]))


@pytest.mark.parametrize(("num_shards", "others"), [(8, 8), (8, 2), (2, 8), (1, 16), (16, 1)])
def test_overlapping_shards_hold_every_key_of_a_shard(num_shards: int, others: int) -> None:
    for key in range(200):
        assert key % others in overlapping(key % num_shards, num_shards, others)


def test_job_travels(tmp_path: Path, encoder: HashEncoder) -> None:
    import pickle

    items = write_items(tmp_path, TITLES[:3])
    job = start_table(items, Location.of(tmp_path), "key", table_facts(items, settings()), settings(), "me")
    assert pickle.loads(pickle.dumps(job)) == job and isinstance(job, EmbedJob)
