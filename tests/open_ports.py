"""What this process and those that it started listen on besides loopback, and what keeps strangers out of each."""

from __future__ import annotations

import http.client
import socket
from typing import Any

import psutil

from tests.serving_soak import family

METHODS = (
    "ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "ray.rpc.NodeManagerService/GetNodeStats",
    "ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "ray.rpc.ObjectManagerService/Push",
    "ray.rpc.ReporterService/GetTraceback",
    "ray.serve.ASGIService/HandleRequest",
    "ray.serve.RayServeAPIService/Healthz",
)
"""One of each of Ray's services for gRPC: the one that a port knows must ask for the token."""
LOOPBACK = ("127.", "::1", "::ffff:127.")


def open_ports() -> list[dict[str, Any]]:
    """Process, port and guard: "token", or what a stranger was answered."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for process in (psutil.Process(), *family()):
        try:
            name, connections = process.name(), process.net_connections("inet")
        except psutil.Error:
            continue
        for one in connections:
            if one.status == psutil.CONN_LISTEN and not one.laddr.ip.startswith(LOOPBACK):
                ip, port = one.laddr
                guard = _guard("127.0.0.1" if ip in ("0.0.0.0", "::") else ip, port)
                if guard is not None:
                    found[name, port] = {"process": name, "port": port, "guard": guard}
    return list(found.values())


def _guard(ip: str, port: int) -> str | None:
    """None where it has closed since."""
    try:
        socket.create_connection((ip, port), timeout=2).close()
    except OSError:
        return None
    asked = http.client.HTTPConnection(ip, port, timeout=2)
    try:
        asked.request("GET", "/")
        status = asked.getresponse().status
        return "token" if status in (401, 403) else f"HTTP {status}"
    except (OSError, http.client.HTTPException):
        return _grpc_guard(f"{ip}:{port}")
    finally:
        asked.close()


def _grpc_guard(address: str) -> str:
    import grpc

    answers = {}
    with grpc.insecure_channel(address) as channel:
        for method in METHODS:
            try:
                channel.unary_unary(f"/{method}")(b"", timeout=3)
                return f"{method} answered"
            except grpc.RpcError as error:
                answers[method] = error.code().name
    known = {method: code for method, code in answers.items() if code != "UNIMPLEMENTED"}
    if set(known.values()) == {"UNAUTHENTICATED"}:
        return "token"
    return f"{known}" if known else "a service that this test does not know"
