"""Tracking: what MLflow is told can be read from it again, and nothing that it does fails a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.storage import Location
from recsys_ray.tracking import Trackable, TrackingSettings, flat, open_tracker, track

pytestmark = pytest.mark.slow


def a_run(bundle: Path, *, published: bool) -> Trackable:
    bundle.mkdir(exist_ok=True)
    (bundle / "manifest.json").write_text("{}")
    return Trackable(
        name="20261126T000000-abc",
        parameters={"model.name": "ease", "model.regularization": 500.0},
        metrics={"ndcg@20": 0.25, "popularity/ndcg@20": 0.1},
        epochs=[{"loss": 2.0}, {"loss": 1.0}],
        texts={"config.yaml": "name: x\n"},
        bundle=Location.of(bundle),
        published=published,
        children=[Trackable("trial 1", {"a": 1}, {"score": 0.5})],
    )


@pytest.mark.filterwarnings("ignore")  # of what MLflow asks of its own libraries
def test_what_is_told_can_be_read_again(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    tracker = open_tracker(TrackingSettings(), Location.of(tmp_path), "films")
    tracker.record(a_run(tmp_path / "bundle", published=True))
    tracker.record(a_run(tmp_path / "bundle", published=False))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("films")
    found = client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert len(found) == 4 and len(parents) == 2
    assert parents[0].data.metrics["ndcg_at_20"] == 0.25 and parents[0].data.params["model.regularization"] == "500.0"
    assert [point.value for point in client.get_metric_history(parents[0].info.run_id, "epoch/loss")] == [2.0, 1.0]
    assert {file.path for file in client.list_artifacts(parents[0].info.run_id)} == {"bundle", "config.yaml"}
    champion = client.get_model_version_by_alias("films", "champion")
    assert champion.run_id == parents[0].info.run_id  # the second was not published
    assert len(client.search_model_versions("name='films'")) == 2


def test_a_tracker_that_fails_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    said: list[str] = []
    settings = TrackingSettings(uri="http://127.0.0.1:9")
    track(
        a_run(tmp_path / "b", published=True), lambda: open_tracker(settings, Location.of(tmp_path), "x"), said.append
    )
    assert len(said) == 1 and said[0].startswith("tracking: 20261126T000000-abc is not recorded: ")
    assert "\n" not in said[0]


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r'kind=mlflow needs mlflow.*pip install "recsys_ray\[mlflow\]"$'):
        open_tracker(TrackingSettings(), Location.of(tmp_path), "x")


def test_settings_by_dotted_key() -> None:
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2], "e": {}}
