"""Does memory stay bounded when the number of users doubles?

    python benchmarks/memory.py [--users 250000 500000 1000000]

For each size one process generates a synthetic world, prepares it, fits, and writes the top-N of every user through
the whole batch job. While the batch job runs, the resident memory of the driver and all its children is sampled
(proportional set size: pages that several processes share are counted once). Model and catalogue are the same at all
sizes, so what grows is what depends on the number of users. The last line is one JSON object of ratios.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

WORLD = """
name: memory
output: {output}
data: {{source: synthetic, users: {users}, items: 5000, interactions_per_user: 20, shards: {shards}}}
model: {{name: item_cf, neighbors: 100}}
recommend: {{n: 10}}
"""
STAGES = ("prepare", "train", "recommend")


def resident_bytes(process: psutil.Process) -> int:
    """Proportional set size of a process and everything it started."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def measured(command: list[str]) -> tuple[dict[str, Any], float, float]:
    """(JSON line, peak GiB of the whole process tree, seconds) of one command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.25):
            try:
                peak[0] = max(peak[0], resident_bytes(psutil.Process(process.pid)))
            except psutil.NoSuchProcess:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, errors = process.communicate()
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors[-3000:]}")
    return json.loads(output.strip().splitlines()[-1]), peak[0] / 2**30, time.perf_counter() - started


def one_size(users: int, users_per_shard: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "memory.yaml"
        shards = max(1, users // users_per_shard)
        config.write_text(WORLD.format(output=Path(folder) / "out", users=users, shards=shards))
        facts: dict[str, Any] = {"users": users}
        for stage in STAGES:
            command = [sys.executable, "-m", "recsys_ray.cli", stage, str(config)]
            result, peak, seconds = measured(command)
            facts[stage] = {"peak_gib": round(peak, 3), "seconds": round(seconds, 1)}
            if stage == "recommend":
                facts["shard_seconds"] = result["shard_seconds"]
        print(json.dumps(facts), file=sys.stderr, flush=True)
        return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--users-per-shard", type=int, default=5_000)
    arguments = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    sizes = [one_size(users, arguments.users_per_shard) for users in arguments.users]
    ratios: dict[str, Any] = {"sizes": sizes}
    for small, large in itertools.pairwise(sizes):
        name = f"{small['users']}_to_{large['users']}"
        growth = large["users"] / small["users"]
        for stage in STAGES:
            ratios[f"ratio_memory_{stage}_{name}"] = round(small[stage]["peak_gib"] / large[stage]["peak_gib"], 3)
        ratios[f"ratio_time_{name}"] = round(growth * small["shard_seconds"] / large["shard_seconds"], 3)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
