"""A connection to Ray, made when the first piece of work needs it, and the ways to spread work over it.

``map_blocks`` runs small pieces as Ray tasks, ``run`` places one big piece (a fit) on a machine with room. Both call
plain module-level functions that know nothing of Ray. Nothing that workers print is shown; what they have to say comes
through ``progress``.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import ray
import ray.data

from recsys_ray.base.errors import RecsysError, StorageError
from recsys_ray.base.progress import Ticker
from recsys_ray.base.storage_errors import foreign_storage_error
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.cluster.progress import Inlet
from recsys_ray.cluster.resources import claims, refuse_impossible
from recsys_ray.cluster.start import start_ray
from recsys_ray.training import WorkerSettings

Result = TypeVar("Result")


class Session:
    """Use as a context manager; a Ray that this session started is stopped at the end."""

    def __init__(
        self,
        settings: ClusterSettings,
        progress: Callable[[str], None] = lambda message: None,
        workers: WorkerSettings | None = None,
    ) -> None:
        """``workers`` are those that will train a neural model; None where none is trained."""
        self.settings = settings
        self.progress = progress
        self.workers = workers
        self._started = self._checked = False

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            ray.shutdown()
            self._started = False

    def connect(self) -> None:
        """Join the Ray that is there, or start one on this machine. Idempotent.

        Raises:
            ConfigError: it can't be had, or no machine of it can do what the settings ask for.
        """
        _settle_ray_data()
        if not ray.is_initialized():
            start_ray(self.settings, self.progress)
            self._started = True
        if not self._checked and not self.settings.autoscaling:
            refuse_impossible(claims(self.settings, self.workers), _machines(), what="the Ray that is there")
        self._checked = True

    @property
    def num_cpus(self) -> int:
        """Cores of the whole cluster as it stands, or as ``actors`` asks an autoscaling one to become."""
        self.connect()
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        requested = (self.settings.actors or 0) * self.settings.actor_cpus
        return max(1, int(max(resources.get("CPU", 1), requested)))

    def map_blocks(
        self, fn: Callable[[Any, Any], Result], blocks: Iterable[Any], shared: Any = None, label: str | None = None
    ) -> Iterator[Result]:
        """``contracts.MapBlocks`` as Ray tasks of one core: in order, ``shared`` stored once, few in flight."""
        self.connect()
        blocks = list(blocks)
        shared_ref = ray.put(shared)
        task: Any = ray.remote(num_cpus=1, max_retries=3)(_call)
        window = 2 * self.num_cpus
        ticker = Ticker(self.progress, label, len(blocks))
        pending: dict[int, Any] = {}
        for index, block in enumerate(blocks):
            pending[index] = task.remote(fn, block, shared_ref)
            if len(pending) >= window:
                yield self._take(pending, ticker)
        while pending:
            yield self._take(pending, ticker)

    def run(self, fn: Callable[..., Result], *args: Any) -> Result:
        """One call on a machine with room: the cores of a fit, its errors as they were raised, what it tells as
        ``progress``. ``fn`` takes, before ``args``, an outlet for messages (see ``progress.py``)."""
        self.connect()
        cpus = self.settings.fit_cpus or largest_machine()
        inlet = Inlet(self.progress)
        done = ray.remote(num_cpus=cpus, max_retries=1)(_with_threads).remote(fn, cpus, inlet.outlet, *args)
        inlet.pass_on_until(done)
        with our_errors():
            result: Result = ray.get(done)
        return result

    def _take(self, pending: dict[int, Any], ticker: Ticker) -> Any:
        index = next(iter(pending))
        with our_errors():
            result = ray.get(pending.pop(index))
        ticker.step()
        return result


class our_errors:
    """Re-raise an error of ours that crossed Ray as itself, and a full disk or lost worker as one clear line."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seen = error
        while seen is not None:
            # Ray's wrapper also inherits from the class it wraps, so the innermost cause is the one to show.
            inner = getattr(seen, "cause", None)
            if isinstance(inner, BaseException):
                seen = inner
            elif isinstance(seen, RecsysError):
                # Ray Data adds lines of advice to the message; ours is one line.
                seen.args = (str(seen).partition("\n")[0], *seen.args[1:])
                raise seen from None
            elif isinstance(seen, OSError | MemoryError) and seen is not error:
                raise seen from None
            elif (told := foreign_storage_error(seen)) is not None:
                raise told from None
            else:
                seen = seen.__cause__ or seen.__context__
        if isinstance(error, ray.exceptions.OutOfDiskError):
            raise StorageError(
                "the disk for Ray's object spilling is full; free space or set cluster.object_store_mib"
            ) from None


def set_threads(count: int) -> None:
    """Give this process ``count`` threads in every library that is loaded or will be."""
    os.environ["OMP_NUM_THREADS"] = str(count)  # for torch and BLAS, when they are imported later
    import numba
    import threadpoolctl

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    threadpoolctl.threadpool_limits(count)


def largest_machine() -> int:
    """Cores of the largest machine that is there."""
    return max(1, int(max((machine.get("CPU", 0) for machine in _machines()), default=1)))


def _machines() -> list[dict[str, float]]:
    # Meant for developers, says Ray; its other calls know the sum over all machines only.
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _settle_ray_data() -> None:
    """No bars, no reports of its own; an error that a function raises arrives as itself, and is shown once."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _with_threads(fn: Callable[..., Result], cpus: int, *args: Any) -> Result:
    set_threads(cpus)
    return fn(*args)


def _call(fn: Callable[[Any, Any], Result], block: Any, shared: Any) -> Result:
    return fn(block, shared)
