"""What all machines share through Redis: responses, and what users sent. The service works on without it.

Events are durable in the journal of the machine that took them before they go to Redis; Redis makes them count in
the next response of every other machine. While Redis can't be reached, responses are made anew and each machine knows
what it took itself; Redis gets it once it is back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from typing import Any, TypeVar

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.optional import require
from recsys_ray.serving.users.events import MOST_EVENTS, Event, UserStates, newest_of_each
from recsys_ray.serving.users.replicas import GONE_SECONDS, Peers

log = logging.getLogger(__name__)

Result = TypeVar("Result")
SECONDS = 0.5  # that one piece of work may take, with all that the client tries again
SEND_SECONDS = 0.25  # of one request for what Redis missed
OWN = 1 << 62  # is added to versions that this machine gives, so that they are none of Redis
PAUSE_SECONDS = 5.0  # without Redis, after a call that failed
MOST_MISSED = 100_000  # batches of events kept for Redis while it is away; older ones count here and in the next run


class Redis:
    """One connection pool; a call that fails is counted, and for a while none is made."""

    def __init__(self, url: str, prefix: str, on_error: Callable[[], None] = lambda: None) -> None:
        client = require("redis.asyncio", extra="redis", what="serving.redis")
        try:
            self._client = client.Redis.from_url(url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS)
        except ValueError as error:
            raise ConfigError(f"serving.redis: {error}; write redis://host:port/0") from error
        # ValueError: what another program has put in place of ours.
        self._errors = (client.RedisError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError)
        self._on_error, self._prefix = on_error, prefix
        self._paused_until, self._failed = 0.0, False

    def key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    @property
    def away(self) -> bool:
        """Whether it could not be reached lately."""
        return time.monotonic() < self._paused_until

    async def attempt(self, work: Callable[[Any], Awaitable[Result]]) -> Result | None:
        """What the work gives with the client, None when Redis can't do it."""
        now = time.monotonic()
        if now < self._paused_until:
            return None
        if self._failed:  # one finds out whether it is back; the others go on without
            self._paused_until = now + SECONDS
        try:
            async with asyncio.timeout(SECONDS):
                found = await work(self._client)
        except self._errors as error:
            self._paused_until, self._failed = time.monotonic() + PAUSE_SECONDS, True
            self._on_error()
            log.warning("redis: %s; going on without it for %g s", str(error) or "no answer in time", PAUSE_SECONDS)
            return None
        if self._failed:
            self._paused_until, self._failed = 0.0, False
        return found

    async def close(self) -> None:
        await self._client.aclose()


class SharedStates:
    """``UserStates`` in Redis over those of this machine."""

    def __init__(self, redis: Redis, journal: UserStates) -> None:
        self._redis, self._journal = redis, journal
        self._missed: deque[tuple[str, Sequence[Event], float]] = deque(maxlen=MOST_MISSED)
        self._sending = asyncio.Lock()

    async def version(self, user: str) -> int:
        if self._missed:
            await self._send()
        if self._missed:
            return await self._own_version(user)

        async def last(client: Any) -> int:
            row = await client.lindex(self._key(user), -1)
            return 0 if row is None else int(json.loads(row)[0])

        found = await self._redis.attempt(last)
        return await self._own_version(user) if found is None else found

    async def _own_version(self, user: str) -> int:
        found = await self._journal.version(user)
        return OWN + found if found else 0

    async def events(self, user: str) -> list[Event]:
        async def read(client: Any) -> list[Event]:
            rows = [json.loads(row) for row in await client.lrange(self._key(user), 0, -1)]
            now = time.time()
            events = sorted((Event(*row[2:]) for row in rows if row[1] > now), key=lambda event: event.timestamp)
            return newest_of_each(events)

        found = None if self._missed else await self._redis.attempt(read)
        return await self._journal.events(user) if found is None else found

    async def add(self, user: str, events: Sequence[Event], hours: float, *, durable: bool) -> None:
        await self._journal.add(user, events, hours, durable=durable)
        self._missed.append((user, events, time.time() + hours * 3600))
        await self._send()

    async def forget(self, users: Collection[str]) -> None:
        await self._journal.forget(users)
        kept = [missed for missed in self._missed if missed[0] not in users]
        self._missed.clear()
        self._missed.extend(kept)
        if users:
            await self._redis.attempt(lambda client: client.delete(*map(self._key, users)))

    async def _send(self) -> None:
        """Send Redis what it does not hold yet, in order, until a write fails or the time of one request is over."""
        until = time.monotonic() + SEND_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(SEND_SECONDS):
                await self._sending.acquire()
            try:
                while self._missed and time.monotonic() < until and await self._write(*self._missed[0]):
                    self._missed.popleft()
            finally:
                self._sending.release()

    async def _write(self, user: str, events: Sequence[Event], until: float) -> bool:
        async def write(client: Any) -> bool:
            number = await client.incrby(self._redis.key("events"), len(events))
            rows = [
                json.dumps([number - len(events) + place, until, *astuple(event)])
                for place, event in enumerate(events, start=1)
            ]
            # What is hidden outlives what is rated: the key stays as long as any of its rows.
            last = max(until, time.time() + await client.ttl(self._key(user)))
            async with client.pipeline() as pipe:
                pipe.rpush(self._key(user), *rows).ltrim(self._key(user), -MOST_EVENTS, -1)
                await pipe.expireat(self._key(user), int(last) + 1).execute()
            return True

        return await self._redis.attempt(write) is not None

    def _key(self, user: str) -> str:
        return self._redis.key("user", user)


class SharedCache:
    """Finished responses of all machines, or, under another name, something else that may be found again."""

    def __init__(self, redis: Redis, ttl_seconds: float, name: str = "answer") -> None:
        self._redis, self._name, self._milliseconds = redis, name, max(1, int(ttl_seconds * 1000))

    async def get(self, key: Hashable) -> bytes | None:
        name = self._key(key)
        found: bytes | None = await self._redis.attempt(lambda client: client.get(name))
        return found

    async def put(self, key: Hashable, value: bytes) -> None:
        name = self._key(key)
        await self._redis.attempt(lambda client: client.set(name, value, px=self._milliseconds))

    def _key(self, key: Hashable) -> str:
        return self._redis.key(self._name, hashlib.sha256(repr(key).encode()).hexdigest())


class SharedPeers:
    """``Peers`` of all machines over those of this one. Their clocks should agree to a few seconds."""

    def __init__(self, redis: Redis, local: Peers) -> None:
        self._redis, self._local, self.name = redis, local, local.name
        self._table = redis.key("replicas")

    async def publish(self, facts: Mapping[str, Any]) -> None:
        await self._local.publish(facts)
        row = json.dumps([time.time(), dict(facts)])
        await self._redis.attempt(lambda client: client.hset(self._table, self.name, row))

    async def all(self) -> dict[str, dict[str, Any]]:
        async def read(client: Any) -> dict[str, dict[str, Any]]:
            rows = {name.decode(): json.loads(row) for name, row in (await client.hgetall(self._table)).items()}
            dead = [name for name, (published, _) in rows.items() if time.time() - published > GONE_SECONDS]
            if dead:
                await client.hdel(self._table, *dead)
            return {name: facts for name, (_, facts) in sorted(rows.items()) if name not in dead}

        return await self._redis.attempt(read) or await self._local.all()

    async def leave(self) -> None:
        await self._local.leave()
        await self._redis.attempt(lambda client: client.hdel(self._table, self.name))
