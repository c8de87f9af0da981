"""The ASGI application: finds the route, checks the key, bounds the load, counts, and turns every failure into JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from recsys_ray.base.errors import RecsysError
from recsys_ray.base.storage import Location
from recsys_ray.base.tracing import open_traces
from recsys_ray.serving.config import Role, ServingSettings
from recsys_ray.serving.http.auth import Keys, Refused, WrongKey
from recsys_ray.serving.http.handlers import Handlers
from recsys_ray.serving.http.messages import (
    CLOSE,
    HttpRequest,
    HttpResponse,
    Receive,
    Scope,
    Send,
    decoded,
    encode,
    header,
    raw_path,
)
from recsys_ray.serving.http.openapi import description
from recsys_ray.serving.http.pages import ASSETS, CONTENT_POLICY, PAGES, pages, policy, zipped
from recsys_ray.serving.http.routes import ROUTES, Route
from recsys_ray.serving.http.traces import request_span
from recsys_ray.serving.problem import Problem
from recsys_ray.serving.service import Service

log = logging.getLogger(__name__)

App = Callable[[Scope, Receive, Send], Awaitable[None]]
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def build_app(settings: ServingSettings, output: str) -> App:
    """The service over the published runs of one output directory, as a plain ASGI application."""
    application: App = Application(Service(settings, Location.of(output)))
    if settings.cors_origins:
        application = CORSMiddleware(  # type: ignore[assignment]
            application,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["X-API-Key", "Authorization", "Content-Type"],
        )
    return application


class Application:
    """See the module. ``service`` starts and stops with the ASGI lifespan."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._handlers, self._keys = Handlers(service), Keys(service.settings.keys)
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[str, str, dict[str, Route]]] = []
        for route in ROUTES:
            self._add(route)
        self._fixed = _fixed_responses()
        self._hosts = _names(service.settings)
        self._in_flight, self._arriving = 0, 0
        self._traces = open_traces(log.warning)
        service.metrics.in_flight.set_function(lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # a websocket: there are none here
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            try:
                if message["type"] == "lifespan.startup":
                    await self.service.start()
                else:
                    await self.service.stop()
                    if self._traces is not None:
                        await asyncio.to_thread(self._traces.close)
            except Exception as error:
                log.exception("the service can't %s", message["type"].removeprefix("lifespan."))
                await send({"type": f"{message['type']}.failed", "message": str(error)})
                return
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        with request_span(self._traces, scope) as told:
            name = "none"
            try:
                name, response = await self._respond(scope, receive, started)
            except Exception as error:
                response = _failed(error)
            told(name, response.status)
        if scope["method"] == "HEAD":
            response.body = b""
        self.service.metrics.count_response(name, response.status, time.perf_counter() - started)
        try:
            async with asyncio.timeout(self.service.settings.limits.arrival_seconds):
                await response.send(send, HEADERS)
        except TimeoutError:  # the connection is closed, for the answer is incomplete
            log.info("an answer was not taken in time")

    async def _respond(self, scope: Scope, receive: Receive, started: float) -> tuple[str, HttpResponse]:
        path = raw_path(scope)
        fixed = self._fixed.get(path)
        if fixed is not None:
            if b"gzip" in header(scope, b"accept-encoding"):
                fixed = _zipped_responses()[path]
            if scope["method"] not in ("GET", "HEAD"):
                return path, _problem(Problem(405, "only GET is answered here", {b"allow": b"GET"}))
            name = ASSETS if path.startswith(ASSETS) else path
            headers = dict(fixed.headers)
            if path in PAGES:
                headers[CONTENT_POLICY] = policy(self.service.runs.poster_origins)
            return name, HttpResponse(fixed.body, content_type=fixed.content_type, headers=headers)
        methods, segment = self._find(path)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = methods.get(method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            problem = Problem(405, f"only {allowed} is answered here", {b"allow": allowed.encode()})
            return next(iter(methods.values())).path, _problem(problem)
        try:
            return route.path, await self._handle(route, segment, scope, receive, started)
        except Exception as error:
            return route.path, _failed(error)

    async def _handle(self, route: Route, segment: str, scope: Scope, receive: Receive, started: float) -> HttpResponse:
        limits = self.service.settings.limits
        request = HttpRequest(scope, receive, started, limits.body_kib << 10, limits.id_length)
        if route.role is None:
            return await route.handler(self._handlers, request)
        self._check_host(request)
        request.holder = await self._check_key(request, route.role)
        if route.role == "admin":
            log.info("%s is called with the key %s", route.path, request.holder)
        if route.method == "POST":
            await self._arrive(request)
        if segment:
            request.parameter = decoded(segment, limits.id_length)
        if self._in_flight >= limits.in_flight:
            raise self._overloaded()
        self._in_flight += 1
        try:
            async with asyncio.timeout(limits.answer_seconds):
                response = await route.handler(self._handlers, request)
        except TimeoutError as error:
            log.error("%s was not answered in %g s", route.path, limits.answer_seconds)
            raise Problem(503, "the answer took too long; try again shortly", self.service.retry_after) from error
        finally:
            self._in_flight -= 1
        response.headers.setdefault(b"cache-control", b"no-store")
        return response

    def _check_host(self, request: HttpRequest) -> None:
        """Raises Problem 421."""
        if self._hosts is not None and _host_name(header(request.scope, b"host")) not in self._hosts:
            raise Problem(421, "the service is not reached by this name; see serving.hosts")

    async def _check_key(self, request: HttpRequest, role: Role) -> str | None:
        """Who calls. A wrong key is answered late, and logged."""
        try:
            return self._keys.check(request.scope["headers"], role)
        except WrongKey:
            client = request.scope.get("client") or ("?", 0)
            log.warning("a wrong key was sent from %s", client[0])
            await asyncio.sleep(self.service.settings.limits.refused_key_seconds)
            raise

    async def _arrive(self, request: HttpRequest) -> None:
        """Read the body in the time there is. Raises Problem 400, 408, 413, 503."""
        limits, taken = self.service.settings.limits, 0

        def take(size: int) -> None:
            nonlocal taken
            if self._arriving + size > limits.arriving_mib << 20:
                problem = self._overloaded()
                problem.headers |= CLOSE
                raise problem
            taken, self._arriving = taken + size, self._arriving + size

        try:
            async with asyncio.timeout(limits.arrival_seconds):
                await request.arrive(take)
        except TimeoutError as error:
            message = f"the body did not arrive within {limits.arrival_seconds:g} s"
            raise Problem(408, message, CLOSE) from error
        finally:
            self._arriving -= taken

    def _overloaded(self) -> Problem:
        self.service.metrics.overloads.inc()
        return Problem(503, "too many requests at once; try again shortly", self.service.retry_after)

    def _add(self, route: Route) -> None:
        if "{" not in route.path:
            self._exact.setdefault(route.path, {})[route.method] = route
            return
        before, _, rest = route.path.partition("{")
        self._patterns.append((before, rest.partition("}")[2], {route.method: route}))

    def _find(self, path: str) -> tuple[dict[str, Route], str]:
        """Routes by method, and the encoded id. Longer patterns come first in ROUTES. Raises Problem 404."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact, ""
        for before, after, methods in self._patterns:
            if path.startswith(before) and path.endswith(after) and len(path) > len(before) + len(after):
                return methods, path[len(before) : len(path) - len(after)]
        raise Problem(404, "nothing is answered here; see /openapi.json")


def _names(settings: ServingSettings) -> frozenset[str] | None:
    """What callers may call the service; None for anything."""
    if settings.hosts is not None:
        return None if "*" in settings.hosts else frozenset(name.lower() for name in settings.hosts)
    return frozenset(LOOPBACK) if settings.host in LOOPBACK else None


def _host_name(header: bytes) -> str:
    """The header Host without its port, in lower case; an IPv6 address without brackets."""
    text = header.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


@cache
def _zipped_responses() -> dict[str, HttpResponse]:
    """The same, smaller; made when the first caller accepts it, once for a process."""
    return zipped(_fixed_responses())


@cache
def _fixed_responses() -> dict[str, HttpResponse]:
    """The pages and the API's description: the same bytes for every caller."""
    responses = pages()
    responses["/openapi.json"] = HttpResponse(json.dumps(description(ROUTES)).encode())
    return responses


def _failed(error: Exception) -> HttpResponse:
    """What the caller learns of a failure: never a trace, a path or a setting."""
    if isinstance(error, Problem):
        return _problem(error)
    if isinstance(error, Refused):
        challenge = {b"www-authenticate": b"Bearer"} if error.status == 401 else {}
        return _problem(Problem(error.status, str(error), challenge))
    if isinstance(error, RecsysError):
        log.error("%s", error)
    else:
        log.error("a request failed", exc_info=error)
    return _problem(Problem(500, "the service could not answer; its log says why"))


def _problem(problem: Problem) -> HttpResponse:
    body: dict[str, Any] = {"status": problem.status, "error": problem.message}
    return HttpResponse(encode(body), status=problem.status, headers=problem.headers)
