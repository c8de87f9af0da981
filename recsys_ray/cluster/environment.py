"""Ray's switches that are environment variables. Ray is not imported here: one of them it reads when it is."""

from __future__ import annotations

import os

VARIABLES = {
    # A Ray of our own keeps idle worker processes for a minute. By default one second, and after a stage of two seconds
    # the next one starts processes again, which takes longer than the work of a small run.
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    # Ray's C++ side would write errors to our standard error that it gets over by itself; what matters is raised.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Which of Ray's messages to the driver are left out, read at import: all of them, on workers that were lost and on
    # calls that are tried again.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}

OWN = {
    # Pages of numbers that a Ray of our own would open on all interfaces, to everybody.
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}


def set_environment(*, own: bool = False) -> None:
    """For this process and, where it is our own, the Ray that it starts. A variable that is set already stays."""
    for name, value in (VARIABLES | (OWN if own else {})).items():
        os.environ.setdefault(name, value)
