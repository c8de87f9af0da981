"""The little of HTTP that the handlers need: a request and a response. ASGI without a framework in between.

Paths are matched as they were sent, before percent-decoding, so an id may hold any character: encode it whole
(``encodeURIComponent``, ``urllib.parse.quote(id, safe="")``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from recsys_ray.serving.problem import Problem

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Model = TypeVar("Model", bound=BaseModel)

JSON = b"application/json"
LONGEST_NAME = 40
CLOSE = {b"connection": b"close"}
"""With the answer to a request that was not read to its end."""


@dataclass(slots=True)
class HttpResponse:
    """Status, headers and body."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: dict[bytes, bytes] = field(default_factory=dict)

    async def send(self, send: Send, extra: list[tuple[bytes, bytes]]) -> None:
        headers = [
            (b"content-type", self.content_type),
            (b"content-length", b"%d" % len(self.body)),
            *self.headers.items(),
            *extra,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@dataclass(slots=True)
class HttpRequest:
    """One request, its query and body read when a handler needs them."""

    scope: Scope
    receive: Receive
    started: float
    max_body: int
    max_id: int
    holder: str | None = None
    """Name of the key it came with."""
    body: bytes = b""
    """All of it, once ``arrive`` has read it."""
    parameter: str = ""
    """The decoded id of the path, where the route has one."""

    def query(self, model: type[Model]) -> Model:
        """The query as a model. Raises Problem 422."""
        raw: bytes = self.scope["query_string"]
        if not raw:
            found: Model = defaults(model)
            return found
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
        except ValueError as error:
            raise Problem(400, "the query is not UTF-8 in percent-encoding, or has too many fields") from error
        values = dict(pairs)
        if len(values) < len(pairs):
            raise Problem(422, "a parameter of the query is given twice")
        return _validated(model, values)

    def json(self, model: type[Model]) -> Model:
        """The body as a model. Raises Problem 415, 422."""
        kind = header(self.scope, b"content-type")
        # A page of another origin can send anything but this type without a preflight.
        if kind.partition(b";")[0].strip().lower() != JSON:
            raise Problem(415, "send the body with the header Content-Type: application/json")
        try:
            return model.model_validate_json(self.body)
        except ValidationError as error:
            raise Problem(422, validation_message(error)) from error

    async def arrive(self, take: Callable[[int], None]) -> None:
        """Read the body; ``take`` is told the size of every piece. Raises Problem 400, 413."""
        parts, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "the connection was closed before the body was complete")
            part = message.get("body", b"")
            size += len(part)
            if size > self.max_body:
                raise Problem(413, f"the body is larger than {self.max_body} bytes; send less at once", CLOSE)
            take(len(part))
            parts.append(part)
            if not message.get("more_body", False):
                self.body = b"".join(parts)
                return


def header(scope: Scope, wanted: bytes) -> bytes:
    """The value of a header, its name in lower case; empty where there is none."""
    found: bytes = next((value for name, value in scope["headers"] if name == wanted), b"")
    return found


def raw_path(scope: Scope) -> str:
    """The path as it was sent, still encoded, without a prefix the application is mounted under."""
    raw = scope.get("raw_path")
    path = raw.partition(b"?")[0].decode("latin-1") if raw else quote(scope["path"])
    return str(path).removeprefix(scope.get("root_path", "")) or "/"


def decoded(segment: str, max_length: int) -> str:
    """An id out of a path. Raises Problem 400, 422."""
    try:
        text = unquote_to_bytes(segment).decode("utf-8")
    except ValueError as error:
        raise Problem(400, "the id in the path is not UTF-8 in percent-encoding") from error
    if len(text) > max_length:
        raise Problem(422, f"the id has {len(text)} characters, more than {max_length}")
    return text


def validation_message(error: ValidationError) -> str:
    """The first thing that is wrong, in one line, without what was sent."""
    first, *others = error.errors(include_url=False, include_input=False, include_context=False)
    where = ".".join(printable(str(part)) for part in first["loc"])
    more = f" (and {len(others)} more)" if others else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}{more}" if where else f"{message}{more}"


def printable(text: str) -> str:
    """What was sent, on one line and no longer than a message bears."""
    shown = "".join(character if character.isprintable() else "?" for character in text[: LONGEST_NAME + 1])
    return shown if len(shown) <= LONGEST_NAME else f"{shown[:LONGEST_NAME]}..."


def encode(value: Any) -> bytes:
    """JSON in UTF-8; numbers that JSON can't write become null."""
    return to_json(value)


@cache
def defaults(model: type[Model]) -> Model:
    """The values of an empty query; models of queries are frozen."""
    return model()


def _validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise Problem(422, validation_message(error)) from error
