"""A connection to Ray, made when the first piece of work needs it, and the ways to spread work over it.

``map_blocks`` runs small pieces as Ray tasks, ``map_chunks`` streams file chunks through Ray Data, ``run`` places one
big piece (a fit) on a machine with room. All of them call plain module-level functions that know nothing of Ray.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import cloudpickle
import numpy as np
import psutil
import ray
import ray.data
from pydantic import Field

from recsys_ray.base.errors import ConfigError, RecsysError, StorageError
from recsys_ray.base.types import Settings

Result = TypeVar("Result")
log = logging.getLogger(__name__)

KEEP_WORKERS_MS = 60_000
"""How long a Ray of our own keeps idle worker processes. By default one second, and after a stage of two seconds the
next one starts processes again, which takes longer than the work of a small run."""


class ClusterSettings(Settings):
    """Where the work runs."""

    address: str | None = None
    """Address of a running Ray; by default RAY_ADDRESS, and without that a Ray of our own on this machine."""
    num_cpus: int | None = Field(default=None, ge=1)
    """Cores of a Ray of our own; all by default."""
    object_store_mib: int = Field(default=1024, ge=80)
    """Shared memory of a Ray of our own."""
    actors: int | None = Field(default=None, ge=1)
    """Processes of the batch and embedding jobs; by default as many as the cluster has room for. Set it where the
    cluster autoscales: the cores that are there at the start say little."""
    actor_cpus: float = Field(default=1.0, gt=0)
    """Cores, and threads, of one such process."""
    actor_gpus: float = Field(default=0.0, ge=0)
    """GPUs of one such process; fractions share one."""
    fit_cpus: int | None = Field(default=None, ge=1)
    """Cores of the fit; by default all of the largest machine."""
    fit_gpus: float = Field(default=0.0, ge=0)
    """GPUs of the fit."""


class WorkerSettings(Settings):
    """The processes that train a neural model together."""

    count: int = Field(default=1, ge=1)
    """How many. The batch size is that of all together, so the result does not depend on it."""
    cpus: int | None = Field(default=None, ge=1)
    """Cores, and threads, of each; by default an equal share of the largest machine."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of each; above 0 they work together through NCCL, otherwise through gloo."""
    max_failures: int = Field(default=3, ge=0)
    """How often a group that lost a worker starts again from the last checkpoint."""


class Session:
    """Use as a context manager; a Ray that this session started is stopped at the end."""

    def __init__(self, settings: ClusterSettings, progress: Callable[[str], None] = lambda message: None) -> None:
        self.settings = settings
        self.progress = progress
        self._started = False

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            ray.shutdown()
            self._started = False

    def connect(self) -> None:
        """Join the Ray that is there, or start one on this machine. Idempotent."""
        if ray.is_initialized():
            return
        address = self.settings.address or os.environ.get("RAY_ADDRESS")
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "configure_logging": True, "log_to_driver": True}
        if address:
            _refuse_unreachable("cluster.address" if self.settings.address else "RAY_ADDRESS", address)
        here: dict[str, Any] = {
            "address": "local",  # without it Ray joins whatever cluster was last started on this machine
            "num_cpus": self.settings.num_cpus,
            "object_store_memory": self.settings.object_store_mib << 20,
            "include_dashboard": False,
            "_system_config": {"idle_worker_killing_time_threshold_ms": KEEP_WORKERS_MS},
        }
        try:
            ray.init(**({"address": address} if address else here), **quiet)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = f"join {address}" if address else "start on this machine"
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(f"Ray can't {where}: {said}; see the section cluster of the configuration") from error
        self._started = True
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, and shown once

    @property
    def num_cpus(self) -> int:
        """Cores of the whole cluster as it stands, or as ``actors`` asks an autoscaling one to become."""
        self.connect()
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        asked = (self.settings.actors or 0) * self.settings.actor_cpus
        return max(1, int(max(resources.get("CPU", 1), asked)))

    def map_blocks(
        self, fn: Callable[[Any, Any], Result], blocks: Iterable[Any], shared: Any = None, label: str | None = None
    ) -> Iterator[Result]:
        """``contracts.MapBlocks`` as Ray tasks of one core: in order, ``shared`` stored once, few in flight."""
        self.connect()
        blocks = list(blocks)
        shared_ref, task = ray.put(shared), _task()
        window = 2 * self.num_cpus
        ticker = Ticker(self.progress, label, len(blocks))
        pending: dict[int, Any] = {}
        for index, block in enumerate(blocks):
            pending[index] = task.remote(fn, block, shared_ref)
            if len(pending) >= window:
                yield self._take(pending, ticker)
        while pending:
            yield self._take(pending, ticker)

    def map_chunks(
        self, fn: Callable[[Any, Any], Result], blocks: Iterable[Any], shared: Any = None, label: str | None = None
    ) -> Iterator[Result]:
        """``contracts.MapBlocks`` as one Ray Data pipeline: for chunks of input files, whose results are small."""
        self.connect()
        rows = [{"index": index, "block": cloudpickle.dumps(block)} for index, block in enumerate(blocks)]
        if not rows:
            return
        ticker = Ticker(self.progress, label, len(rows))
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _ChunkFunction(fn, shared), batch_size=1, batch_format="numpy"
        )
        done: dict[int, Any] = {}
        following = 0
        with our_errors():
            for row in dataset.iter_rows():
                ticker.step()
                done[int(row["index"])] = unboxed(row["result"])
                while following in done:
                    yield done.pop(following)
                    following += 1

    def run(self, fn: Callable[..., Result], *args: Any) -> Result:
        """One call on a machine with room: the cores (and GPUs) of a fit, its errors as they were raised."""
        self.connect()
        nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        cpus = self.settings.fit_cpus or max(1, int(max(nodes, default=1)))
        remote = ray.remote(num_cpus=cpus, num_gpus=self.settings.fit_gpus, max_retries=1)(fit)
        with our_errors():
            result: Result = ray.get(remote.remote(fn, cpus, *args))
        return result

    def _take(self, pending: dict[int, Any], ticker: Ticker) -> Any:
        index = next(iter(pending))
        with our_errors():
            result = ray.get(pending.pop(index))
        ticker.step()
        return result


class Ticker:
    """Progress lines for work of known length: one every few seconds, none for work that is done at once."""

    def __init__(self, progress: Callable[[str], None], label: str | None, total: int, seconds: float = 5.0) -> None:
        self._progress, self._label, self._total, self._seconds = progress, label, total, seconds
        self._done = 0
        self._started = self._last = time.monotonic()

    def step(self, note: str = "") -> None:
        self._done += 1
        now = time.monotonic()
        if self._label is None or self._done == self._total or now - self._last < self._seconds:
            return
        self._last = now
        # The first piece carries the start of workers and says little about the rest.
        left = (now - self._started) / self._done * (self._total - self._done)
        estimate = f" (about {left:.0f} s left)" if self._done > 2 else ""
        self._progress(f"{self._label}: {self._done}/{self._total}{note}{estimate}")


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
                raise seen from None
            else:
                seen = seen.__cause__ or seen.__context__
        if isinstance(error, ray.exceptions.OutOfDiskError):
            raise StorageError(
                "the disk for Ray's object spilling is full; free space or set cluster.object_store_mib"
            ) from None


def boxed(action: Callable[[], Any]) -> Any:
    """A result as a column of one pickled value; an error of ours too: Ray Data would wrap it beyond recognition."""
    try:
        result = action()
    except RecsysError as error:
        result = error
    return np.array([cloudpickle.dumps(result)], dtype=object)


def unboxed(box: bytes) -> Any:
    """What was ``boxed``; raised when it was an error."""
    result = pickle.loads(box)
    if isinstance(result, RecsysError):
        raise result
    return result


class _ChunkFunction:
    """A batch of one pickled chunk in, its pickled result out. A callable, so that Ray Data ships ``shared`` once."""

    def __init__(self, fn: Callable[[Any, Any], Any], shared: Any) -> None:
        self.fn, self.shared = fn, shared
        self.__name__ = getattr(fn, "__name__", "chunk")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        result = boxed(lambda: self.fn(pickle.loads(batch["block"][0]), self.shared))
        return {"index": batch["index"], "result": result}


def _refuse_unreachable(name: str, address: str) -> None:
    """ConfigError when nobody listens at host:port: Ray would go on asking for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return  # auto, or another form that Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"{name}={address}: nobody answers there ({error.strerror or error}); set it to the address of a "
            "running Ray head, or to null for a Ray of our own"
        ) from error


def set_threads(count: int) -> None:
    """Give this process ``count`` threads in every library that is loaded or will be."""
    os.environ["OMP_NUM_THREADS"] = str(count)  # for torch and BLAS, when they are imported later
    import numba
    import threadpoolctl

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    threadpoolctl.threadpool_limits(count)


def available_memory() -> int:
    """Bytes a new process could take here: the machine's free memory, or what its control group leaves."""
    free = int(psutil.virtual_memory().available)
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            free = min(free, int(limit.read()) - int(used.read()))
    except (OSError, ValueError):
        pass  # no control group, or no limit ("max")
    return free


def fit(fn: Callable[..., Result], cpus: int, *args: Any) -> Result:
    set_threads(cpus)
    return fn(*args)


def _task() -> Any:
    return ray.remote(num_cpus=1, max_retries=3)(_call)


def _call(fn: Callable[[Any, Any], Result], block: Any, shared: Any) -> Result:
    return fn(block, shared)
