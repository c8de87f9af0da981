"""The siege in short: hostile callers beside ordinary ones, on a real proxy. Times are measured by the long form."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ordinary_callers_are_answered_under_siege_and_after_every_blow() -> None:
    # Speed and memory need minutes and a quiet machine; what is answered, wrong or lost does not.
    command = [sys.executable, "-m", "tests.siege", "--seconds=8", "--silent=300", "--slow=150"]
    command += ["--p99=60000", "--grown=10", "--failed=0.01"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 1) and done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, found
    assert found["hostile"]["wrong keys"].keys() == {"401"} and found["answered"] > 100
    assert not any("404" in kind for blow in found["recovered"].values() for kind in blow["kinds"])
