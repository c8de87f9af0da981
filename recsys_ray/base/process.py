"""How a process of ours ends, and what it needs before it begins."""

from __future__ import annotations

import errno
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recsys_ray.base.errors import ConfigError

FEW_FILES = 256
"""Open files below which Ray's processes don't come up."""
MANY_FILES = 65536
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_WRITING = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_FILES = (errno.EMFILE, errno.ENFILE)


class Terminated(KeyboardInterrupt):
    """The process got SIGTERM: what an interruption undoes and closes, it does too."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM raises ``Terminated`` in the main thread, once: what is closed then is not interrupted."""
    got: list[int] = []

    def terminate(number: int, frame: Any) -> None:
        if not got:
            got.append(number)
            raise Terminated

    with kept_sigterm():
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)
        try:
            yield
        except KeyboardInterrupt as error:
            raise (Terminated if got else error) from None  # Ray makes an interruption of every kind


@contextmanager
def kept_sigterm() -> Iterator[None]:
    """What is imported or started here, as Ray, may set handlers of its own; the present one is put back behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:  # what Ray's handler raises
        raise (Terminated if error.code == signal.SIGTERM else error) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def require_open_files() -> None:
    """Raise the limit of open files as far as it may be.

    Raises:
        ConfigError: it stays too low for Ray.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft < most and soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        raise ConfigError(f"this process may open {soft} files, too few for Ray; allow more with ulimit -n 4096")


def writes_any_character() -> None:
    """Standard output and error replace what they can't show: a log in ASCII is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def what_failed(error: OSError) -> str:
    """One line on what the operating system refused, and what to do about it."""
    place = f"{error.filename}: " if error.filename is not None else ""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in NO_SPACE:
        return f"{place or 'output: '}no space left on the device; free space or set output"
    if error.errno in NO_WRITING:
        return f"{place}{reason.lower()}; set output, or the environment variable TMPDIR, to where it may be written"
    if error.errno in NO_FILES:
        return f"{place}{reason.lower()}; allow more with ulimit -n 4096"
    return f"{place}{reason}"
