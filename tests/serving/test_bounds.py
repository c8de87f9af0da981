"""Bounds for callers: of time, of what one request may ask for, of the names and keys that they use."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from recsys_ray.cluster.proxy import STOPPING, bounded
from recsys_ray.serving import ServingSettings
from recsys_ray.serving.answers.batching import ROWS, Batcher
from recsys_ray.serving.http.auth import new_key
from tests.serving_worlds import client, listening

HEAD = (
    b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 5000\r\n\r\n"
)


# --- time ---


def test_bodies_that_never_come_hold_no_place_and_are_cut(world: Path, tmp_path: Path) -> None:
    """More of them than requests may be in flight, and everybody else is answered."""
    limits = {"arrival_seconds": 1.5, "in_flight": 4}
    settings = ServingSettings.model_validate({"state": str(tmp_path), "limits": limits})
    with listening(settings, world) as address, ExitStack() as opened:
        place = (urlsplit(address).hostname, urlsplit(address).port)
        slow = [opened.enter_context(socket.create_connection(place)) for _ in range(60)]
        for connection in slow:
            connection.sendall(HEAD + b"{")
        for user in range(1, 11):
            with urlopen(f"{address}/v1/recommendations/{user}") as answer:
                assert answer.status == 200
        for connection in slow:
            connection.settimeout(20)
            found = _all_of(connection)
            assert b" 408 " in found.partition(b"\r\n")[0] and b"did not arrive" in found


def test_a_body_in_drops_has_no_more_time_than_another(world: Path, tmp_path: Path) -> None:
    settings = ServingSettings.model_validate({"state": str(tmp_path), "limits": {"arrival_seconds": 0.5}})
    with listening(settings, world) as address, ExitStack() as opened:
        place = (urlsplit(address).hostname, urlsplit(address).port)
        connection = opened.enter_context(socket.create_connection(place))
        connection.sendall(HEAD)
        connection.settimeout(0.1)
        for _ in range(200):
            connection.sendall(b" ")
            try:
                answer = connection.recv(4096)
                break
            except TimeoutError:
                continue
        else:
            pytest.fail("a drop every tenth of a second was waited for without end")
        assert b" 408 " in answer


def test_bodies_on_their_way_have_a_bound_together(world: Path, tmp_path: Path) -> None:
    limits = {"arriving_mib": 1, "body_kib": 900}
    settings = ServingSettings.model_validate({"state": str(tmp_path), "limits": limits})
    head = HEAD.replace(b"5000", b"900000")
    with listening(settings, world) as address, ExitStack() as opened:
        place = (urlsplit(address).hostname, urlsplit(address).port)
        first, second = (opened.enter_context(socket.create_connection(place)) for _ in range(2))
        first.sendall(head + b" " * 600_000)
        time.sleep(0.3)
        second.sendall(head + b" " * 600_000)
        second.settimeout(10)
        assert b" 503 " in _all_of(second).partition(b"\r\n")[0]
        first.sendall(b" " * 299_998 + b"{}")
        first.settimeout(10)
        assert b" 422 " in first.recv(4096)


def test_an_answer_that_takes_too_long_is_given_up(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(world, state=str(tmp_path), limits={"answer_seconds": 0.2}) as service:
        application: Any = service.app
        monkeypatch.setattr(application.service, "recommend_user", lambda *args: asyncio.sleep(60))
        answer = service.get("/v1/recommendations/1")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert service.get("/v1/popular").status_code == 200


# --- what one request may ask for ---


@pytest.mark.parametrize(
    ("users", "n", "explain", "allowed"),
    [(10, 10, False, True), (10, 11, False, False), (1, 10, True, True), (2, 6, True, False), (10, 1, True, True)],
)
def test_users_times_rows_has_one_limit(
    world: Path, tmp_path: Path, users: int, n: int, explain: bool, allowed: bool
) -> None:
    body = {"user_ids": list(range(1, users + 1)), "n": n, "explain": explain}
    with client(world, state=str(tmp_path), limits={"answer_rows": 100}) as service:
        answer = service.post("/v1/recommendations", json=body)
    assert answer.status_code == (200 if allowed else 422)
    assert allowed or f"at most {10 if explain else 100}, found {users * n}" in answer.json()["error"]


@pytest.mark.parametrize("asked", [40, 200])
def test_who_asks_for_little_gets_in_between(asked: int) -> None:
    """A call is so many rows; a big ask takes many calls, and a small one that comes later waits for two at most."""
    calls: list[list[str]] = []

    def rank(requests: list[str], options: Any) -> list[str]:
        calls.append(requests)
        time.sleep(0.005)
        return requests

    async def play() -> None:
        batcher = Batcher(pool, 128, 0.0)
        run: Any = SimpleNamespace(rank=rank)
        large, small = (SimpleNamespace(num_candidates=n) for n in (ROWS // 5, 10))
        work = [asyncio.create_task(batcher.rank(run, "big", large, "large", k)) for k in range(asked)]
        await asyncio.sleep(0.008)
        begun = len(calls)
        assert await batcher.rank(run, "small", small, "small") == "small"
        assert len(calls) - begun <= 3
        assert await asyncio.gather(*work) == ["big"] * asked

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(play())
    assert max(map(len, calls)) == 5 and sum(map(len, calls)) == asked + 1


# --- names and keys ---


@pytest.mark.parametrize(
    ("settings", "name", "status"),
    [
        ({}, "localhost", 200),
        ({}, "LOCALHOST:8000", 200),
        ({}, "127.0.0.1:1", 200),
        ({}, "[::1]:8000", 200),
        ({}, "evil.example", 421),
        ({}, "localhost.evil.example", 421),
        ({"host": "0.0.0.0"}, "evil.example", 200),
        ({"host": "0.0.0.0", "hosts": ["Shop.example"]}, "shop.example:443", 200),
        ({"host": "0.0.0.0", "hosts": ["shop.example"]}, "evil.example", 421),
        ({"hosts": ["*"]}, "evil.example", 200),
    ],
)
def test_the_service_answers_to_its_names_alone(
    world: Path, tmp_path: Path, settings: dict[str, Any], name: str, status: int
) -> None:
    with client(world, state=str(tmp_path), **settings) as service:
        assert service.get("/v1/popular", headers={"host": name}).status_code == status
        assert service.get("/health/ready", headers={"host": name}).status_code == 200  # for probes of any name


def test_wrong_keys_are_late_and_logged_and_what_an_admin_does_is_logged_with_the_name(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, digest = new_key()
    keys = [{"name": "nightly", "role": "admin", "sha256": digest}]
    with client(world, state=str(tmp_path), keys=keys, limits={"refused_key_seconds": 0.3}) as service:
        started = time.perf_counter()
        with caplog.at_level(logging.INFO, "recsys_ray"):
            assert service.get("/v1/popular", headers={"x-api-key": "guess"}).status_code == 401
            late = time.perf_counter() - started
            body = {"variant": "default", "run_id": "none"}
            assert service.post("/v1/models/activate", json=body, headers={"x-api-key": key}).status_code == 409
    assert late >= 0.3
    said = [record.getMessage() for record in caplog.records]
    assert any("a wrong key was sent from" in line for line in said)
    assert "/v1/models/activate is called with the key nightly" in said
    assert "guess" not in " ".join(said)


def test_answers_are_kept_by_nobody_on_the_way_and_name_no_page(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as service:
        headers = service.get("/v1/recommendations/1").headers
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")


# --- the proxy ---


# Ray 2.60 declares its own models in a way that pydantic has deprecated.
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")
def test_the_proxy_s_configuration_is_amended_on_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve._private import haproxy_templates

    template = haproxy_templates.HAPROXY_CONFIG_TEMPLATE
    wanted = ("mode 666", "return status 404", "\ndefaults\n", "    bind :{{ config.metrics_port }}")
    assert all(part in template for part in wanted)
    file = tmp_path / "haproxy.cfg"
    lines = [line for line in template.splitlines() if "{%" not in line and "{{ healthz" not in line]
    file.write_text("\n".join(lines))
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/bin/echo")
    script = bounded(tmp_path, 7)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    (tmp_path / STOPPING).touch()  # nobody stands in for one that only echoes
    for _ in range(2):
        done = subprocess.run([script, "-db", "-f", file, "-sf", "1"], capture_output=True, text=True, check=True)
        assert done.stdout == f"-db -f {file} -sf 1\n"
    text = file.read_text()
    assert "mode 600 level admin" in text and "mode 666" not in text
    assert text.count("timeout http-request 7s") == 1
    assert "bind :" not in text and "bind *:" not in text
    nobody = text.partition("\nbackend default_backend\n")[2].partition("\nbackend ")[0]
    assert "status 503" in nobody and "status 404" not in nobody and "hdr Retry-After 1" in nobody


def test_the_proxy_s_files_fit_where_sockets_may_be(tmp_path: Path) -> None:
    found = bounded(tmp_path, 2.5)
    assert found["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"] == "3"
    assert int(found["RAY_SERVE_HAPROXY_MAXCONN"]) >= 100
    places = [value for name, value in found.items() if name.endswith(("PATH", "LOC", "BASE", "FILE"))]
    assert len(places) >= 5 and all(place.startswith(str(tmp_path)) for place in places)


def test_a_ray_without_tokens_is_not_started() -> None:
    code = (
        "from recsys_ray.cluster.start import start_ray\n"
        "from recsys_ray.cluster.config import ClusterSettings\n"
        "start_ray(ClusterSettings(), print)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"RAY_AUTH_MODE": "disabled"}
    )
    assert done.returncode and "RAY_AUTH_MODE=disabled opens Ray's ports" in done.stderr


def _all_of(connection: socket.socket) -> bytes:
    parts = []
    with suppress(ConnectionResetError):  # what was not read is thrown away with the connection
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)
