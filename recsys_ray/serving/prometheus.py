"""What the service counts, in Prometheus' format. One registry per application, so that two never mix.

The text holds the counts of every replica, told apart by the label ``replica``: a scrape that reaches another one each
time still sees every series go on where it was. ``sum without (replica)`` adds them up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from recsys_ray.serving.answers.live_run import LiveRun

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
CALL_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)  # of a language model


class Metrics:
    """Counters of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._requests = counter("recsys_requests", "Requests by route and status", ["route", "status"])
        self._seconds = histogram("recsys_request_seconds", "Time inside the service", ["route"], buckets=SECONDS)
        self.in_flight = gauge("recsys_requests_in_flight", "Requests being worked on")
        self.overloads = counter("recsys_overloads", "Requests refused because too many were in flight")
        self._answers = counter(
            "recsys_answers",
            "Lists shown to users: exposures of the variants",
            ["variant", "model", "source", "cached"],
        )
        self._cache_hits = counter("recsys_cache_hits", "Answers found in the cache", ["cache"])
        self._cache_misses = counter("recsys_cache_misses", "Answers not found in the cache", ["cache"])
        self.cache_bytes = gauge("recsys_cache_bytes", "Bytes of answers kept")
        self.batch_rows = histogram(
            "recsys_batch_rows", "Histories scored in one call", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
        )
        self.feedback = counter("recsys_feedback_events", "Interactions taken")
        self.feedback_files = counter("recsys_feedback_files", "Files written for the next batch run")
        self._exposure_rows = counter(
            "recsys_exposure_rows", "Exposures and clicks by what became of them in the journal", ["outcome"]
        )
        self.redis_errors = counter("recsys_redis_errors", "Calls of Redis that failed")
        self.narrations = counter("recsys_narrations", "Texts requested of the language model", ["outcome"])
        self._narration_seconds = histogram("recsys_narration_seconds", "Time of one call of it", buckets=CALL_SECONDS)
        self._narration_tokens = counter("recsys_narration_tokens", "Tokens it read and wrote", ["kind"])
        self._narration_cost = counter("recsys_narration_cost", "What it cost, in the unit of the prices")
        self._narration_day = gauge(
            "recsys_narration_day", "Totals of this day of UTC, as last heard: over all that share them", ["what"]
        )
        self._narration_limit = gauge("recsys_narration_daily_limit", "What it may cost on one day; infinite without")
        self._narration_limit.set(math.inf)
        self._narration_totals: tuple[str, Mapping[str, float]] = "", {}
        self._run_age = gauge("recsys_run_age_seconds", "Age of the run that answers", ["variant"])
        self._run = gauge("recsys_run", "1 for the run that answers", ["variant", "run_id", "model"])
        self._run_labels: dict[str, tuple[str, str, str]] = {}

        # Finding a labelled counter takes longer than counting: those of every request are kept at hand.
        self._request = cache(lambda route, status: self._requests.labels(route, str(status)))
        self._time = cache(lambda route: self._seconds.labels(route))
        self._answer = cache(lambda *labels: self._answers.labels(*labels))
        self._lookup = cache(lambda name, hit: (self._cache_hits if hit else self._cache_misses).labels(name))

    def count_response(self, route: str, status: int, seconds: float) -> None:
        """One request is done."""
        self._request(route, status).inc()
        self._time(route).observe(seconds)

    def count_exposure(self, variant: str, model: str, source: str, cached: bool) -> None:
        """One list was returned to a user."""
        self._answer(variant, model, source, "true" if cached else "false").inc()

    def count_exposure_rows(self, outcome: str, rows: int) -> None:
        """Rows of the journal of exposures: ``written`` to a file, of a ``foreign`` user, or ``lost``."""
        self._exposure_rows.labels(outcome).inc(rows)

    def count_lookup(self, cache_name: str, hit: bool) -> None:
        """One look-up in a cache."""
        self._lookup(cache_name, hit).inc()

    def count_narration(self, seconds: float, input_tokens: int, output_tokens: int, cost: float) -> None:
        """One call of the language model is done."""
        self._narration_seconds.observe(seconds)
        self._narration_tokens.labels("input").inc(input_tokens)
        self._narration_tokens.labels("output").inc(output_tokens)
        self._narration_cost.inc(cost)

    def set_narrations_of(self, day: str, totals: Mapping[str, float]) -> None:
        """What the texts of a day took so far, by what is counted; the next day starts from 0 by itself."""
        self._narration_totals = day, totals
        for what in totals:
            self._narration_day.labels(what).set_function(partial(self._narrations_today, what))

    def set_narration_limit(self, limit: float | None) -> None:
        """What the texts of a day may cost."""
        self._narration_limit.set(math.inf if limit is None else limit)

    def _narrations_today(self, what: str) -> float:
        day, totals = self._narration_totals
        return totals.get(what, 0.0) if day == f"{datetime.now(UTC):%Y-%m-%d}" else 0.0

    def set_run(self, variant: str, run: LiveRun) -> None:
        """Another run answers for a variant from now on."""
        published = datetime.fromisoformat(run.published_at).timestamp()
        self._run_age.labels(variant).set_function(lambda: time.time() - published)
        if variant in self._run_labels:
            self._run.remove(*self._run_labels[variant])
        self._run_labels[variant] = (variant, run.run_id, run.model)
        self._run.labels(*self._run_labels[variant]).set(1)

    def families(self) -> list[list[Any]]:
        """All counts, JSON-ready: name, help, type, and samples of name, labels and value."""
        return [
            [
                one.name,
                one.documentation,
                one.type,
                [[sample.name, sample.labels, sample.value] for sample in one.samples],
            ]
            for one in self.registry.collect()
        ]


class _Replicas(Collector):
    """The families of several replicas as one set of metrics."""

    def __init__(self, replicas: Mapping[str, list[list[Any]]]) -> None:
        self._replicas = replicas

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for replica, families in self._replicas.items():
            for name, documentation, kind, samples in families:
                metric = found.setdefault(name, Metric(name, documentation, kind))
                for sample, labels, value in samples:
                    metric.add_sample(sample, {"replica": replica} | labels, value)
        yield from found.values()


def exposition(replicas: Mapping[str, list[list[Any]]]) -> bytes:
    """Families by replica in Prometheus' format."""
    return generate_latest(_Replicas(replicas))
