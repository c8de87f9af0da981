"""Who calls during the siege: ordinary callers, hostile ones, and a probe of readiness."""

from __future__ import annotations

import http.client
import itertools
import json
import multiprocessing
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.serving_soak import ITEMS, USERS

RATE = 50.0
ORDINARY = range(1, USERS // 2 + 1)
FLOODED = USERS
NAMES = ("user_id", "item_id", "timestamp")
Event = tuple[int, int, int]


class Caller:
    """Calls on one connection that is opened again whenever it broke."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._headers = {"content-type": "application/json", "x-api-key": key}

    def call(self, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body; OSError or HTTPException where there is no answer.

        A connection that was kept and is found closed is opened anew once, for what changes nothing, as browsers and
        pools do.
        """
        data = None if body is None else json.dumps(body)
        kept = self._connection.sock is not None
        try:
            return self._call(path, data)
        except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
            if not kept or data is not None:
                raise
            return self._call(path, data)

    def _call(self, path: str, data: str | None) -> tuple[int, bytes]:
        try:
            self._connection.request("GET" if data is None else "POST", path, data, self._headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise


class Events:
    """What became of events that were sent: each is sent once, and none is like another."""

    def __init__(self, pause: Any, days: int) -> None:
        """``pause`` is an event of whatever kind; ``days`` before now their times begin, others for each process."""
        self.accepted: Counter[Event] = Counter()
        self.unsure: Counter[Event] = Counter()
        """Sent, and not answered, or answered with a failure: they may have been kept."""
        self.pause = pause
        """Set: nobody sends any."""
        self._numbers = itertools.count(time.time_ns() // 1_000_000 - days * 86_400_000)
        self._lock = threading.Lock()

    def new(self, user: int, items: list[int]) -> list[Event]:
        return [(user, item, next(self._numbers)) for item in items]

    def send(self, caller: Caller, events: list[Event]) -> int:
        """The status; 0 while nobody sends."""
        if self.pause.is_set():
            return 0
        status = 0
        try:
            body = {"events": [dict(zip(NAMES, event, strict=True)) for event in events]}
            status, _ = caller.call("/v1/feedback", body)
            return status
        finally:
            with self._lock:
                if status == 200:
                    self.accepted.update(events)
                elif status not in (401, 422, 429):
                    self.unsure.update(events)


class Ordinary(threading.Thread):
    """Asks at its own pace for lists whose rows are known, and now and then sends an event."""

    def __init__(self, number: int, of: int, caller: Caller, lists: dict[Any, Any], events: Events) -> None:
        super().__init__(daemon=True)
        self._pace, self._random, self._lists = of / RATE, random.Random(number), lists
        self._caller, self._events, self._number = caller, events, number
        self.stop = threading.Event()
        self.answered: list[tuple[float, float]] = []
        """(when it was asked for, seconds) of each answer; what failed, by when it did."""
        self.failed: list[tuple[float, str]] = []
        self.refused: list[tuple[float, str]] = []
        """Events that the service said it could not keep now."""
        self.wrong = 0

    def run(self) -> None:
        due = time.monotonic() + self._pace * self._random.random()
        while not self.stop.wait(max(0.0, due - time.monotonic())):
            due += self._pace
            started = time.monotonic()
            try:
                self._one()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append((time.monotonic(), f"{type(error).__name__}: {error}"))
            else:
                self.answered.append((started, time.monotonic() - started))

    def _one(self) -> None:
        if self._random.random() < 0.05:
            events = self._events.new(USERS // 2 + 1 + self._number, [self._random.randint(1, ITEMS)])
            status = self._events.send(self._caller, events)
            if status == 503:
                self.refused.append((time.monotonic(), "503"))
            elif status not in (0, 200):
                raise ValueError(f"{status} for an event")
            return
        user = self._random.choice(ORDINARY)
        status, body = self._caller.call(f"/v1/recommendations/{user}?n=5")
        if status != 200:
            raise ValueError(f"{status} {body[:120]!r}")
        expected = [row["item_id"] for row in self._lists[user][:5]]
        self.wrong += [item["item_id"] for item in json.loads(body)["items"]] != expected


class Besieger(threading.Thread):
    """Does one thing again and again, and counts the statuses that it got."""

    def __init__(self, name: str, once: Callable[[], Any], stop: Any) -> None:
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


class Probe(threading.Thread):
    """Asks twice a second whether the service is ready, on a connection of its own each time."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.stop = threading.Event()
        self.unready: list[tuple[float, str]] = []
        self.named: list[tuple[float, str]] = []
        """(when, part) of the parts that it said were degraded."""
        self.asked = 0

    def run(self) -> None:
        while not self.stop.wait(0.5):
            now = time.monotonic()
            self.asked += 1
            try:
                status, body = Caller(self._port, "").call("/health/ready")
                if status != 200:
                    self.unready.append((now, f"{status} {body[:60]!r}"))
                    continue
                self.named += [(now, part) for part in json.loads(body)["degraded"]]
            except (OSError, http.client.HTTPException) as error:
                self.unready.append((now, f"{type(error).__name__}: {error}"))


class Horde:
    """All hostile callers, in a process of their own: ordinary ones don't wait for its interpreter.

    The dearest requests are asked for from the beginning.
    """

    def __init__(self, port: int, key: str, silent: int, slow: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pause, self._others, self._stop = context.Event(), context.Event(), context.Event()
        self._told, ours = context.Pipe(duplex=False)
        events = (self.pause, self._others, self._stop)
        self._process = context.Process(target=_besiege, args=(port, key, silent, slow, *events, ours), daemon=True)
        self._process.start()
        assert self._told.poll(60) and self._told.recv() == "begun"

    def all(self) -> None:
        """The others come as well."""
        self._others.set()

    def end(self) -> tuple[dict[str, dict[str, int]], Counter[Event], Counter[Event]]:
        """Statuses by name, and the events that were acknowledged, and those that are unsure."""
        self._stop.set()
        assert self._told.poll(120), "the horde does not come home"
        found: tuple[dict[str, dict[str, int]], Counter[Event], Counter[Event]] = self._told.recv()
        self._process.join(30)
        return found


def _besiege(port: int, key: str, silent: int, slow: int, pause: Any, others: Any, stop: Any, told: Any) -> None:
    events = Events(pause, days=5)
    dearest, more = dear(port, key, stop), besiegers(port, key, silent, slow, events, stop)
    for besieger in dearest:
        besieger.start()
    told.send("begun")
    others.wait()
    for besieger in more:
        besieger.start()
    stop.wait()
    for besieger in (*dearest, *more):
        besieger.join(60)
    counted = {besieger.name: dict(besieger.found) for besieger in (*dearest, *more)}
    told.send((counted, events.accepted, events.unsure))


def dear(port: int, key: str, stop: Any) -> list[Besieger]:
    """The dearest requests that are legal, without a pause."""
    many, explained = Caller(port, key), Caller(port, key)

    def asking(caller: Caller, **more: Any) -> Callable[[], int]:
        return lambda: caller.call("/v1/recommendations", {"n": ITEMS - 20, **more})[0]

    users = list(range(1, 51))
    work = {"many users": asking(many, user_ids=users), "reasons": asking(explained, user_ids=users[:5], explain=True)}
    return [Besieger(name, once, stop) for name, once in work.items()]


def besiegers(port: int, key: str, silent: int, slow: int, events: Events, stop: Any) -> list[Besieger]:
    """All others, not started yet."""
    rng = random.Random(0)
    flood, lists, guess = Caller(port, key), Caller(port, key), Caller(port, "guess")

    def flooding() -> int:
        found = events.send(flood, events.new(FLOODED, [rng.randint(1, ITEMS) for _ in range(500)]))
        if not found:
            stop.wait(0.2)
        return found

    def listing() -> int:
        allow = rng.sample(range(1, ITEMS + 1), 150)
        return lists.call("/v1/recommendations", {"user_id": rng.randint(1, 50), "allow": allow})[0]

    body = (
        b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %s\r\n"
        b"Content-Type: application/json\r\nContent-Length: 400\r\n\r\n{" % key.encode()
    )
    work: dict[str, Callable[[], Any]] = {
        "one user's events": flooding,
        "allow lists": listing,
        "wrong keys": lambda: guess.call("/v1/popular")[0],
        "silent": lambda: held(port, silent, b"", stop),
        "half a head": lambda: held(port, slow, b"GET /v1/popular HTT", stop),
        "no body": lambda: held(port, slow, body, stop),
    }
    return [Besieger(name, once, stop) for name, once in work.items()]


def held(port: int, count: int, said: bytes, stop: Any) -> str:
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
