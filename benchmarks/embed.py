"""Items per second of the embedding job against a plain loop over the same items on the same cores, in one run.

    python benchmarks/embed.py [--data ../shared/datasets/ml-latest-small] [--images 1000] [--repetitions 3]

- plain text: one process, all cores, ``SentenceTransformer.encode`` as its documentation shows it (batches of 32);
- plain images: one process, all cores, decode and encode in a loop of batches of 32;
- ours: the Ray Data job, from a table of items to the written table of vectors.

All clocks run from before the libraries and weights are loaded until the last vector is there: both sides pay for
their start, and Ray itself is up before. ``working`` leaves the start of both out (for the job: the seconds of its
busier stage, reading or encoding, since the two run side by side). Texts are MovieLens titles, genres and tags, or
those of a synthetic world without --data. Images are drawn posters of 500 x 750 pixels as JPEG files. ResNet-18 has
random weights here: its speed does not depend on them.

``ratio_text_fast`` is the job at ``precision: bfloat16`` against the plain loop at float32, and ``neighbours_kept`` the
share of every item's ten nearest neighbours that it keeps. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

PLAIN_TEXT = """
import json, sys, time
started = time.perf_counter()
import numpy, torch
torch.set_num_threads(int(sys.argv[3]))
from recsys_ray.encoders import TextSettings
from recsys_ray.encoders.text import resolve_model
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(str(resolve_model(TextSettings())), device="cpu")
texts = json.load(open(sys.argv[1]))
loaded = time.perf_counter()
vectors = model.encode(texts, batch_size=32, normalize_embeddings=True)
finished = time.perf_counter()
numpy.save(sys.argv[2], vectors)
print(json.dumps([finished - started, finished - loaded]))
"""
PLAIN_IMAGES = """
import json, pathlib, sys, time
started = time.perf_counter()
import numpy, torch
torch.set_num_threads(int(sys.argv[3]))
from recsys_ray.encoders import ImageSettings, open_image_encoder, prepare_image
settings = ImageSettings(encoder=sys.argv[2], weights=sys.argv[4])
encoder = open_image_encoder(settings)
files = sorted(pathlib.Path(sys.argv[1]).glob("*.jpg"))
loaded = time.perf_counter()
for start in range(0, len(files), 32):
    images = [prepare_image(file.read_bytes(), settings) for file in files[start:start + 32]]
    encoder.encode(numpy.stack(images))
finished = time.perf_counter()
print(json.dumps([finished - started, finished - loaded]))
"""


def plain(code: str, *arguments: str) -> tuple[float, float]:
    """(Seconds in all, seconds without the start) of a fresh process."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    whole, working = json.loads(done.stdout.splitlines()[-1])
    return whole, working


def job(items: Path, folder: Path, settings: dict[str, Any], threads: int) -> tuple[float, float, Path]:
    """(Seconds in all, seconds of the busiest stage of the actors, the table) of the Ray Data job."""
    from recsys_ray.base.storage import Location
    from recsys_ray.cluster.config import ClusterSettings
    from recsys_ray.cluster.embed import run_embed
    from recsys_ray.cluster.session import Session
    from recsys_ray.content.config import ContentSettings
    from recsys_ray.content.table import finish_table, start_table, table_facts

    session, wanted = Session(ClusterSettings(num_cpus=threads)), ContentSettings.model_validate(settings)
    session.connect()
    at, store = Location.of(items), Location.of(tempfile.mkdtemp(dir=folder))
    started = time.perf_counter()
    work = start_table(at, store, "table", table_facts(at, wanted), wanted, "benchmark")
    facts = run_embed(session, work)
    finish_table(work)
    whole = time.perf_counter() - started
    encoding = facts.get("text_seconds", 0.0) + facts.get("image_seconds", 0.0)
    working = max(facts["read_seconds"], encoding) / facts["actors"]
    return whole, working, Path(str(work.table))


def catalogue(path: Path, titles: list[str | None], posters: list[str | None]) -> Path:
    rows = len(titles)
    columns = {
        "item_id": pa.array(np.arange(rows)),
        "title": pa.array(titles, pa.string()),
        "text": pa.nulls(rows, pa.string()),
        "genres": pa.nulls(rows, pa.list_(pa.string())),
        "year": pa.nulls(rows, pa.int32()),
        "poster": pa.array(posters, pa.string()),
    }
    pq.write_table(pa.table(columns), path)
    return path


def texts_of(data: Path | None) -> list[str]:
    """One text per item, as the job composes it."""
    from recsys_ray.content.encoders.text import compose
    from recsys_ray.data.prepare.driver import open_source
    from recsys_ray.data.sources.movielens import MovieLensSettings
    from recsys_ray.data.synthetic.source import SyntheticSettings

    if data is None:
        source = open_source(SyntheticSettings(source="synthetic", items=10_000), seed=0)
    else:
        source = open_source(MovieLensSettings(source="movielens", path=str(data)), seed=0)
    return [text for text in compose(source.items(), ["title", "genres", "text"]) if text]


def draw_posters(folder: Path, count: int) -> None:
    """JPEG files of film-poster size with smooth areas, shapes and grain."""
    from PIL import Image, ImageDraw

    generator = np.random.default_rng(0)
    for number in range(count):
        ground = generator.integers(0, 255, (6, 4, 3), dtype=np.uint8)
        image = Image.fromarray(ground).resize((500, 750), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(image)
        for _ in range(12):
            x, y, size = generator.integers(0, 500), generator.integers(0, 750), generator.integers(20, 200)
            pen.ellipse((x, y, x + size, y + size), fill=tuple(int(part) for part in generator.integers(0, 255, 3)))
        grain = generator.normal(0, 8, (750, 500, 3))
        Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)).save(
            folder / f"{number:05d}.jpg", quality=88
        )


def neighbours(vectors_ND: np.ndarray, k: int = 10) -> np.ndarray:
    scores = vectors_ND @ vectors_ND.T
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, k, axis=1)[:, :k]


def kept(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(first, second, strict=True)]))


def vectors_of(table: Path, count: int) -> np.ndarray:
    from recsys_ray.base.storage import Location
    from recsys_ray.content.table import read_content

    return read_content(Location.of(table), pa.array(np.arange(count)), "text").vectors_ID


def ratios(name: str, peers: list[tuple[float, float]], ours: list[tuple[float, float, Path]]) -> dict[str, float]:
    """Medians of both; above 1 ours is faster."""
    whole, working = (
        statistics.median(peer[clock] for peer in peers) / statistics.median(one[clock] for one in ours)
        for clock in (0, 1)
    )
    print(f"{name}: {whole:.3f} of the plain loop, {working:.3f} without the start", flush=True)
    return {f"ratio_{name}": round(whole, 3), f"ratio_{name}_working": round(working, 3)}


def measure_text(folder: Path, data: Path | None, repetitions: int, threads: int) -> dict[str, float]:
    texts = texts_of(data)
    (folder / "texts.json").write_text(json.dumps(texts))
    items = catalogue(folder / "texts.parquet", list(texts), [None] * len(texts))
    text = {"fields": ["title"]}
    peers, ours, fast = [], [], []
    for _ in range(repetitions):
        peers.append(plain(PLAIN_TEXT, str(folder / "texts.json"), str(folder / "plain.npy"), str(threads)))
        ours.append(job(items, folder, {"text": text}, threads))
        fast.append(job(items, folder, {"text": text | {"precision": "bfloat16"}}, threads))
    reference = neighbours(np.load(folder / "plain.npy"))
    same = kept(reference, neighbours(vectors_of(ours[-1][2], len(texts))))
    near = kept(reference, neighbours(vectors_of(fast[-1][2], len(texts))))
    found = {"texts": len(texts), "neighbours_kept": round(same, 4), "neighbours_kept_fast": round(near, 4)}
    return found | ratios("text", peers, ours) | ratios("text_fast", peers, fast)


def measure_images(folder: Path, count: int, repetitions: int, threads: int) -> dict[str, float]:
    import torch
    from torchvision.models import resnet18

    posters, weights = folder / "posters", folder / "resnet18.pt"
    posters.mkdir()
    draw_posters(posters, count)
    torch.save(resnet18(weights=None).state_dict(), weights)
    references: list[str | None] = [str(posters / f"{number:05d}.jpg") for number in range(count)]
    items = catalogue(folder / "images.parquet", [None] * count, references)
    found: dict[str, float] = {"images": count}
    for encoder in ("resnet18", "palette"):
        image = {"encoder": encoder} | ({"weights": str(weights)} if encoder != "palette" else {})
        peers, ours = [], []
        for _ in range(repetitions):
            peers.append(plain(PLAIN_IMAGES, str(posters), encoder, str(threads), str(weights)))
            ours.append(job(items, folder, {"text": None, "image": image, "items_per_shard": 64}, threads))
        found |= ratios(f"image_{encoder}", peers, ours)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of MovieLens latest-small")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    options = parser.parse_args()
    result: dict[str, Any] = {"benchmark": "embed", "threads": options.threads}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result |= measure_text(folder, options.data, options.repetitions, options.threads)
        result |= measure_images(folder, options.images, options.repetitions, options.threads)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
