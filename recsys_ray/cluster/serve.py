"""The service as a Ray Serve deployment: the very ASGI application of ``serving``, in replicas behind Serve's proxy.

Serve reads its switches from the environment when it is imported, in every process. ``environment`` names them; they
are set here before a Ray of our own starts, and on a running cluster they must be in its environment (see
``configs/serve/deploy.yaml``).
"""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

from recsys_ray.base.errors import ConfigError, PublishError, RecsysError
from recsys_ray.base.storage import Location
from recsys_ray.cluster.proxy import STOPPING, bounded, private_folder
from recsys_ray.cluster.session import Session, set_threads
from recsys_ray.runs.publish import RECOMMENDATIONS, latest_run
from recsys_ray.serving import ServingSettings, build_app

APPLICATION = "recsys_ray"
STOPS = (signal.SIGINT, signal.SIGTERM)
OWN_PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    # Where HAProxy sends requests while it knows no replica; Ray lets several processes listen on one number.
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)
PORTS = range(20_000, 22_000)
REPLICA_PORTS = range(22_000, 30_000, 100)  # where the replicas of one service on a machine begin
GRPC = "RAY_SERVE_USE_GRPC_BY_DEFAULT"
"""0: nothing calls a replica by gRPC, so its port for that can be on loopback alone."""
START_SECONDS = "60"  # for a proxy on a busy machine; by default it would be killed and started anew after 5 s
DRAIN_SECONDS = "1"  # a replica that goes answers what it has; by default it would linger for 30 s


class Replica:
    """One process that answers. Built by Serve; its application is made inside, where it runs."""

    def __init__(self, settings: str, output: str) -> None:
        self._settings, self._output = ServingSettings.model_validate_json(settings), output
        if not any(os.environ.get(name, "0").lower() in ("1", "true") for name in uses_grpc()):
            close_grpc()
        set_threads(self._settings.threads)
        logging.getLogger("recsys_ray").setLevel(logging.INFO)

    def __serve_build_asgi_app__(self) -> Any:
        return build_app(self._settings, self._output)


def environment(settings: ServingSettings, folder: Path) -> dict[str, str]:
    """Serve's switches for these settings; the proxy keeps its files in ``folder``.

    Two services may share a machine: each gets free ports for HAProxy's pages and its way round HAProxy, and a range
    for its replicas. On Ray's fixed numbers the proxy of one would, while both start, ask the other.
    """
    deployment = settings.deployment
    free = map(str, free_ports())
    ports = {name: os.environ.get(name) or next(free) for name in OWN_PORTS}
    first = random.choice(REPLICA_PORTS)
    return (
        ports
        | bounded(folder, settings.limits.arrival_seconds)
        | {
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + REPLICA_PORTS.step - 1),
            "RAY_SERVE_ENABLE_HA_PROXY": str(int(deployment.haproxy)),
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": str(int(deployment.throughput_optimized)),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": DRAIN_SECONDS,
            "RAY_SERVE_LOG_TO_STDERR": "0",
            GRPC: "0",
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": START_SECONDS,
        }
    )


def uses_grpc() -> list[str]:
    """Switches that, set to 1, let proxies call replicas by gRPC."""
    return [GRPC if GRPC in os.environ else "RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_PROXY_USE_GRPC"]


def close_grpc() -> None:
    """Ports for gRPC that are opened in this process from now on are on loopback.

    Serve opens one in each replica on all interfaces, for calls between deployments, that asks for no token and
    unpickles what it is sent: whoever reached it would run code here. We have one deployment, and nobody calls it so.
    """
    import grpc  # type: ignore[import-untyped]

    for server in grpc.aio.Server.__subclasses__():
        server.add_insecure_port = partialmethod(_opened_on_loopback, server.add_insecure_port)


def _opened_on_loopback(server: Any, opened: Callable[[Any, str], int], address: str) -> int:
    return opened(server, re.sub(r"^(\[::\]|0\.0\.0\.0):", "127.0.0.1:", address))


def application(settings: ServingSettings, output: Location) -> Any:
    """The Serve application, for ``serve.run`` and for a configuration file's ``import_path``."""
    from ray import serve

    wanted, limit = settings.deployment, settings.limits.in_flight
    scaling: dict[str, Any] = {"num_replicas": wanted.replicas}
    if wanted.max_replicas is not None:
        scaling = {
            "autoscaling_config": {
                "min_replicas": wanted.replicas,
                "max_replicas": wanted.max_replicas,
                "target_ongoing_requests": wanted.target_ongoing_requests,
            }
        }
    deployment: Any = serve.deployment(
        serve.ingress()(Replica),
        name="service",
        # Above our own limit: the service itself turns requests away, with Retry-After.
        max_ongoing_requests=4 * limit,
        health_check_period_s=2,  # a killed replica is missed, and replaced, that soon
        graceful_shutdown_timeout_s=20,
        ray_actor_options={"num_cpus": wanted.cpus},
        **scaling,
    )
    return deployment.bind(settings.model_dump_json(), str(output))


@contextmanager
def deployed(session: Session, settings: ServingSettings, output: Location) -> Iterator[str]:
    """Start Serve with the application; its address, once it answers. Everything is stopped at the end.

    Raises:
        ConfigError: the port is taken. RecsysError: Serve or the replicas did not start, and why.
    """
    _refuse_taken(settings.host, settings.port)
    with private_folder() as folder, _in_environment(environment(settings, folder)) as variables:
        session.connect()
        with _served(settings, output, variables):
            try:
                yield f"http://{_reachable(settings.host)}:{settings.port}"
            finally:
                (folder / STOPPING).touch()


@contextmanager
def _in_environment(variables: dict[str, str]) -> Iterator[dict[str, str]]:
    """These variables for a while: the next service of this process has others."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield variables
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextmanager
def _served(settings: ServingSettings, output: Location, variables: dict[str, str]) -> Iterator[None]:
    """Serve with the application, on the Ray that is connected."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.config import HTTPOptions, ProxyLocation

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        try:
            serve.start(
                proxy_location=ProxyLocation(settings.deployment.proxies),
                # In HAProxy mode Serve listens on all interfaces unless it is told an address.
                http_options=HTTPOptions(host=settings.host, port=settings.port),
                logging_config={"log_level": "WARNING", "enable_access_log": False},
                controller_options={"runtime_env": {"env_vars": variables}},
            )
            serve.run(application(settings, output), name=APPLICATION, route_prefix="/")
        except (RuntimeError, RayError) as error:
            raise RecsysError(f"serve: {why(str(error))}") from error
        yield
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]


def run_serve(session: Session, settings: ServingSettings, output: Location) -> dict[str, Any]:
    """Serve until the process is interrupted or terminated; where it was answered.

    Raises:
        PublishError: there is nothing to serve. ConfigError: the port is taken.
    """
    for place in {Location.of(variant.output) if variant.output else output for variant in settings.variants}:
        if latest_run(place / RECOMMENDATIONS) is None:
            raise PublishError(f"{place}: nothing is published, so there is nothing to serve; run recsys-ray run first")
    stop = threading.Event()
    with deployed(session, settings, output) as address:
        # Only now: Ray sets handlers of its own when it starts.
        before = [signal.signal(number, lambda *_: stop.set()) for number in STOPS]
        session.progress(f"serve: {address} answers from {output}; open it in a browser; Ctrl-C stops it")
        while not stop.wait(1.0):  # short waits: a signal is only seen between them
            pass
        for number, handler in zip(STOPS, before, strict=True):
            signal.signal(number, handler)
        session.progress("serve: stopping")
    return {"stage": "serve", "path": str(output), "address": address}


def why(message: str) -> str:
    """The line that says why a deployment failed, out of all that Serve has to say: an error of ours, or the last."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    ours = [line.partition(": ")[2] for line in lines if line.startswith("recsys_ray.base.errors.")]
    return (ours or lines or ["Ray Serve did not start"])[-1]


def _refuse_taken(host: str, port: int) -> None:
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"serving.port={port} on {host} can't be had ({error.strerror}); set another") from error


def free_ports() -> Iterator[int]:
    """Ports nobody listens on, outside the range that connections and Ray's workers take theirs from: they are bound
    only seconds later."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                yield port
    raise ConfigError(f"too few ports from {PORTS.start} to {PORTS.stop - 1} are free")


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
