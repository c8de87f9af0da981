"""The lists of a published run in Redis, a key per user.

    <name>:current          the run that readers follow, replaced by one SET when all of its lists are there
    <name>:<run>:<user>     {"item_ids": [...], "scores": [...], "sources": [...]} as JSON, in the order of the ranks
    <name>:loading          held while lists are loaded; expires with its holder

A reader takes the run from the first and the list from the second. Lists of the run before stay for ``GRACE_SECONDS``
after the switch, so that who has read the pointer finds them. A load that was killed is begun again; what it left is
written over, or removed where another run is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa

from recsys_ray.base.errors import ConfigError, PublishError
from recsys_ray.base.optional import require
from recsys_ray.base.progress import Step
from recsys_ray.base.ragged import of_list_array
from recsys_ray.base.secrets import mask
from recsys_ray.base.storage_errors import first_line
from recsys_ray.runs.published_lists import PublishedLists

BATCH = 1000
GRACE_SECONDS = 60
HELD_SECONDS = 60
"""After this time without a word of its holder the lock counts for nothing."""
CONNECT_SECONDS, ANSWER_SECONDS = 5, 30
NAME = re.compile(r"[\w.-]+(:[\w.-]+)*")
RUN_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]+")


def load_redis(
    lists: PublishedLists,
    where: str,
    name: str,
    expire_hours: float | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Write all lists, then switch; what was done. Loading a run again writes it again, with a new expiry.

    Args:
        where: ``redis://host:port/0``, or ``rediss://`` or ``unix://``.
        expire_hours: after which a list is gone; None keeps it until another run is loaded.

    Raises:
        ConfigError: the address or the name is none, or redis is not installed. PublishError: Redis can't be reached,
            or refuses to write; ``<name>:current`` stays what it was.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"--name: {name!r} is no name of keys; letters, digits, '_', '.', '-' and ':' between make one"
        )
    milliseconds = None if expire_hours is None else max(1, round(expire_hours * 3_600_000))
    with _open(where) as client:
        lock = client.lock(f"{name}:loading", timeout=HELD_SECONDS)
        if not lock.acquire(blocking=False):
            progress(f"export: another load works on {name}; waiting for it, {HELD_SECONDS} s if it was killed")
            lock.acquire()
        try:
            return _load(client, lists, name, milliseconds, lock, progress)
        finally:
            if lock.owned():
                lock.release()


def _load(
    client: Any,
    lists: PublishedLists,
    name: str,
    milliseconds: int | None,
    lock: Any,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    run, pointer, users, parts = lists.run.name, f"{name}:current", 0, lists.parts()
    before = client.get(pointer)
    led_to = None if before is None else before.decode("utf-8", "replace")
    _retire(client, name, {run, led_to}, 0)  # what loads that were killed have left
    for done, part in enumerate(parts, start=1):
        for block in lists.nested(part).to_batches(max_chunksize=BATCH):
            lock.reacquire()
            with client.pipeline(transaction=False) as pipe:
                for user, value in values_of(block):
                    pipe.set(f"{name}:{run}:{user}", value, px=milliseconds)
                pipe.execute()
            users += block.num_rows
        progress(Step("export: redis", done, len(parts)))
    for some in _chunks(sorted(lists.forgotten), BATCH):  # of a load of this run before
        client.unlink(*(f"{name}:{run}:{user}" for user in some))
    lock.reacquire()
    client.set(pointer, run)
    retired = _retire(client, name, {run}, GRACE_SECONDS)
    return {"pointer": pointer, "run_id": run, "before": led_to, "users": users, "retired": retired}


def values_of(block: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """(user, JSON) of lists, nested. Scores are the shortest numbers that are the same float32."""
    offsets, scores = of_list_array(pa.chunked_array([block.column("scores")]))
    short = scores.cast(pa.string()).cast(pa.float64())
    place = block.schema.get_field_index("scores")
    block = block.set_column(place, "scores", pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), short))
    for row in block.to_pylist():
        user = row.pop("user_id")
        yield str(user), json.dumps(row, separators=(",", ":"), ensure_ascii=False)


def _retire(client: Any, name: str, kept: Collection[str | None], seconds: int) -> int:
    """Lists of all other runs go after so many seconds; how many there were."""
    found = 0
    for keys in _chunks(client.scan_iter(match=f"{name}:*", count=BATCH), BATCH):
        runs = ((key, key.decode("utf-8", "replace").removeprefix(f"{name}:").partition(":")[0]) for key in keys)
        old = [key for key, run in runs if RUN_ID.fullmatch(run) and run not in kept]
        with client.pipeline(transaction=False) as pipe:
            for key in old:
                pipe.expire(key, seconds) if seconds else pipe.unlink(key)
            pipe.execute()
        found += len(old)
    return found


def _chunks(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    left = iter(values)
    while chunk := list(islice(left, size)):
        yield chunk


@contextmanager
def _open(where: str) -> Iterator[Any]:
    """A client; whatever goes wrong between here and the server is one line."""
    redis = require("redis", extra="redis", what="export redis")
    try:
        client = redis.Redis.from_url(where, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=CONNECT_SECONDS)
    except ValueError as error:
        raise ConfigError(f"--to: {mask(first_line(error))}; write redis://host:port/0") from error
    try:
        with client:
            yield client
    except (redis.RedisError, OSError) as error:
        said = mask(first_line(error))
        raise PublishError(
            f"{mask(where)}: Redis can't be used ({said}); start it, or name another with --to"
        ) from error
