"""What texts of a language model took today: counted on the disk of a machine, and in Redis for all machines.

A day is one of UTC. The processes of one machine share a SQLite file, so a limit holds over restarts and replicas. With
Redis the totals are those of all machines; while it is away each machine goes by what it took itself, and tells Redis
once it is back. They are never below the machine's own, whatever Redis forgot.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from recsys_ray.serving.users.database import open_database, written_whole
from recsys_ray.serving.users.redis_state import Redis

DAYS_KEPT = 31
_TABLE = (
    "CREATE TABLE IF NOT EXISTS spending (day TEXT, what TEXT, amount REAL NOT NULL, PRIMARY KEY (day, what)) "
    "WITHOUT ROWID"
)

Amounts = Mapping[str, float]
"""By what is counted: ``cost``, ``texts``, ``seconds``, ``input_tokens``, ``output_tokens``."""


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


class Spending(Protocol):
    """The totals of days."""

    async def add(self, day: str, amounts: Amounts) -> dict[str, float]:
        """Count these too; the totals of that day. Raises StorageError where they can't be kept."""
        ...

    def close(self) -> None: ...


class LocalSpending:
    """Those of one machine."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._db = open_database(file, _TABLE, "count what texts cost", timeout=10)
        self._thread = ThreadPoolExecutor(1, "spending")

    async def add(self, day: str, amounts: Amounts) -> dict[str, float]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._add, day, amounts)

    def close(self) -> None:
        self._thread.shutdown()
        self._db.close()

    def _add(self, day: str, amounts: Amounts) -> dict[str, float]:
        oldest = f"{datetime.now(UTC) - timedelta(days=DAYS_KEPT):%Y-%m-%d}"
        with written_whole(self._db, self.file):
            self._db.execute("DELETE FROM spending WHERE day < ?", (oldest,))
            self._db.executemany(
                "INSERT INTO spending VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                [(day, what, amount) for what, amount in amounts.items()],
            )
            rows = self._db.execute("SELECT what, amount FROM spending WHERE day = ?", (day,)).fetchall()
        return {what: float(amount) for what, amount in rows}


class SharedSpending:
    """Those of all machines over those of this one."""

    def __init__(self, redis: Redis, local: Spending) -> None:
        self._redis, self._local = redis, local
        self._unsent: dict[str, Counter[str]] = {}

    async def add(self, day: str, amounts: Amounts) -> dict[str, float]:
        local = await self._local.add(day, amounts)
        sending, self._unsent = self._unsent, {}
        sending.setdefault(day, Counter()).update(amounts)

        async def send(client: Any) -> dict[str, float]:
            async with client.pipeline() as pipe:
                for of_day, missing in sending.items():
                    key = self._redis.key("spending", of_day)
                    for what, amount in missing.items():
                        pipe.hincrbyfloat(key, what, amount)
                    pipe.expire(key, DAYS_KEPT * 86400)
                pipe.hgetall(self._redis.key("spending", day))
                *_, found = await pipe.execute()
            return {what.decode(): float(amount) for what, amount in found.items()}

        found = await self._redis.attempt(send)
        if found is not None:
            return {what: max(amount, local.get(what, 0.0)) for what, amount in found.items()}
        for of_day, missing in sending.items():
            self._unsent.setdefault(of_day, Counter()).update(missing)
        return local

    def close(self) -> None:
        self._local.close()
