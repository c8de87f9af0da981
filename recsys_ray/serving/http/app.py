"""The ASGI application: finds the route, checks the key, bounds the load, counts, and turns every failure into JSON."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from recsys_ray.base.errors import RecsysError
from recsys_ray.base.storage import Location
from recsys_ray.serving.config import ServingSettings
from recsys_ray.serving.http.auth import Keys, Refused
from recsys_ray.serving.http.handlers import Handlers
from recsys_ray.serving.http.messages import HttpRequest, HttpResponse, Receive, Scope, Send, decoded, encode, raw_path
from recsys_ray.serving.http.openapi import description
from recsys_ray.serving.http.routes import ROUTES, Route
from recsys_ray.serving.problem import Problem
from recsys_ray.serving.service import Service

log = logging.getLogger(__name__)

App = Callable[[Scope, Receive, Send], Awaitable[None]]
PAGE = {
    "/": ("index.html", b"text/html; charset=utf-8"),
    "/page.js": ("page.js", b"text/javascript; charset=utf-8"),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
}
HEADERS = [(b"x-content-type-options", b"nosniff")]
POLICY = (
    b"default-src 'self'; img-src 'self' data: https: http:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)


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
        self._in_flight = 0
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
            except Exception as error:
                log.exception("the service can't %s", message["type"].removeprefix("lifespan."))
                await send({"type": f"{message['type']}.failed", "message": str(error)})
                return
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        self._in_flight += 1
        name = "none"
        try:
            name, response = await self._respond(scope, receive, started)
        except Exception as error:
            response = _failed(error)
        finally:
            self._in_flight -= 1
        if scope["method"] == "HEAD":
            response.body = b""
        self.service.metrics.count_response(name, response.status, time.perf_counter() - started)
        await response.send(send, HEADERS)

    async def _respond(self, scope: Scope, receive: Receive, started: float) -> tuple[str, HttpResponse]:
        path = raw_path(scope)
        fixed = self._fixed.get(path)
        if fixed is not None:
            if scope["method"] not in ("GET", "HEAD"):
                return path, _problem(Problem(405, "only GET is answered here", {b"allow": b"GET"}))
            return path, HttpResponse(fixed.body, content_type=fixed.content_type, headers=dict(fixed.headers))
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
        if route.role is not None:
            self._keys.check(scope["headers"], route.role)
            if self._in_flight > limits.in_flight:
                self.service.metrics.overloads.inc()
                raise Problem(503, "too many requests at once; try again shortly", self.service.retry_after)
        request = HttpRequest(scope, receive, started, limits.body_kib << 10, limits.id_length)
        if segment:
            request.parameter = decoded(segment, limits.id_length)
        return await route.handler(self._handlers, request)

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


def _fixed_responses() -> dict[str, HttpResponse]:
    """The page and the API's description: the same bytes for every caller."""
    page = resources.files("recsys_ray.serving") / "page"
    responses = {
        path: HttpResponse(
            (page / file).read_bytes(),
            content_type=kind,
            headers={b"cache-control": b"no-cache", b"content-security-policy": POLICY},
        )
        for path, (file, kind) in PAGE.items()
    }
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
