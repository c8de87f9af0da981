"""The kill test: the job is killed at random moments and rerun, and must end as if nothing happened.

    python tests/soak.py [--rounds 20] [--kills 100] [--seed 0]

Each round kills the driver, a worker, or the second node of a two-node cluster with SIGKILL once some random number of
parts is written, reruns the command if the job died, and compares the published rows with an unbroken run.

Each of the ``kills`` ends the whole command, from raw data to publication, in whatever stage it is, by SIGKILL, SIGTERM
or SIGINT; now and then two commands are started at once. Most of them work without a Ray, whose start would be most of
what is killed. ``test_kill`` and ``test_two_nodes`` hold the short form. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parent.parent
VICTIMS = ("driver", "worker", "node")
WORLD: dict[str, Any] = {
    "name": "kill",
    "data": {"source": "synthetic", "users": 12000, "items": 1500, "interactions_per_user": 15, "shards": 48},
    "model": {"name": "item_cf"},
    "recommend": {"n": 10, "block_mib": 1},
    "cluster": {"object_store_mib": 128},
}


def command(config: Path, stage: str = "recommend") -> list[str]:
    return [sys.executable, "-m", "recsys_ray.cli", stage, str(config)]


def build_world(folder: Path) -> tuple[Path, pa.Table]:
    """A configuration, fitted, and the rows of an unbroken run; the run itself is removed again."""
    config = folder / "kill.yaml"
    config.write_text(yaml.safe_dump(WORLD | {"output": str(folder / "out")}))
    subprocess.run(command(config), check=True, capture_output=True, cwd=ROOT, env=environment(None))
    rows = published_rows(folder)
    shutil.rmtree(folder / "out" / "recommendations")
    return config, rows


def published_rows(folder: Path) -> pa.Table:
    """All rows of the run that LATEST names, part by part."""
    root = folder / "out" / "recommendations"
    run = root / (root / "LATEST").read_text().strip()
    names = sorted(path.name for path in run.glob("*.parquet"))
    expected = json.loads((run / "_manifest.json").read_text())["parts"]
    assert names == sorted(expected), "parts of the manifest and parts on disk differ"
    assert not list(run.glob("*.tmp")), "temporary files left behind"
    return pa.concat_tables([pq.read_table(run / name) for name in names])


def environment(address: str | None) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return variables | ({"RAY_ADDRESS": address} if address else {})


def kill_round(config: Path, victim: str, parts: int) -> dict[str, Any]:
    """Start the job, kill ``victim`` once ``parts`` parts are there, run to the end; what happened."""
    with cluster() if victim == "node" else nullcontext() as nodes:
        if nodes is not None:
            nodes.add_node(**NODE)
        address = nodes.address if nodes else None
        job = start(config, address)
        wait_for_parts(config.parent, parts, lambda: job.poll() is None)
        written = len(parts_on_disk(config.parent))
        if victim == "driver":
            os.kill(job.pid, signal.SIGKILL)
        elif victim == "worker":
            kill_one_worker(job.pid, lambda: job.poll() is None)
        else:
            assert nodes is not None
            nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
        code = job.wait(timeout=120)
        reruns = 0
        while code != 0:
            reruns += 1
            assert reruns <= 3, f"the rerun fails too: {(config.parent / 'job.log').read_text()[-2000:]}"
            code = start(config, address).wait(timeout=120)
    return {"victim": victim, "parts_at_kill": written, "reruns": reruns}


def start(config: Path, address: str | None, stage: str = "recommend") -> subprocess.Popen[bytes]:
    with (config.parent / "job.log").open("ab") as log:
        return subprocess.Popen(command(config, stage), stdout=log, stderr=log, cwd=ROOT, env=environment(address))


def parts_on_disk(folder: Path) -> list[Path]:
    return list((folder / "out" / "recommendations").glob("*/part-*.parquet"))


def wait_for_parts(folder: Path, count: int, running: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while len(parts_on_disk(folder)) < count and running():
        assert time.monotonic() < deadline, "the job writes no parts"
        time.sleep(0.002)


def kill_one_worker(driver: int, running: Callable[[], bool]) -> bool:
    """SIGKILL a process of the driver's Ray that is answering a shard; whether the job was still running."""
    while running():
        for process in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "ray::recommend_shard" in " ".join(process.cmdline()):
                    process.kill()
                    return True
    return False


NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@contextmanager
def cluster() -> Iterator[Any]:
    """A cluster of one node with one core and a job server; ``add_node(**NODE)`` makes it two."""
    from ray.cluster_utils import Cluster

    ports = {"dashboard_port": free_port(), "dashboard_agent_listen_port": free_port()}
    nodes = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": True} | ports)
    try:
        yield nodes
    finally:
        nodes.shutdown()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def soak(rounds: int, seed: int) -> dict[str, Any]:
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, expected = build_world(folder)
        seen = []
        for number in range(rounds):
            facts = kill_round(config, VICTIMS[number % len(VICTIMS)], generator.randint(1, 46))
            facts["equal"] = published_rows(folder).equals(expected)
            seen.append(facts)
            print(json.dumps(facts), file=sys.stderr, flush=True)
            shutil.rmtree(folder / "out" / "recommendations")
    return {"rounds": rounds, "equal": sum(facts["equal"] for facts in seen), "rows": expected.num_rows, "kills": seen}


SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STAGES: dict[str, Any] = {
    "name": "stages",
    "data": {
        "source": "synthetic",
        "users": 400,
        "items": 80,
        "interactions_per_user": 12,
        "shards": 6,
        "posters": True,
        "split": {"kind": "leave_last_out"},
        "filters": {"k_core_users": 2, "k_core_items": 2},
    },
    "content": {"text": None, "image": {"encoder": "palette"}, "items_per_shard": 20},
    "model": {"name": "als", "embedding_dim": 8, "epochs": 3},
    "recommend": {"n": 5, "fallback": ["content", "popularity"], "index": {"kind": "flat", "min_recall": 0.5}},
    "evaluation": {"bootstrap": 20, "k": [5]},
    "runs": {"accuracy": {"override": True}},
    "cluster": {"object_store_mib": 128},
}
REAL_EVERY, PAIR_EVERY, MOST_KILLS_A_RUN = 20, 5, 8


class Stages:
    """A whole command that is killed and killed again, until it has published."""

    def __init__(self, folder: Path, generator: random.Random) -> None:
        self.folder, self.random = folder, generator
        self.config = folder / "stages.yaml"
        self.config.write_text(yaml.safe_dump(STAGES | {"output": str(folder / "out")}))
        started = time.monotonic()
        assert self.start(real=False).wait() == 0, (folder / "job.log").read_text()
        self.seconds = time.monotonic() - started
        self.expected = published_rows(folder)
        self.reset()

    def reset(self) -> None:
        shutil.rmtree(self.folder / "out", ignore_errors=True)

    def start(self, *, real: bool) -> subprocess.Popen[bytes]:
        module = "recsys_ray.cli" if real else "tests.here"
        with (self.folder / "job.log").open("ab") as log:
            line = [sys.executable, "-m", module, "run", str(self.config)]
            return subprocess.Popen(line, stdout=log, stderr=log, cwd=ROOT, env=environment(None))

    def until_published(self, first: int) -> tuple[list[str], bool]:
        """Kill the command a few times, let it end; the signals, and whether the rows are those of an unbroken run."""
        sent: list[str] = []
        for number in range(self.random.randint(1, MOST_KILLS_A_RUN)):
            real = (first + number) % REAL_EVERY == 0
            jobs = [self.start(real=real) for _ in range(2 if (first + number) % PAIR_EVERY == 0 else 1)]
            time.sleep(self.random.uniform(0, self.seconds * (6 if real else 1)))
            for job in jobs[: self.random.randint(1, len(jobs))]:
                chosen = self.random.choice(SIGNALS)
                if job.poll() is None:
                    job.send_signal(chosen)
                    sent.append(chosen.name)
            for job in jobs:
                job.wait(timeout=300)
        code = self.start(real=False).wait(timeout=300)
        assert code == 0, (self.folder / "job.log").read_text()[-2000:]
        left = [path for path in (self.folder / "out").rglob("*") if path.suffix in (".tmp", ".lock")]
        equal = published_rows(self.folder).equals(self.expected) and not left
        self.reset()
        return sent, equal


def kill_stages(kills: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        world = Stages(Path(name), random.Random(seed))
        sent: list[str] = []
        runs = equal = 0
        while len(sent) < kills:
            found, same = world.until_published(len(sent))
            sent, runs, equal = sent + found, runs + 1, equal + same
            print(json.dumps({"kills": len(sent), "runs": runs, "equal": equal}), file=sys.stderr, flush=True)
        tracebacks = (world.folder / "job.log").read_text().count("Traceback")
    signals = {one.name: sent.count(one.name) for one in SIGNALS}
    return {"kills": len(sent), "runs": runs, "equal_runs": equal, "signals": signals, "tracebacks": tracebacks}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    stages = kill_stages(arguments.kills, arguments.seed)
    result = soak(arguments.rounds, arguments.seed)
    print(json.dumps(result | {"stages": stages}))
    return 0 if result["equal"] == arguments.rounds and stages["equal_runs"] == stages["runs"] else 1


if __name__ == "__main__":
    sys.exit(main())
