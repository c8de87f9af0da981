"""Requests per second and latency of the online service, through Ray Serve and under plain uvicorn, in one run.

    python benchmarks/serve.py [--seconds 2] [--rounds 3] [--connections 1 16 64] [--output RUN_OUTPUT]
    python benchmarks/serve.py --before PATH

Targets, all asked by the same load generator in a process of its own beside them:

    serve      the deployment of recsys_ray (HAProxy mode, one replica): answers from its cache, and made anew
    uvicorn    the same application in one uvicorn process
    hello      a Serve deployment that answers a constant, deployed the same way: what Serve leaves room for

With --before, the directory of another version of the code (``git worktree add PATH COMMIT``), the two versions are
compared under uvicorn and nothing else: each publishes the small world itself, and they take turns, round after round.
``ratio_cached`` and ``ratio_uncached`` are requests per second now by those before.

Without --output a small synthetic world is made and published first. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recsys_ray.base.storage import Location
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.cluster.serve import deployed
from recsys_ray.cluster.session import Session
from recsys_ray.serving import ServingSettings

WORLD: dict[str, Any] = {
    "name": "serve-benchmark",
    "data": {"source": "synthetic", "users": 5000, "items": 2000, "interactions_per_user": 30.0},
    "model": {"name": "item_cf"},
}
WARM_SECONDS = 1.0
UVICORN = """
import sys, uvicorn
from recsys_ray.serving import ServingSettings, build_app
settings = ServingSettings.model_validate_json(sys.argv[1])
uvicorn.run(build_app(settings, sys.argv[2]), port=settings.port, log_level="warning", access_log=False)
"""


class Hello:
    """A constant answer of about the size of ours."""

    def __serve_build_asgi_app__(self) -> Any:
        body = b"x" * 2000

        async def hello(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await _no_lifespan(receive, send)
                return
            headers = [(b"content-type", b"text/plain"), (b"content-length", b"2000")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return hello


async def _no_lifespan(receive: Any, send: Any) -> None:
    for _ in range(2):
        message = await receive()
        await send({"type": message["type"] + ".complete"})


class Connection(asyncio.Protocol):
    """One keep-alive connection: the next request goes out when the answer is whole. Keeps latencies."""

    def __init__(self, requests: Iterator[bytes], latencies: list[float], failures: list[bytes]) -> None:
        self._requests, self._latencies, self._failures = requests, latencies, failures
        self._buffer, self._missing, self._sent = b"", 0, 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        fields = head.lower()
        length = int(fields.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._latencies.append(time.perf_counter() - self._sent)
        if not head.startswith(b"HTTP/1.1 200"):
            self._failures.append(head.split(b"\r\n", 1)[0])
        self._buffer = b""
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._failures.append(str(error).encode())


def load(port: int, paths: list[str], connections: int, seconds: float) -> dict[str, float]:
    """Requests over keep-alive connections for some seconds, after a warm-up that is not counted."""
    import uvloop

    latencies: list[float] = []
    failures: list[bytes] = []
    requests = itertools.cycle(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode() for path in paths)

    async def run() -> float:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: Connection(requests, latencies, failures), "127.0.0.1", port)
        await asyncio.sleep(WARM_SECONDS)
        latencies.clear()
        started = time.perf_counter()
        await asyncio.sleep(seconds)
        return time.perf_counter() - started

    taken = uvloop.run(run())
    if failures:
        raise SystemExit(f"{len(failures)} requests failed, the first with {failures[0]!r}")
    p50, p99 = np.percentile(np.array(latencies) * 1000, [50, 99])
    return {
        "per_second": round(len(latencies) / taken, 1),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
    }


def measure(targets: dict[str, tuple[int, list[str]]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Targets side by side, at every number of connections; the load comes from a process of its own.

    They take turns, round after round, so that what else the machine does meets all of them; medians over the rounds.
    """
    found: dict[str, Any] = {name: {} for name in targets}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for connections in arguments.connections:
            rounds: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
            for _ in range(arguments.rounds):
                for name, (port, paths) in targets.items():
                    rounds[name].append(pool.apply(load, (port, paths, connections, arguments.seconds)))
            for name, figures in rounds.items():
                middle = {key: round(float(np.median([one[key] for one in figures])), 3) for key in figures[0]}
                found[name][str(connections)] = middle
                print(f"  {name:<20} {connections:>3} connections  {middle}", file=sys.stderr, flush=True)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(folder: Path, cached: bool) -> dict[str, Any]:
    port = free_port()
    cache = {} if cached else {"cache": {"mib": 0}}
    return {"port": port, "state": str(folder / f"state-{port}"), **cache}


def of_version(path: str | None) -> dict[str, str]:
    """The environment in which Python finds the code below this path; that of this file by default."""
    return os.environ | {"PYTHONPATH": path or str(Path(__file__).parents[1])}


@contextmanager
def under_uvicorn(asked: dict[str, Any], output: str, before: str | None = None) -> Iterator[int]:
    command = [sys.executable, "-c", UVICORN, json.dumps(asked), output]
    process = subprocess.Popen(command, env=of_version(before))
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{asked['port']}/health/ready").close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None, "uvicorn did not start"
                time.sleep(0.2)
        yield asked["port"]
    finally:
        process.terminate()
        process.wait(30)


def publish_world(folder: Path, before: str | None = None) -> str:
    """A small published run, made the way users make one."""
    folder.mkdir(exist_ok=True)
    config = folder / "world.yaml"
    config.write_text(yaml.safe_dump(WORLD | {"output": str(folder / "out")}))
    command = [sys.executable, "-m", "recsys_ray.cli", "run", str(config)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=of_version(before), cwd=folder)
    return str(folder / "out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of every measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of which the median counts")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--before", help="directory of another version of the code, to be compared with")
    parser.add_argument("--output", help="output directory of a published run, with users 1, 2, 3 and so on")
    parser.add_argument("--users", type=int, default=1000, help="users that are asked for, from 1")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.before:
            result = against(folder, str(Path(arguments.before).absolute()), arguments)
        else:
            result = compare(folder, arguments.output or publish_world(folder), arguments)
    print(json.dumps(result))


def asked_for(arguments: argparse.Namespace) -> list[str]:
    users = random.Random(0).sample(range(1, arguments.users + 1), min(arguments.users, 1000))
    return [f"/v1/recommendations/{user}" for user in users]


def against(folder: Path, before: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Now and before, side by side."""
    versions = {"now": None, "before": before}
    outputs = {name: publish_world(folder / name, path) for name, path in versions.items()}
    found: dict[str, Any] = {}
    for kind, cached in (("cached", True), ("uncached", False)):
        with ExitStack() as stack:
            targets = {}
            for name, path in versions.items():
                asked = settings(folder / name, cached)
                port = stack.enter_context(under_uvicorn(asked, outputs[name], path))
                targets[f"{name} {kind}"] = port, asked_for(arguments)
            found |= measure(targets, arguments)
    most = str(max(arguments.connections))
    ratios = {
        f"ratio_{kind}": round(
            found[f"now {kind}"][most]["per_second"] / found[f"before {kind}"][most]["per_second"], 3
        )
        for kind in ("cached", "uncached")
    }
    return {"benchmark": "serve against before", "cores": os.cpu_count(), **ratios, "figures": found}


def compare(folder: Path, output: str, arguments: argparse.Namespace) -> dict[str, Any]:
    paths = asked_for(arguments)
    found: dict[str, Any] = {}
    for name, cached in (("uvicorn cached", True), ("uvicorn uncached", False)):
        with under_uvicorn(settings(folder, cached), output) as port:
            found |= measure({name: (port, paths)}, arguments)
    for name, cached in (("serve cached", True), ("serve uncached", False)):
        asked = settings(folder, cached)
        ray = ClusterSettings(num_cpus=4, object_store_mib=128)
        with (
            Session(ray) as session,
            deployed(session, ServingSettings.model_validate(asked), Location.of(output)),
        ):
            targets = {name: (asked["port"], paths)}
            if cached:
                from ray import serve

                hello: Any = serve.deployment(serve.ingress()(Hello), name="hello", max_ongoing_requests=1024)
                serve.run(hello.bind(), name="hello", route_prefix="/hello")
                targets = {"hello": (asked["port"], ["/hello"])} | targets
            found |= measure(targets, arguments)
    most, one = str(max(arguments.connections)), str(min(arguments.connections))

    def ratio(name: str, other: str) -> float:
        return round(float(found[name][most]["per_second"] / found[other][most]["per_second"]), 3)

    return {
        "benchmark": "serve",
        "cores": os.cpu_count(),
        "serve_cached_per_second": found["serve cached"][most]["per_second"],
        "serve_cached_p50_ms_1_connection": found["serve cached"][one]["p50_ms"],
        "ratio_cached_to_hello": ratio("serve cached", "hello"),
        "ratio_cached_to_uvicorn": ratio("serve cached", "uvicorn cached"),
        "ratio_uncached_to_uvicorn": ratio("serve uncached", "uvicorn uncached"),
        "figures": found,
    }


if __name__ == "__main__":
    main()
