"""The program that Ray starts in place of HAProxy: it amends the configuration and becomes HAProxy.

    python -IS haproxy.py BINARY SECONDS STOPPING ARGUMENTS...

What is amended is said in ``proxy.py``. Beside HAProxy it leaves a watcher. Ray needs seconds to miss a proxy that was
killed and to start another with its manager; until then the watcher puts in a *stand-in*: a HAProxy of the same
configuration without Ray's admin socket, so that Ray sees that its own is gone. The first HAProxy of a new manager
knows no replica yet, so it leaves the door to whoever still answers; the one that knows them takes it over, open.

Standard library only, for it runs at each change of replicas.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

DOOR = "http_frontend"
"""Ray's name for the frontend that callers reach."""
HANDOVER = "door.sock"
STAND_IN_SECONDS = 60.0
"""After which Ray is taken to have given up."""
POLL_SECONDS = 0.05
SAID = '{"status":503,"error":"no replica answers now; try again shortly"}'
AWAY = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(SAID)}\r\nRetry-After: 1\r\nCache-Control: no-store\r\n\r\n{SAID}"
)
_SECTION = re.compile(r"^(?=(?:global|defaults|frontend|backend|listen)\b)", re.MULTILINE)
_BIND = re.compile(r"^ *bind .*\n", re.MULTILINE)


def amended(text: str, seconds: str, away: Path) -> str:
    """Ray's configuration with our bounds; ``away`` holds what is said where no replica answers."""
    text = re.sub(r"^( *stats socket .*) mode 666 ", r"\1 mode 600 ", text, flags=re.MULTILINE)
    text = re.sub(r"^ *timeout http-request .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^defaults$", f"defaults\n    timeout http-request {seconds}s", text, flags=re.MULTILINE)
    text = re.sub(r"^( *bind )\*?:", r"\g<1>127.0.0.1:", text, flags=re.MULTILINE)
    text = re.sub(r"^( *errorfile 50[234]) .*$", lambda found: f"{found[1]} {away}", text, flags=re.MULTILINE)
    # A replica that dies while it answers: another is asked, but for what may have been done.
    text = re.sub(r"^( *retry-on conn-failure)$", r"\1 empty-response", text, flags=re.MULTILINE)
    once = "    http-request disable-l7-retry unless METH_GET\n"
    if once not in text:
        text = re.sub(rf"^(frontend {DOOR}\n)", rf"\1{once}", text, flags=re.MULTILINE)
    parts = _SECTION.split(text)
    lost = re.compile(r"return status 404 (.*)$", re.MULTILINE)
    return "".join(
        lost.sub(r"return status 503 \1 hdr Retry-After 1", part) if _is(part, "backend", "default_backend") else part
        for part in parts
    )


def knows_replicas(text: str) -> bool:
    """Whether there is somebody to ask but Ray's own way round."""
    return re.search(r"^ *server (?!.* backup$)", text, re.MULTILINE) is not None


def without_door(text: str) -> str:
    """Callers go to another process. No port at all: a conflict over one, when the next takes over, would close all."""
    return _BIND.sub("", text)


def door_alone(text: str, socket: Path) -> str:
    """For callers; it hands the door over at this socket."""
    parts = [part if _is(part, "frontend", DOOR) else _BIND.sub("", part) for part in _SECTION.split(text)]
    return re.sub(r"^( *stats socket )\S+", lambda found: f"{found[1]}{socket}", "".join(parts), flags=re.MULTILINE)


def _is(part: str, kind: str, name: str) -> bool:
    return part.partition("\n")[0].split() == [kind, name]


class Started:
    """The processes that were started for one configuration file, by number, the newest last."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "started"

    def add(self, pid: int) -> None:
        numbers = [*self.living(), pid]
        draft = self._file.with_suffix(f".{os.getpid()}")
        draft.write_text("\n".join(map(str, numbers)))
        draft.replace(self._file)

    def living(self) -> list[int]:
        """Those of our files: a number may have gone to a stranger since."""
        try:
            numbers = [int(line) for line in self._file.read_text().split()]
        except (OSError, ValueError):
            return []
        return [number for number in numbers if self._ours(number)]

    def newest(self) -> int:
        """The last that was started, alive or not; 0 for none."""
        try:
            return int(self._file.read_text().split()[-1])
        except (OSError, ValueError, IndexError):
            return 0

    def _ours(self, pid: int) -> bool:
        try:
            return f"{self._folder}/".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False


def main(arguments: list[str]) -> None:
    binary, seconds, stopping, *rest = arguments
    file = Path(rest[rest.index("-f") + 1])
    away = file.with_name("503.http")
    away.write_text(AWAY)
    text, started = amended(file.read_text(), seconds, away), Started(file.parent)
    others = [str(pid) for pid in started.living() if str(pid) not in rest]
    if others and knows_replicas(text):
        socket = file.with_name(HANDOVER)
        if socket.exists() and "-x" in rest:
            rest[rest.index("-x") + 1] = str(socket)
        rest += ["-sf", *others]
    file.write_text(without_door(text) if others and not knows_replicas(text) else text)
    started.add(os.getpid())
    if hasattr(os, "pidfd_open") and knows_replicas(text):
        _watch(binary, rest, text, file, Path(stopping))
    os.execv(binary, [binary, *rest])


def _watch(binary: str, arguments: list[str], text: str, file: Path, stopping: Path) -> None:
    """Leave a process that is nobody's child and puts in a stand-in when this one is killed."""
    mine, started = os.getpid(), Started(file.parent)
    end = os.pidfd_open(mine)
    child = os.fork()
    if child:
        os.close(end)
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    try:
        select.select([end], [], [])
        # One that was told to go has a successor; one that Ray killed at its own end finds it written.
        if started.newest() == mine and not stopping.exists() and file.parent.is_dir():
            plan = file.with_name(f"stand-in-{mine}.cfg")
            plan.write_text(door_alone(text, file.with_name(HANDOVER)))
            again = [one for one in arguments if one == "-dR"]
            _stand_in([binary, "-db", *again, "-f", str(plan)], started, stopping)
            for one in (plan, file.with_name(HANDOVER)):
                with suppress(OSError):
                    one.unlink()
    finally:
        os._exit(0)


def _stand_in(command: list[str], started: Started, stopping: Path) -> None:
    """Until it is told to go, and not for ever. One that is killed is started again."""
    until, status = time.monotonic() + STAND_IN_SECONDS, -signal.SIGKILL
    while status < 0 and time.monotonic() < until and not stopping.exists() and stopping.parent.is_dir():
        child = os.fork()
        if not child:
            os.execv(command[0], command)
        started.add(child)
        status = _awaited(child, until, stopping)


def _awaited(child: int, until: float, stopping: Path) -> int:
    """How it ended; it is killed when its time is over."""
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until or stopping.exists() or not stopping.parent.is_dir():
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(POLL_SECONDS)
    return os.waitstatus_to_exitcode(ended[1])


if __name__ == "__main__":
    main(sys.argv[1:])
