"""A published run and a client of the service over it: no Ray, no network, nothing slower than a small fit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext, ItemContent
from recsys_ray.data.prepared import Prepared
from recsys_ray.models import MODELS
from recsys_ray.recommend.bundle import write_bundle
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.runs import publish
from recsys_ray.runs.batch import ShardRecommender
from recsys_ray.runs.published import RunFacts, part_stamps
from recsys_ray.serving import ServingSettings, build_app
from tests.data_worlds import prepare_values

DATA: dict[str, Any] = {
    "source": "synthetic",
    "users": 200,
    "items": 80,
    "interactions_per_user": 12,
    "shards": 3,
}


def prepared_world(folder: Path, name: str = "world", **data: Any) -> Prepared:
    return prepare_values(folder / "prepared" / name, **DATA | data)


def publish_run(
    folder: Path,
    prepared: Prepared,
    model: str = "item_cf",
    tag: str = "a",
    data: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    second: Location | None = None,
    **recommend: Any,
) -> Location:
    """Fit, write every list, publish: what ``recsys-ray run`` leaves behind, without its stages.

    ``second`` is the bundle that ``recommend.ranker`` stands for.
    """
    output, parts = Location.of(folder), ("train",)
    bundle = output / "models" / f"{model}-{tag}"
    config = MODELS[model].model_validate(settings or {})
    train = prepared.train_data(parts)
    if config.needs_content:
        vectors = np.random.default_rng(0).normal(size=(train.num_items, 16)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        train = replace(train, content=ItemContent(vectors, np.ones(train.num_items, np.bool_)))
    scorer = config.fit_scorer(train, FitContext())
    write_bundle(
        bundle,
        scorer,
        prepared,
        parts,
        {"model": model, "fingerprint": tag, "predicts_ratings": config.predicts_ratings},
    )
    asked = RecommendSettings.model_validate({"n": 10} | recommend)
    run = publish.start_run(output / "recommendations", tag * 10, {})
    recommender = ShardRecommender(str(bundle), str(run), asked, None if second is None else str(second))
    for shard in range(prepared.num_shards):
        recommender(shard)
    facts = RunFacts(
        model=publish.used_model(bundle),
        ranker=None if second is None else publish.used_model(second),
        recommend=asked,
        min_rating=(data or {}).get("filters", {}).get("min_rating"),
        parts=part_stamps(run, [name for name in run.names() if publish.is_part(name)]),
        evaluation={"ndcg@10": 0.5},
    )
    publish.publish(output / "recommendations", run, facts)
    return run


def published_rows(run: Location) -> dict[Any, list[dict[str, Any]]]:
    """User id -> rows of the published file."""
    tables = [(run / name).read_parquet() for name in run.names() if publish.is_part(name)]
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in pa.concat_tables(tables).to_pylist():
        found.setdefault(row["user_id"], []).append(row)
    return found


@contextmanager
def listening(settings: ServingSettings, folder: Path) -> Iterator[str]:
    """The service under uvicorn in a thread, on a free port; its address."""
    config = uvicorn.Config(build_app(settings, str(folder)), port=0, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def client(folder: Path, **settings: Any) -> Iterator[TestClient]:
    """The service over everything published in the folder."""
    app = build_app(ServingSettings.model_validate(settings), str(folder))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=True) as opened:  # type: ignore[arg-type]
        yield opened


def counted(service: TestClient, name: str, **labels: str) -> float:
    """A sample of /metrics by name and labels, added up over the replicas; 0 where nothing was counted."""
    families = text_string_to_metric_families(service.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def two_runs(folder: Path) -> Path:
    """Two published runs of one data set: item-CF, then popularity as the latest."""
    prepared = prepared_world(folder)
    publish_run(folder, prepared, "item_cf", tag="a")
    publish_run(folder, prepared, "popularity", tag="b")
    return folder


def run_ids(folder: Path) -> list[str]:
    """Ids of the runs of ``two_runs``, item-CF first."""
    return sorted((path.name for path in (folder / "recommendations").iterdir() if path.is_dir()), key=lambda n: n[-1])
