"""The service under siege: what hostile callers do all at once, beside fifty ordinary requests a second.

    python -m tests.siege [--seconds 300] [--silent 4500] [--slow 300]

Bodies that never come, connections that say nothing, the dearest requests that are legal, one user's events without
end, allow lists that never repeat, and wrong keys. Ordinary callers must not notice: under 0.1 % of their requests
fail, p99 is under 250 ms, the replicas' memory stays where it was, the service says that it is ready. Then the state
of what users sent is damaged, a replica is killed and the proxy, and each time the seconds are counted until all is
answered again. At the end every event that was accepted is in the files for the next batch run once, and that run
reads them.
``tests/cluster/test_siege.py`` runs the short form. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recsys_ray.base.storage import Location
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.cluster.serve import deployed
from recsys_ray.cluster.session import Session
from recsys_ray.data.prepare.driver import open_source, prepare
from recsys_ray.serving.http.auth import new_key
from tests.data_worlds import settings_of
from tests.serving_soak import ITEMS, SAMPLE_SECONDS, USERS, family, memory, replicas, say, small_service
from tests.serving_worlds import DATA, prepared_world, publish_run, published_rows
from tests.soak import free_port

RATE = 50.0
ORDINARY = range(1, USERS // 2 + 1)
FLOODED = USERS
RECOVERY_SECONDS = 60.0


class Caller:
    """Calls on one connection that is opened again whenever it broke."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._headers = {"content-type": "application/json", "x-api-key": key}

    def call(self, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body; OSError or HTTPException where there is no answer."""
        data = None if body is None else json.dumps(body)
        try:
            self._connection.request("GET" if body is None else "POST", path, data, self._headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise


class Ordinary(threading.Thread):
    """Asks at its own pace for lists whose rows are known, and now and then sends an event."""

    def __init__(self, number: int, of: int, port: int, key: str, lists: dict[Any, Any], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._pace, self._random, self._lists, self._stopped = of / RATE, random.Random(number), lists, stop
        self._caller = Caller(port, key)
        self._number = number
        self.answered: list[tuple[float, float]] = []
        """(when, seconds) of each answer."""
        self.failed: list[tuple[float, str]] = []
        self.wrong = 0
        self.accepted: list[tuple[int, int, int]] = []

    def run(self) -> None:
        due = time.monotonic() + self._pace * self._random.random()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            due += self._pace
            started = time.monotonic()
            try:
                self._one()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append((started, f"{type(error).__name__}: {error}"))
            else:
                self.answered.append((started, time.monotonic() - started))

    def _one(self) -> None:
        if self._random.random() < 0.05:
            stamp = time.time_ns() // 1_000_000
            event = (USERS // 2 + 1 + self._number, self._random.randint(1, ITEMS), stamp)
            names = ("user_id", "item_id", "timestamp")
            _good(*self._caller.call("/v1/feedback", {"events": [dict(zip(names, event, strict=True))]}))
            self.accepted.append(event)
            return
        user = self._random.choice(ORDINARY)
        answer = json.loads(_good(*self._caller.call(f"/v1/recommendations/{user}?n=5")))
        expected = [row["item_id"] for row in self._lists[user][:5]]
        self.wrong += [item["item_id"] for item in answer["items"]] != expected


class Besieger(threading.Thread):
    """Does one thing again and again, and counts the statuses that it got."""

    def __init__(self, name: str, once: Callable[[], Any], stop: threading.Event) -> None:
        super().__init__(daemon=True, name=name)
        self._once, self._stopped = once, stop
        self.found: Counter[str] = Counter()

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.found[str(self._once())] += 1
            except (OSError, http.client.HTTPException) as error:
                self.found[type(error).__name__] += 1
                self._stopped.wait(0.2)


def _good(status: int, body: bytes) -> bytes:
    if status != 200:
        raise ValueError(f"{status} {body[:120]!r}")
    return body


def besiegers(
    port: int, key: str, silent: int, slow: int, accepted: list[Any], stop: threading.Event
) -> list[Besieger]:
    """All of them, not started yet; ``accepted`` takes the events of the flooded user."""
    rng = random.Random(0)
    many, explained, flood, lists = (Caller(port, key) for _ in range(4))
    guess = Caller(port, "guess")
    users = list(range(1, 51))

    def flooding() -> int:
        stamp = time.time_ns() // 1_000_000
        events = [(FLOODED, rng.randint(1, ITEMS), stamp + k) for k in range(500)]
        names = ("user_id", "item_id", "timestamp")
        status, _ = flood.call("/v1/feedback", {"events": [dict(zip(names, event, strict=True)) for event in events]})
        if status == 200:
            accepted.extend(events)
        return status

    def listing() -> int:
        allow = rng.sample(range(1, ITEMS + 1), 150)
        return lists.call("/v1/recommendations", {"user_id": rng.choice(users), "allow": allow})[0]

    def asking(caller: Caller, **more: Any) -> Callable[[], int]:
        return lambda: caller.call("/v1/recommendations", {"n": ITEMS - 20, **more})[0]

    work: dict[str, Callable[[], Any]] = {
        "many users": asking(many, user_ids=users),
        "reasons": asking(explained, user_ids=users[:5], explain=True),
        "one user's events": flooding,
        "allow lists": listing,
        "wrong keys": lambda: guess.call("/v1/popular")[0],
        "silent": lambda: held(port, silent, b"", stop),
        "half a head": lambda: held(port, slow, b"GET /v1/popular HTT", stop),
        "no body": lambda: held(
            port,
            slow,
            b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %s\r\n"
            b"Content-Type: application/json\r\nContent-Length: 400\r\n\r\n{" % key.encode(),
            stop,
        ),
    }
    return [Besieger(name, once, stop) for name, once in work.items()]


def held(port: int, count: int, said: bytes, stop: threading.Event) -> str:
    """So many connections that say this and no more, for as long as they are let; opened anew in the next turn."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            opened.append(connection)
            if said:
                connection.sendall(said)
        stop.wait(5)
        return "held"
    finally:
        for connection in opened:
            connection.close()


def siege(seconds: float, silent: int, slow: int) -> dict[str, Any]:
    """On a Ray of our own; what was counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = prepared_world(folder, users=USERS, items=ITEMS)
        lists = published_rows(publish_run(folder, prepared))
        (key, digest), port = new_key(), free_port()
        settings = small_service(port, digest, limits={"arrival_seconds": 5.0})
        calm, stop, accepted = threading.Event(), threading.Event(), []
        ordinary = [Ordinary(number, 8, port, key, lists, calm) for number in range(8)]
        with (
            Session(ClusterSettings(num_cpus=2, object_store_mib=80)) as session,
            deployed(session, settings, Location.of(folder)),
        ):
            for caller in ordinary:
                caller.start()
            time.sleep(min(5.0, seconds / 4))
            say("the siege begins")
            hostile = besiegers(port, key, silent, slow, accepted, stop)
            began = time.monotonic()
            for besieger in hostile:
                besieger.start()
            samples, ready = watched(seconds, port)
            ended = time.monotonic()
            stop.set()
            for besieger in hostile:
                besieger.join(60)
            found = beside(ordinary, began, ended) | {"memory": growth(samples), "ready": ready}
            found["hostile"] = {besieger.name: dict(besieger.found) for besieger in hostile}
            say(f"{found}")
            found["recovered"] = recoveries(ordinary, folder)
            calm.set()
            for caller in ordinary:
                caller.join(30)
        found["processes_left"] = sorted(process.name() for process in family())
        sent = Counter([*accepted, *(event for caller in ordinary for event in caller.accepted)])
        return found | {"wrong": sum(caller.wrong for caller in ordinary), "feedback": stored(folder, sent)}


def watched(seconds: float, port: int) -> tuple[list[int], float]:
    """Memory of the replicas over time, and the share of the times that the service said it is ready."""
    samples, answers = [], []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(SAMPLE_SECONDS, seconds / 10))
        samples.append(memory()["replicas"])
        try:
            answers.append(Caller(port, "").call("/health/ready")[0] == 200)
        except (OSError, http.client.HTTPException):
            answers.append(False)
    return samples, float(np.mean(answers))


def growth(samples: list[int]) -> float:
    """Of the last fifth over the first after a warm-up of a third."""
    after = samples[len(samples) // 3 :]
    fifth = max(1, len(after) // 5)
    return float(np.median(after[-fifth:]) / np.median(after[:fifth]) - 1)


def beside(ordinary: list[Ordinary], began: float, ended: float) -> dict[str, Any]:
    """How ordinary callers fared between two moments."""
    seconds = [took for caller in ordinary for when, took in caller.answered if began <= when < ended]
    failed = [text for caller in ordinary for when, text in caller.failed if began <= when < ended]
    p50, p99, worst = np.quantile(seconds, [0.5, 0.99, 1.0]) * 1000 if seconds else (np.nan,) * 3
    return {
        "answered": len(seconds),
        "failed": len(failed),
        "kinds": dict(Counter(text[:60] for text in failed).most_common(5)),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "worst_ms": round(float(worst), 1),
    }


def recoveries(ordinary: list[Ordinary], folder: Path) -> dict[str, Any]:
    """Seconds until nothing fails any more, after each blow."""

    def damage() -> None:
        with (folder / "serving" / "state.sqlite").open("r+b") as file:
            file.write(os.urandom(8192))

    def kill_proxy() -> None:
        for process in family():
            if process.name() == "haproxy":
                process.kill()

    blows: dict[str, Callable[[], None]] = {
        "state damaged": damage,
        "replica killed": lambda: replicas()[0].kill(),
        "proxy killed": kill_proxy,
    }
    found: dict[str, Any] = {}
    for name, blow in blows.items():
        started = time.monotonic()
        blow()
        while True:
            time.sleep(0.5)
            last = max((when for caller in ordinary for when, _ in caller.failed), default=0.0)
            if time.monotonic() - max(last, started) > 4.0 or time.monotonic() - started > RECOVERY_SECONDS:
                break
        failed = [text for caller in ordinary for when, text in caller.failed if when >= started]
        found[name] = {
            "seconds": round(max(0.0, last - started), 1),
            "failed": len(failed),
            "kinds": dict(Counter(text[:60] for text in failed).most_common(4)),
        }
        say(f"{name}: {found[name]}")
    return found


def stored(folder: Path, sent: Counter[Any]) -> dict[str, Any]:
    """Whether every accepted event is in the files once, and the next run reads them."""
    kept: Counter[Any] = Counter()
    for file in sorted((folder / "feedback").glob("*.parquet")):
        for row in Location.of(file).read_parquet().to_pylist():
            kept[row["user_id"], row["item_id"], row["timestamp"]] += 1
    values = DATA | {"users": USERS, "items": ITEMS, "feedback": str(folder / "feedback")}
    again = prepare(open_source(settings_of(**values)), Location.of(folder) / "prepared" / "next")
    return {
        "accepted": sent.total(),
        "lost": (sent - kept).total(),
        "not_acknowledged": (kept - sent).total(),
        "read_by_the_next_run": int(again.manifest["interactions_read"]),
    }


def passed(found: dict[str, Any], p99_ms: float, failed_share: float, grown: float) -> bool:
    """As the module says."""
    asked = found["answered"] + found["failed"]
    calm = found["failed"] <= failed_share * asked and found["p99_ms"] <= p99_ms and found["ready"] >= 0.95
    kept = not (found["wrong"] or found["feedback"]["lost"] or found["processes_left"])
    back = all(blow["seconds"] < 30 for blow in found["recovered"].values())
    return bool(calm and kept and back and found["memory"] <= grown)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--silent", type=int, default=4500, help="connections that say nothing")
    parser.add_argument("--slow", type=int, default=300, help="connections that say half of something")
    parser.add_argument("--p99", type=float, default=250.0, help="milliseconds")
    parser.add_argument("--failed", type=float, default=0.001, help="share of ordinary requests that may fail")
    parser.add_argument("--grown", type=float, default=0.1, help="growth of the replicas' memory that is allowed")
    arguments = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    found = siege(arguments.seconds, arguments.silent, arguments.slow)
    print(json.dumps(found))
    return 0 if passed(found, arguments.p99, arguments.failed, arguments.grown) else 1


if __name__ == "__main__":
    sys.exit(main())
