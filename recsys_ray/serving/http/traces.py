"""A request as a span: its method, route and status. The path is not told, for ids of users are part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from recsys_ray.base.tracing import Traces
from recsys_ray.serving.http.messages import Scope

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

Told = Callable[[str, int], None]
"""Takes the route and the status."""


@contextmanager
def request_span(traces: Traces | None, scope: Scope) -> Iterator[Told]:
    """What happens inside, below the span that the caller names in the header ``traceparent``."""
    if traces is None:
        yield _nothing
        return
    method = scope["method"] if scope["method"] in METHODS else "_OTHER"
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    with traces.span(method, headers, server=True) as span:

        def told(route: str, status: int) -> None:
            has_route = route.startswith("/")
            if has_route:
                span.rename(f"{method} {route}")
            span.note({"http.request.method": method, "http.route": route if has_route else None})
            span.note({"http.response.status_code": status})
            if status >= 500:
                span.failed(str(status))

        yield told


def _nothing(route: str, status: int) -> None:
    """Nobody asks."""
