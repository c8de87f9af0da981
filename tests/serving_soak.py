"""The soak of the online service: mixed calls on two replicas while runs are switched, then replicas killed under load.

    python -m tests.serving_soak [--seconds 600] [--kills 3] [--clients 4] [--seed 0]

Every answer is checked: known users get the published list of the run that the answer names, an item that was sent as
feedback is gone from the very next list. In the first part nothing may fail and memory may not grow; in the second
replicas get SIGKILL, and what fails is counted. At the end every event that was accepted must be in the files for the
next batch run, once. ``tests/cluster/test_serve.py`` runs the short form. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from recsys_ray.base.storage import Location
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.cluster.serve import deployed
from recsys_ray.cluster.session import Session
from recsys_ray.serving import ServingSettings
from recsys_ray.serving.http.auth import new_key
from tests.serving_worlds import prepared_world, publish_run, published_rows
from tests.soak import free_port

MODELS = ("item_cf", "popularity", "ease")  # three runs: one is always opened anew when they are switched in turn
USERS, ITEMS, REPLICAS = 600, 200, 2
QUIET = range(1, USERS // 2 + 1)  # users who send nothing, so that their lists stay the published ones
LIMIT = 0.05  # growth of memory
SAMPLE_SECONDS = 2.0
RECOVERY_SECONDS = 120.0


class Client(threading.Thread):
    """One keep-alive connection that sends one request after the other and checks every response."""

    def __init__(self, number: int, port: int, key: str, published: dict[str, Any], seed: int) -> None:
        super().__init__(daemon=True)
        self._port, self._published = port, published
        self._headers = {"content-type": "application/json", "x-api-key": key}
        self._random = random.Random(seed * 1000 + number)
        self._users = range(USERS // 2 + 1 + number, 10**9, 16)  # nobody else sends feedback of these
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.stop = threading.Event()
        self.calls: Counter[str] = Counter()
        self.failures: list[tuple[float, str]] = []
        self.wrong: list[str] = []
        self.accepted: list[tuple[int, int, int]] = []
        self.runs: set[str] = set()

    def run(self) -> None:
        kinds: list[tuple[Callable[[], None], int]] = [
            (self._known, 50), (self._feedback, 15), (self._history, 10), (self._onboarding, 5), (self._others, 20),
        ]  # fmt: skip
        work, weights = zip(*kinds, strict=True)
        while not self.stop.is_set():
            try:
                self._random.choices(work, weights)[0]()
            except (OSError, http.client.HTTPException, Refused) as error:
                self.failures.append((time.monotonic(), f"{type(error).__name__}: {error}"))
                self._connection.close()

    def call(self, name: str, path: str, body: Any = None) -> Any:
        """The answer's JSON (or text). Raises Refused for any status but 200."""
        data = None if body is None else json.dumps(body)
        self._connection.request("GET" if body is None else "POST", path, data, self._headers)
        answer = self._connection.getresponse()
        read = answer.read()
        self.calls[name] += 1
        if answer.status != 200:
            raise Refused(f"{name}: {answer.status} {read[:200]!r}")
        return json.loads(read) if answer.headers["content-type"] == "application/json" else read

    def _known(self) -> None:
        user, n = self._random.choice(QUIET), self._random.randint(1, 10)
        answer = self.call("known user", f"/v1/recommendations/{user}?n={n}")
        self.runs.add(answer["run_id"])
        expected = self._published[answer["run_id"]][user][:n]
        same = [item["item_id"] for item in answer["items"]] == [row["item_id"] for row in expected]
        if not same or not np.allclose(
            [item["score"] for item in answer["items"]], [row["score"] for row in expected], atol=1e-5
        ):
            self.wrong.append(f"user {user}: not the list of {answer['run_id']}")

    def _feedback(self) -> None:
        user, item = self._users[self._random.randrange(400)], self._random.randint(1, ITEMS)
        stamp = time.time_ns() // 1_000_000
        event = {"user_id": user, "item_id": item, "rating": 4.0, "timestamp": stamp}
        self.call("feedback", "/v1/feedback", {"events": [event]})
        self.accepted.append((user, item, stamp))
        answer = self.call("after feedback", f"/v1/recommendations/{user}")
        if item in [one["item_id"] for one in answer["items"]]:
            self.wrong.append(f"user {user}: item {item} is still there after feedback")

    def _history(self) -> None:
        items = self._random.sample(range(1, ITEMS + 1), 5)
        answer = self.call("history", "/v1/recommendations", {"history": [{"item_id": item} for item in items]})
        if set(items) & {one["item_id"] for one in answer["items"]}:
            self.wrong.append("an item of the history is recommended")

    def _onboarding(self) -> None:
        items = self.call("onboarding items", "/v1/onboarding/items")["items"]
        ratings = [{"item_id": item["item_id"], "rating": 4.0} for item in items[: self._random.randint(5, 15)]]
        user = self.call("onboarding ratings", "/v1/onboarding/ratings", {"ratings": ratings})["user_id"]
        answer = self.call("temporary user", f"/v1/recommendations/{user}")
        if (answer["user"], answer["history"]) != ("new", len(ratings)):
            self.wrong.append(f"{user}: {answer['user']} with {answer['history']} interactions")

    def _others(self) -> None:
        item, user = self._random.randint(1, ITEMS), self._random.choice(QUIET)
        paths = {
            "similar": f"/v1/items/{item}/similar",
            "search": f"/v1/items?search={item}",
            "popular": "/v1/popular",
            "explained": f"/v1/recommendations/{user}?explain=true",
            "varied": "/v1/recommendations",
            "info": "/info",
            "metrics": "/metrics",
        }
        name = self._random.choice(list(paths))
        body = {"user_id": user, "context": {"diversity": 0.5}} if name == "varied" else None
        self.call(name, paths[name], body)


class Refused(Exception):
    """An answer that is no 200."""


def soak(seconds: float, kills: int, clients: int, seed: int) -> dict[str, Any]:
    """Both parts on a Ray of our own; what was counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = prepared_world(folder, users=USERS, items=ITEMS)
        runs = [publish_run(folder, prepared, model, tag=model[0]) for model in MODELS]
        published = {run.name: published_rows(run) for run in runs}
        (key, digest), port = new_key(), free_port()
        settings = small_service(port, digest)
        senders = [Client(number, port, key, published, seed) for number in range(clients)]
        admin = Client(clients, port, key, published, seed)
        with (
            Session(ClusterSettings(num_cpus=2, object_store_mib=80)) as session,
            deployed(session, settings, Location.of(folder)),
        ):
            say("two replicas answer")
            from tests.open_ports import open_ports  # which needs to know whose family this is

            ports = open_ports()
            strange = admin.call("strange", "/v1/recommendations/a%2F%E2%98%83%3F")["user_id"]
            found: dict[str, Any] = {"listens_on": listening(port), "strange": strange, "open_ports": ports}
            for client in senders:
                client.start()
            found |= steady(seconds, admin, list(published))
            found["failed"] = sum(len(client.failures) for client in senders)
            say(f"{found}")
            found["killed"] = [kill_one(senders, admin) for _ in range(kills)]
            for client in senders:
                client.stop.set()
            for client in senders:
                client.join(60)
            say("stopping")
        found["processes_left"] = sorted(process.name() for process in family())
        return found | summary(senders, folder)


def small_service(port: int, digest: str, **more: Any) -> ServingSettings:
    """Two replicas, with an admin's key."""
    return ServingSettings.model_validate(
        {
            "port": port,
            "keys": [{"name": "soak", "role": "admin", "sha256": digest}],
            "deployment": {"replicas": REPLICAS, "cpus": 0.5},
            # Small, so that they are full before memory is looked at.
            "cache": {"mib": 2},
            "user_cache_mib": 1,
            "feedback": {"roll_seconds": 5.0},
            **more,
        }
    )


def say(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def steady(seconds: float, admin: Client, runs: list[str]) -> dict[str, Any]:
    """Mixed load while runs are switched in turn; memory from a tenth of the time on."""
    started, turn = time.monotonic(), 0
    samples: list[tuple[float, dict[str, int]]] = []
    while (passed := time.monotonic() - started) < seconds:
        run_id = runs[turn % len(runs)]
        admin.call("activate", "/v1/models/activate", {"run_id": run_id})
        turn += 1
        time.sleep(min(SAMPLE_SECONDS, seconds / 6))
        samples.append((passed, memory()))
    after = [sample for passed, sample in samples if passed > seconds / 10]
    fifth = max(1, len(after) // 5)
    growth = {}
    for part in after[0]:
        first, last = (float(np.median([one[part] for one in some])) for some in (after[:fifth], after[-fifth:]))
        growth[part] = {"first_mib": first / 2**20, "last_mib": last / 2**20, "growth": last / first - 1}
    return {"seconds": seconds, "activations": turn, "memory": growth}


def kill_one(clients: list[Client], admin: Client) -> dict[str, Any]:
    """SIGKILL a replica under load; how long until there are as many again, and what failed meanwhile."""
    victim = replicas()[0]
    before = [sum(client.calls.values()) for client in clients]
    started = time.monotonic()
    victim.kill()
    while True:
        time.sleep(0.2)
        names = [name for name in names_of_replicas(admin) if f"-{victim.pid}-" not in name]
        if len(names) == REPLICAS:
            break
        assert time.monotonic() - started < RECOVERY_SECONDS, "no new replica came"
    seconds = time.monotonic() - started
    say(f"replica {victim.pid} killed, another one is there after {seconds:.1f} s")
    failures = [text for client in clients for moment, text in client.failures if moment >= started]
    requests = sum(sum(client.calls.values()) for client in clients) - sum(before) + len(failures)
    kinds = Counter(text[:80] for text in failures)
    return {"seconds": round(seconds, 1), "requests": requests, "failed": len(failures), "kinds": dict(kinds)}


def names_of_replicas(admin: Client) -> list[str]:
    """Names of the replicas that are there, as one of them says."""
    try:
        info = admin.call("info", "/info")
    except (OSError, http.client.HTTPException, Refused):
        admin._connection.close()
        return []
    return [info["replica"], *(other["replica"] for other in info["others"])]


def summary(clients: list[Client], folder: Path) -> dict[str, Any]:
    """Calls, wrong answers, and whether every accepted event is in the files, once."""
    accepted = Counter(event for client in clients for event in client.accepted)
    files = sorted((folder / "feedback").glob("*.parquet"))
    stored: Counter[tuple[int, int, int]] = Counter()
    for file in files:
        for row in Location.of(file).read_parquet().to_pylist():
            stored[row["user_id"], row["item_id"], row["timestamp"]] += 1
    calls: Counter[str] = sum((client.calls for client in clients), Counter())
    return {
        "requests": calls.total(),
        "calls": dict(calls),
        "wrong": [text for client in clients for text in client.wrong][:10],
        "runs": len(set().union(*(client.runs for client in clients))),
        "feedback": {
            "accepted": accepted.total(),
            "lost": (accepted - stored).total(),
            "not_acknowledged": (stored - accepted).total(),
            "files": len(files),
        },
    }


def family() -> list[psutil.Process]:
    """Processes that this one started, directly or not."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def replicas() -> list[psutil.Process]:
    return [process for process in family() if "ServeReplica" in process.name()]


def memory() -> dict[str, int]:
    """Proportional set size of the replicas, and of all processes of Ray and Serve together."""
    found = {"replicas": 0, "all": 0}
    for process in family():
        try:
            size, name = process.memory_full_info().pss, process.name()
        except psutil.NoSuchProcess:
            continue
        found["all"] += size
        found["replicas"] += size if "ServeReplica" in name else 0
    return found


def listening(port: int) -> list[str]:
    """Addresses that the port is open on."""
    found = {one.laddr.ip for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == port}
    return sorted(found)


def passed(found: dict[str, Any], limit: float) -> bool:
    """Nothing failed but what a kill broke, nothing was wrong or lost, and memory stayed where it was."""
    grown = max(part["growth"] for part in found["memory"].values())
    return not (found["failed"] or found["wrong"] or found["feedback"]["lost"] or found["processes_left"]) and (
        grown <= limit
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="of the part without kills")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=LIMIT, help="growth of memory that is allowed")
    arguments = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    found = soak(arguments.seconds, arguments.kills, arguments.clients, arguments.seed)
    print(json.dumps(found))
    return 0 if passed(found, arguments.limit) else 1


if __name__ == "__main__":
    sys.exit(main())
