"""Requests that wait at the same moment become one call of ``rank``.

While one batch is scored in a thread the next one gathers, so batches grow with the load and no request waits for
others when there are none. Which requests share a call changes no response: ``rank`` promises that.

One call has at most ROWS rows to find, and what one caller asks for at once takes its turns call by call: who asks for
little meanwhile gets in between (start-time fair queueing, Goyal, Vin and Cheng 1996, a call being the unit of work).
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

ROWS = 5_000
"""Candidates that one call finds for all of its histories together: some tens of milliseconds."""


@dataclass(slots=True)
class _Waiting:
    run: LiveRun
    key: Hashable
    """Equal for options that are equal."""
    options: Options
    request: Requests
    done: asyncio.Future[Ranked]
    turn: int
    """Number of the call that it may be part of at the earliest."""


class Batcher:
    """One scoring call at a time."""

    def __init__(
        self, executor: Executor, max_rows: int, max_wait: float, observe: Callable[[int], None] = lambda rows: None
    ) -> None:
        self._executor, self._max_rows, self._max_wait, self._observe = executor, max_rows, max_wait, observe
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None
        self._turn = 0

    async def rank(self, run: LiveRun, request: Requests, options: Options, key: Hashable, place: int = 0) -> Ranked:
        """The one list of a request of one row, which is number ``place`` of all that its caller asks for at once."""
        done: asyncio.Future[Ranked] = asyncio.get_running_loop().create_future()
        turn = self._turn + place // self._histories(options)
        self._waiting.append(_Waiting(run, key, options, request, done, turn))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await done

    async def _work(self) -> None:
        await asyncio.sleep(self._max_wait)  # with 0: everything that is ready to run joins first
        while self._waiting:
            first = min(self._waiting, key=lambda one: one.turn)  # of equal turns the one that came first
            self._turn = max(self._turn, first.turn) + 1
            together = [one for one in self._waiting if one.run is first.run and one.key == first.key]
            together.sort(key=lambda one: one.turn)
            batch = together[: self._histories(first.options)]
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

    def _histories(self, options: Options) -> int:
        """How many one call takes."""
        return max(1, min(self._max_rows, ROWS // options.num_candidates))
