"""The service for an operator: from the records of runs, the journals, and what the replicas count."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from recsys_ray import __version__
from recsys_ray.base.errors import PublishError, RecsysError
from recsys_ray.runs.experiment import judge_experiment
from recsys_ray.runs.history import newest_first
from recsys_ray.runs.publish import RECOMMENDATIONS, is_withdrawn, latest
from recsys_ray.runs.published import read_run
from recsys_ray.serving.service import Service

MOST_RUNS = 50
EFFECT_SECONDS = 60.0
"""Between two looks at the experiment, which reads all exposures."""
SERVER_ERROR = "5"


class Overviews:
    """``overview_models.Overview`` of a service, whenever it is asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._experiment: tuple[dict[str, Any] | None, str | None] = None, None
        self._judged_at = -math.inf

    async def now(self) -> dict[str, Any]:
        """The overview as of this moment."""
        service = self._service
        replicas = await service.all_replicas()
        variants = await service.in_thread(service.runs.describe)
        if time.monotonic() - self._judged_at > EFFECT_SECONDS:
            self._judged_at = time.monotonic()
            self._experiment = await service.in_thread(self._judge)
        experiment, note = self._experiment
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "name": "recsys_ray",
            "version": __version__,
            "runs": await service.in_thread(self._runs, variants),
            "variants": variants,
            "experiment": experiment,
            "experiment_note": note,
            "replicas": [facts["info"] for facts in replicas],
            "routes": route_loads(replicas),
            "load": load(replicas),
        }

    def _judge(self) -> tuple[dict[str, Any] | None, str | None]:
        settings = self._service.settings
        weights = {variant.name: variant.weight for variant in settings.variants}
        if len(weights) < 2:
            return None, "one variant answers everybody; set serving.variants to compare two"
        try:
            return judge_experiment(self._service.output, weights, settings.experiment).json(), None
        except RecsysError as error:
            return None, str(error)

    def _runs(self, variants: list[dict[str, Any]]) -> list[dict[str, Any]]:
        root = self._service.output / RECOMMENDATIONS
        answers: dict[str, list[str]] = {}
        for variant in variants:
            answers.setdefault(variant["run_id"], []).append(variant["variant"])
        named, found = None, []
        with suppress(PublishError):  # /v1/models says what is wrong with it
            named = latest(root)
        for name in newest_first(root)[:MOST_RUNS]:
            record = read_run(root / name)
            found.append(
                {
                    "run_id": name,
                    "published_at": record.published_at,
                    "model": record.model.name,
                    "metrics": record.evaluation or {},
                    "checks": record.checks,
                    "latest": name == named,
                    "withdrawn": is_withdrawn(root / name),
                    "answers_for": answers.get(name, []),
                }
            )
        return found


def _samples(replicas: list[dict[str, Any]]) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Name, labels and value of everything that any replica counted."""
    for facts in replicas:
        for _, _, _, samples in facts["metrics"]:
            yield from ((name, labels, value) for name, labels, value in samples)


def route_loads(replicas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``overview_models.RouteLoad`` of every route, the busiest first; from the ``metrics`` of the replicas' facts."""
    requests, errors = Counter[str](), Counter[str]()
    reached: dict[str, Counter[float]] = {}
    for name, labels, value in _samples(replicas):
        if name == "recsys_requests_total":
            requests[labels["route"]] += int(value)
            errors[labels["route"]] += int(value) if labels["status"].startswith(SERVER_ERROR) else 0
        elif name == "recsys_request_seconds_bucket":
            reached.setdefault(labels["route"], Counter())[float(labels["le"])] += int(value)
    found = []
    for route, count in requests.most_common():
        bounds = sorted(reached.get(route, ()))
        totals = [reached[route][bound] for bound in bounds]
        counts = [total - before for total, before in zip(totals, [0, *totals], strict=False)]
        finite = [bound for bound in bounds if math.isfinite(bound)]
        loads = {"requests": count, "errors": errors[route], "seconds": finite, "counts": counts}
        found.append({"route": route} | loads)
    return found


def load(replicas: list[dict[str, Any]]) -> dict[str, Any]:
    """``overview_models.Load``: the counts of all replicas added up."""
    totals: Counter[str] = Counter()
    variants, sources = Counter[str](), Counter[str]()
    for name, labels, value in _samples(replicas):
        if not math.isfinite(value):
            continue
        totals[name] += int(value)
        if name == "recsys_answers_total":
            variants[labels["variant"]] += int(value)
            sources[labels["source"]] += int(value)
    return {
        "in_flight": totals["recsys_requests_in_flight"],
        "overloads": totals["recsys_overloads_total"],
        "answers": variants.total(),
        "cache_hits": totals["recsys_cache_hits_total"],
        "cache_misses": totals["recsys_cache_misses_total"],
        "feedback": totals["recsys_feedback_events_total"],
        "feedback_files": totals["recsys_feedback_files_total"],
        "redis_errors": totals["recsys_redis_errors_total"],
        "by_variant": dict(variants),
        "by_source": dict(sources),
    }
