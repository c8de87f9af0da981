"""What workers tell the user: lines that travel through one small actor beside the driver, to its progress callback.

Ray would show what workers print, with colours and process numbers, between lines of its own; so it shows nothing, and
who has something to say gets an ``Outlet``. Lines arrive in order, and before the result of the call that told them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

LOOK_SECONDS = 0.25
FLUSH_SECONDS = 10.0


class _Messages:
    """The actor: messages by channel, until they are taken."""

    def __init__(self) -> None:
        self._kept: dict[str, list[str]] = {}

    def tell(self, channel: str, message: str) -> None:
        self._kept.setdefault(channel, []).append(message)

    def take(self, channel: str) -> list[str]:
        return self._kept.pop(channel, [])


@lru_cache(maxsize=1)
def _messages(job: str, node: str) -> Any:
    """The actor of this ``job``, on ``node``, the driver's own: who loses that needs no more messages."""
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(**options)(_Messages).remote()  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Outlet:
    """The end for workers; it may be pickled and passed on."""

    actor: Any
    channel: str

    @contextmanager
    def open(self) -> Iterator[Callable[[str], None]]:
        """A progress callback. At the end what was told has arrived."""
        sent: list[Any] = []

        def tell(message: str) -> None:
            sent[:] = [self.actor.tell.remote(self.channel, message)]

        try:
            yield tell
        finally:
            if sent:  # calls of one process are carried out in order, so the last stands for all
                ray.wait(sent, timeout=FLUSH_SECONDS)


class Inlet:
    """The driver's end."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        context = ray.get_runtime_context()
        self.outlet = Outlet(_messages(context.get_job_id(), context.get_node_id()), uuid4().hex)

    def pass_on_until(self, done: Any) -> None:
        """Hand every message to the callback until ``done`` has a result, or an error, and no message is left."""
        ready: list[Any] = []
        try:
            while not ready:
                ready, _ = ray.wait([done], timeout=LOOK_SECONDS)
                for message in ray.get(self.outlet.actor.take.remote(self.outlet.channel)):
                    self._progress(message)
        except RayActorError:  # the work goes on without its messages; the next one gets another actor
            _messages.cache_clear()
            self._progress("messages of the workers are lost; the work goes on")
            ray.wait([done])
