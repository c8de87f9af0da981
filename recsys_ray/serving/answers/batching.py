"""Requests that wait at the same moment become one call of ``rank``.

While one batch is scored in a thread the next one gathers, so batches grow with the load and no request waits for
others when there are none. Which requests share a call changes no response: ``rank`` promises that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass

from recsys_ray.base.types import Requests
from recsys_ray.recommend.options import Options
from recsys_ray.recommend.rank import Ranked
from recsys_ray.serving.answers.live_run import LiveRun


@dataclass(slots=True)
class _Waiting:
    run: LiveRun
    key: Hashable
    """Equal for options that are equal."""
    options: Options
    request: Requests
    done: asyncio.Future[Ranked]


class Batcher:
    """One scoring call at a time."""

    def __init__(
        self, executor: Executor, max_rows: int, max_wait: float, observe: Callable[[int], None] = lambda rows: None
    ) -> None:
        self._executor, self._max_rows, self._max_wait, self._observe = executor, max_rows, max_wait, observe
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def rank(self, run: LiveRun, request: Requests, options: Options, key: Hashable) -> Ranked:
        """The one list of a request of one row."""
        done: asyncio.Future[Ranked] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(run, key, options, request, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await done

    async def _work(self) -> None:
        await asyncio.sleep(self._max_wait)  # with 0: everything that is ready to run joins first
        while self._waiting:
            first = self._waiting[0]
            together = [one for one in self._waiting if one.run is first.run and one.key == first.key]
            batch = together[: self._max_rows]
            taken = set(map(id, batch))
            self._waiting = [one for one in self._waiting if id(one) not in taken]
            self._observe(len(batch))
            try:
                lists = await asyncio.get_running_loop().run_in_executor(
                    self._executor, first.run.rank, [one.request for one in batch], first.options
                )
            except Exception as error:
                for one in batch:
                    if not one.done.done():
                        one.done.set_exception(error)
                continue
            for one, ranked in zip(batch, lists, strict=True):
                if not one.done.done():  # its caller may have gone away
                    one.done.set_result(ranked)
