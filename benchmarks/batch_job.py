"""What the job adds to scoring: the whole batch job, Parquet in and Parquet out, against the exact search alone.

    python benchmarks/batch_job.py [--shapes gowalla large]

A synthetic world of the given shape is prepared and fitted (ALS, one epoch: the vectors' quality is of no matter here).
Then, in turns, on the same bundle and with the same number of threads:

- scoring: all queries and histories in memory, ``ExactIndex.search`` with seen items left out, by one process;
- job: the batch job on Ray actors of one thread: read user shards, search, look up ids, write and rename the parts.

``ratio_<shape>_job`` compares the rate while actors work (what a long job approaches), ``ratio_<shape>_job_wall`` the
wall clock with the start of the actors (imports, memory map, first search). Scoring seconds / job seconds, medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from recsys_ray.base.storage import Location
from recsys_ray.base.types import ItemLists
from recsys_ray.cluster.recommend import run_batch
from recsys_ray.cluster.session import Session, set_threads
from recsys_ray.config import Config
from recsys_ray.pipeline import Pipeline
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.rank import seen_items

SHAPES = {"gowalla": (29_858, 40_981, 64), "large": (200_000, 50_000, 128)}
N = 20


def configuration(shape: str, output: str) -> Config:
    users, items, dim = SHAPES[shape]
    data = {"source": "synthetic", "users": users, "items": items, "interactions_per_user": 27.0}
    model = {"name": "als", "embedding_dim": dim, "epochs": 1}
    tree = {"name": shape, "output": output, "data": data, "model": model, "recommend": {"n": N}}
    return Config.model_validate_json(json.dumps(tree))


def scoring_seconds(bundle: Bundle) -> float:
    """One exact search for all users, everything in memory."""
    shards = [bundle.requests(shard) for shard in range(bundle.num_shards)]
    queries, seen = [], []
    for requests in shards:
        assert bundle.vectors is not None
        queries.append(bundle.vectors.queries(requests))
        seen.append(seen_items(requests))
    hidden = ItemLists.concatenate(seen)
    queries_BD, index = np.concatenate(queries), bundle.index
    index.search(queries_BD[:256], N, hidden.slice(0, 256), bundle.scorer.scorable_I)  # compile, prepare the items
    started = time.perf_counter()
    index.search(queries_BD, N, hidden, bundle.scorer.scorable_I)
    return time.perf_counter() - started


def measure(shape: str, repetitions: int, session: Session) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(configuration(shape, folder), session)
        location = Location(pipeline.train()["path"])
        bundle = open_bundle(location)
        set_threads(session.num_cpus)
        scoring, wall, working = [], [], []
        for repetition in range(repetitions):
            scoring.append(scoring_seconds(bundle))
            started = time.perf_counter()
            run = Location.of(Path(folder) / f"run-{repetition}")
            facts = run_batch(session, location, run, pipeline.config.recommend, bundle.users_per_shard)
            wall.append(time.perf_counter() - started)
            working.append(facts["shard_seconds"] / facts["actors"])
            line = f"{shape}: scoring {scoring[-1]:.2f} s, job {working[-1]:.2f} s, wall {wall[-1]:.2f} s"
            print(line, file=sys.stderr, flush=True)
    seconds = statistics.median(scoring)
    return {
        f"ratio_{shape}_job": round(seconds / statistics.median(working), 3),
        f"ratio_{shape}_job_wall": round(seconds / statistics.median(wall), 3),
    }


def measure_all(shapes: list[str], repetitions: int) -> dict[str, Any]:
    ratios: dict[str, Any] = {}
    for shape in shapes:
        settings = configuration(shape, "unused").cluster
        with Session(settings, lambda message: print(message, file=sys.stderr)) as session:
            ratios |= measure(shape, repetitions, session)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps(measure_all(arguments.shapes, arguments.repetitions)))


if __name__ == "__main__":
    main()
