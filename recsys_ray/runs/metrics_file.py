"""What a run took and found as Prometheus reads it: a text file beside the parts, for the textfile collector of a node
exporter or for a push gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from recsys_ray.base.storage import Location

METRICS_FILE = "_metrics.prom"


def run_metrics(name: str, results: Mapping[str, Mapping[str, Any]], now: float) -> str:
    """The results of a run by stage, as one text. ``now``: seconds since 1970. What is not there is left out."""
    return generate_latest(run_registry(name, results, now)).decode()


def run_registry(name: str, results: Mapping[str, Mapping[str, Any]], now: float) -> CollectorRegistry:
    """The same as time series."""
    registry = CollectorRegistry()

    def gauge(metric: str, told: str, *labels: str) -> Gauge:
        return Gauge(f"recsys_ray_run_{metric}", told, ["name", *labels], registry=registry)

    gauge("finished_timestamp_seconds", "When the run was done").labels(name).set(now)
    seconds = gauge("stage_seconds", "What a stage took; 0 where nothing had changed", "stage")
    memory = gauge("stage_peak_bytes", "Most memory of all processes in a stage", "stage")
    for stage, result in results.items():
        seconds.labels(name, stage).set(0 if result.get("skipped") else result.get("seconds", 0))
        if result.get("memory") is not None:
            memory.labels(name, stage).set(result["memory"])
    prepared = results.get("prepare", {})
    sizes = gauge("size", "Users, items, and interactions by part", "of")
    counts = {key: prepared[key] for key in ("users", "items") if key in prepared} | prepared.get("interactions", {})
    for what, count in counts.items():
        sizes.labels(name, what).set(count)
    quality = gauge("quality", "Metrics on the held-out part", "metric")
    for metric, value in results.get("evaluate", {}).get("metrics", {}).items():
        quality.labels(name, metric).set(value)
    return registry


def write_metrics(run: Location, name: str, results: Mapping[str, Mapping[str, Any]], now: float) -> None:
    """Beside the parts of a run, whole or not at all."""
    (run / METRICS_FILE).write_bytes(run_metrics(name, results, now).encode())
