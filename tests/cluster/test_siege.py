"""The siege in short: hostile callers beside ordinary ones, and blows, on a real proxy.

Times and memory are measured by the long form; what is answered, named, wrong, lost or twice needs no quiet machine.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.siege import Limits, faults

GOOD: dict[str, Any] = {
    "beside_the_dearest": {"worst_ms": 90.0},
    "siege": {"answered": 3000, "failed": 0, "p99_ms": 90.0},
    "but_for_kills": {"answered": 4000, "failed": 0, "p99_ms": 90.0},
    "all": {"answered": 4500, "failed": 3, "kinds": {"ConnectionRefusedError": 3}},
    "memory": 0.01,
    "wrong": 0,
    "feedback": {"acknowledged": 9, "lost": 0, "twice": 0, "unexplained": 0, "kept": 10},
    "next_run": {"read": 10, "files_refused": 0},
    "ready": {"asked": 100, "not": 0},
    "named": [(5.0, "redis")],
    "processes_left": [],
    "hostile": {"wrong keys": {"401": 9, "RemoteDisconnected": 1}, "silent": {"held": 2}, "flood": {"429": 3, "0": 1}},
    "blows": {
        "Redis frozen": {"seconds": 0.0, "failed": 0, "hit": True, "span": (1.0, 9.0)},
        "disk full": {"skipped": "only root"},
        "proxy killed": {"seconds": 0.1, "failed": 3, "hit": True, "span": (9.0, 12.0)},
    },
}


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("siege", "failed"), 4, "failed in the siege"),
        (("but_for_kills", "failed"), 5, "not by a kill"),
        (("but_for_kills", "answered"), 99, "hardly anything"),
        (("all", "failed"), 15, "with kills"),
        (("all", "kinds"), {"ValueError: 404 b''": 1}, "404"),
        (("but_for_kills", "p99_ms"), 251.0, "p99"),
        (("siege", "p99_ms"), float("nan"), "p99"),
        (("beside_the_dearest", "worst_ms"), 301.0, "dearest"),
        (("wrong",), 1, "wrong lists"),
        (("memory",), 0.11, "memory"),
        (("feedback", "lost"), 1, "lost"),
        (("feedback", "twice"), 1, "two files"),
        (("feedback", "unexplained"), 1, "nobody sent"),
        (("feedback", "acknowledged"), 0, "no event"),
        (("next_run", "read"), 9, "next run"),
        (("next_run",), {"failed": "no"}, "next run"),
        (("next_run", "files_refused"), 1, "next run"),
        (("ready", "not"), 1, "not ready"),
        (("named",), [(10.0, "redis")], "does not name it"),
        (("processes_left",), ["haproxy"], "processes"),
        (("hostile", "wrong keys"), {"200": 1, "401": 9}, "wrong keys"),
        (("hostile", "flood"), {"500": 1}, "hostile"),
        (("blows", "Redis frozen", "failed"), 1, "requests failed"),
        (("blows", "Redis frozen", "hit"), False, "did not hit"),
        (("blows", "proxy killed", "seconds"), 5.1, "not back"),
    ],
)
def test_every_judgement_can_fail(place: tuple[str, ...], value: Any, fault: str) -> None:
    assert faults(GOOD, Limits()) == []
    found = inner = copy.deepcopy(GOOD)
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    assert [what for what in faults(found, Limits()) if fault in what]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ordinary_callers_are_answered_under_siege_and_after_every_blow() -> None:
    command = [sys.executable, "-m", "tests.siege", "--seconds=3", "--silent=300", "--slow=150", "--hold=2"]
    command += ["--p99=60000", "--worst=60000", "--grown=10", "--back=30", "--in-all=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 1) and done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["faults"] == [], found
