"""The text file of a run for Prometheus."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds
from prometheus_client.parser import text_string_to_metric_families

from recsys_ray.runs.metrics_file import METRICS_FILE, run_metrics
from tests.here import without_ray
from tests.worlds import World


def samples(text: str) -> dict[tuple[str, str], float]:
    """(metric, its label beside the name) -> value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "name"}
            found[sample.name.removeprefix("recsys_ray_run_"), *labels.values() or ("",)] = sample.value
    return found


def test_what_a_run_said_is_what_prometheus_reads() -> None:
    results = {
        "prepare": {
            "seconds": 2.5,
            "skipped": False,
            "memory": 7,
            "users": 3,
            "items": 4,
            "interactions": {"train": 9},
        },
        "train": {"seconds": 1.5, "skipped": True},
        "evaluate": {"seconds": 0.5, "skipped": False, "metrics": {"ndcg@10": 0.25}},
    }
    assert samples(run_metrics('odd "name"\n', results, 1234.5)) == {
        ("finished_timestamp_seconds", ""): 1234.5,
        ("stage_seconds", "prepare"): 2.5,
        ("stage_seconds", "train"): 0.0,
        ("stage_seconds", "evaluate"): 0.5,
        ("stage_peak_bytes", "prepare"): 7.0,
        ("size", "users"): 3.0,
        ("size", "items"): 4.0,
        ("size", "train"): 9.0,
        ("quality", "ndcg@10"): 0.25,
    }


def test_it_stands_beside_the_parts_whose_readers_skip_it(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    with without_ray():
        outcome = world.command("run")
        [file] = world.folder.rglob(METRICS_FILE)
        text = file.read_text()
        again = world.command("run")
        assert file.read_text() == text  # where nothing had to be done nothing changes
        # A command that was killed between publishing and this left a draft, or nothing.
        (file.parent / f".{METRICS_FILE}.1234abcd.tmp").write_text("half of")
        file.unlink()
        healed = world.command("run")
    assert {outcome.status, again.status, healed.status} == {0}, outcome.errors + healed.errors
    assert file.exists() and not list(file.parent.glob(".*"))
    found = samples(text)
    assert found["size", "users"] == 300 and found["stage_seconds", "recommend"] > 0
    assert 0 < found["quality", "recall@10"] <= 1
    assert ds.dataset(file.parent, format="parquet").count_rows() == 300 * 20
