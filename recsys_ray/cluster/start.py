"""Ray, joined or started, and in one line why it was not."""

from __future__ import annotations

import logging
import os
import re
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.process import kept_sigterm, require_open_files
from recsys_ray.base.secrets import mask
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.cluster.environment import set_environment

TRIES = 3
"""A machine under load may take longer than the 30 s that Ray gives a node to come up."""
LONGEST_PLACE = 20
"""Characters of the directory for temporary files: the path of a socket below it has room for 107 in all."""
TOO_SLOW = "timed out during startup"


def start_ray(settings: ClusterSettings, progress: Callable[[str], None]) -> None:
    """Join the Ray at ``cluster.address``, or start one on this machine.

    Raises:
        ConfigError: neither can be done, and why.
    """
    address = settings.address or os.environ.get("RAY_ADDRESS")
    require_open_files()
    if address:
        _refuse_unreachable("cluster.address" if settings.address else "RAY_ADDRESS", address)
    else:
        _refuse_too_much_memory(settings)
        _refuse_open_doors()
        _own_place()
        _hide_token()
    set_environment(own=not address)
    where = f"join {mask(address)}" if address else "start on this machine"
    for attempt in range(1, TRIES + 1):
        try:
            _init(address, settings)
            if not address:
                _hide_token()  # which Ray may have made only now
            return
        except Exception as error:  # of every kind: a machine that is too slow is a plain Exception
            if TOO_SLOW in str(error) and attempt < TRIES:
                progress(f"Ray did not come up in time, trying again ({attempt} of {TRIES - 1})")
                continue
            raise ConfigError(f"Ray can't {where}: {why_not(error)}") from error


def _init(address: str | None, settings: ClusterSettings) -> None:
    here: dict[str, Any] = {
        "address": "local",  # without it Ray joins whatever cluster was last started on this machine
        "num_cpus": settings.num_cpus,
        "object_store_memory": settings.object_store_mib << 20,
        "include_dashboard": False,
    }
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        with kept_sigterm(), _unheard():
            ray.init(**({"address": address} if address else here), **quiet)
    except BaseException:
        with kept_sigterm():
            ray.shutdown()  # what had come up
        raise


def why_not(error: BaseException) -> str:
    """What kept Ray from starting, in one line with what to do."""
    text = " ".join(str(error).split()) or type(error).__name__
    if TOO_SLOW in text:
        return f"its node did not come up in {TRIES} tries; is the machine overloaded? Run the command again later"
    rays, pythons = re.findall(r"Ray: (\S+)", text), re.findall(r"Python: (\S+)", text)
    if "mismatch" in text and len(rays) == len(pythons) == 2:
        return (
            f"the cluster runs Ray {rays[0]} on Python {pythons[0]}, this process Ray {rays[1]} on Python "
            f"{pythons[1]}; install the versions of the cluster here"
        )
    if isinstance(error, OSError) and error.filename is not None:
        variable = "HOME" if str(error.filename).startswith(str(Path.home())) else "RAY_TMPDIR"
        return f"{error.filename}: {error.strerror}; set the environment variable {variable} to where it can write"
    first = text.split(". ")[0].rstrip(".")
    return f"{mask(first)}; see the section cluster of the configuration"


def _refuse_too_much_memory(settings: ClusterSettings) -> None:
    total = psutil.virtual_memory().total >> 20
    if settings.object_store_mib > total:
        raise ConfigError(
            f"cluster.object_store_mib={settings.object_store_mib} is more than the {total} MiB of this machine; "
            "set it lower"
        )


def _refuse_open_doors() -> None:
    """Several of Ray's ports listen on all interfaces; only its tokens keep strangers from running code there."""
    mode = os.environ.get("RAY_AUTH_MODE")
    if mode is not None and mode.lower() != "token":
        raise ConfigError(
            f"RAY_AUTH_MODE={mode} opens Ray's ports to everybody on the network; unset it, or start a Ray yourself "
            "and set cluster.address"
        )


def _own_place() -> None:
    """Ray's sockets and logs are below a directory that nobody else may enter: Ray opens those inside to everybody."""
    if "RAY_TMPDIR" in os.environ:
        return
    place = tempfile.gettempdir()
    folder = Path(place if len(place) < LONGEST_PLACE else "/tmp") / f"recsys_ray-ray-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat(follow_symlinks=False)
    except OSError as error:
        raise ConfigError(
            f"Ray can't start: {folder}: {error.strerror}; set RAY_TMPDIR to a place of our own"
        ) from error
    if found.st_uid != os.getuid() or found.st_mode != stat.S_IFDIR | 0o700:
        raise ConfigError(f"{folder}: is open to other users or not ours; remove it, or set RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = str(folder)


def _hide_token() -> None:
    """Who has Ray's token runs code as this user; Ray makes it with the mode of any new file."""
    file = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):  # none yet, or a home that can't be written, of which Ray will say more
        file.parent.mkdir(mode=0o700, exist_ok=True)
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)


def _refuse_unreachable(name: str, address: str) -> None:
    """ConfigError when nobody listens at host:port: Ray would go on asking for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return  # auto, or another form that Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(
            f"{name}={mask(address)}: nobody answers there ({reason}); set it to the address of a "
            "running Ray head, or to null for a Ray of our own"
        ) from error


@contextmanager
def _unheard() -> Iterator[None]:
    """Nothing reaches standard error: there Ray's C++ side says, as it starts, which log level it was given."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
