"""Spans in OpenTelemetry of what a command or the service does, where the standard variables ask for them.

    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_TRACES_EXPORTER   any of these begins it
    OTEL_SDK_DISABLED=true, OTEL_TRACES_EXPORTER=none                                       end it
    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_*, ...       as the SDK reads them
    TRACEPARENT, TRACESTATE                                                                 what a command belongs to

Without them nothing of OpenTelemetry is imported (extra ``telemetry``). A span says what was done, how long it took and
whether it failed: no message, no id of a user or an item. Spans are sent behind what they tell of, and whatever goes
wrong with that is said once.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.optional import require
from recsys_ray.base.secrets import mask
from recsys_ray.base.storage_errors import first_line

BEGIN = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
EXPORTERS = "opentelemetry_traces_exporter"
"""The group of entry points in which exporters are found by name."""
NAME = "recsys_ray"
FLUSH_SECONDS = 5
"""A command waits no longer for its last spans to be taken."""

Say = Callable[[str], None]
Attributes = Mapping[str, str | int | float | bool | None]
"""By name; None is left out."""


def is_wanted(variables: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return any(variables.get(name, "").strip() for name in BEGIN) and exporter_names(variables) != []


def exporter_names(variables: Mapping[str, str]) -> list[str]:
    """Entry points of the exporters that are asked for; OTLP goes over HTTP where it is not told otherwise."""
    protocols = (variables.get(f"OTEL_EXPORTER_OTLP_{of}PROTOCOL", "").strip() for of in ("TRACES_", ""))
    over = "grpc" if next(filter(None, protocols), "") == "grpc" else "http"
    asked = [name.strip() for name in (variables.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp").split(",")]
    return [f"otlp_proto_{over}" if name == "otlp" else name for name in asked if name and name != "none"]


class Traces:
    """Where the spans of one process go."""

    def __init__(self, provider: Any, say: Say, *, is_ours: bool) -> None:
        self._provider, self._say, self._is_ours = provider, say, is_ours
        self._tracer = provider.get_tracer(NAME)

    @contextmanager
    def span(self, name: str, carrier: Mapping[str, str] | None = None, *, server: bool = False) -> Iterator[Span]:
        """What happens inside; below the span that is open, or what the carrier says in W3C's headers."""
        from opentelemetry import propagate, trace

        parent = None if carrier is None else propagate.extract(carrier)
        kind = trace.SpanKind.SERVER if server else trace.SpanKind.INTERNAL
        opened = self._tracer.start_as_current_span(
            name, parent, kind, record_exception=False, set_status_on_exception=False
        )
        with opened as found:
            span = Span(found)
            try:
                yield span
            except BaseException as error:
                span.failed(type(error).__name__)
                raise

    def close(self) -> None:
        """Send what has not been sent, in the time there is."""
        if self._is_ours:  # an exporter may take its time, and heeds no limit
            last = threading.Thread(target=self._provider.shutdown, daemon=True)
            last.start()
            last.join(FLUSH_SECONDS)
            if last.is_alive():
                self._say(f"telemetry: the last traces were not taken within {FLUSH_SECONDS} s")


class Span:
    """A span that is open."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def failed(self, kind: str) -> None:
        """What is told of an error is its kind: messages name rows and ids."""
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)


def open_traces(say: Say, variables: Mapping[str, str] = os.environ) -> Traces | None:
    """Where spans go, as the environment says; None where it asks for none. Nothing fails for want of it: what is
    missing is said.

    A provider that the process has already, of ``opentelemetry-instrument`` or a program that calls us, is used.
    """
    if not is_wanted(variables):
        return None
    try:
        trace = require("opentelemetry.trace", extra="telemetry", what="OTEL_TRACES_EXPORTER")
        sdk = require("opentelemetry.sdk.trace", extra="telemetry", what="OTEL_TRACES_EXPORTER")
        if isinstance(there := trace.get_tracer_provider(), sdk.TracerProvider):
            return Traces(there, say, is_ours=False)
        return Traces(_provider(sdk, variables, say), say, is_ours=True)
    except ConfigError as error:
        say(f"telemetry: {error}; no traces are sent")
    except Exception as error:  # of a sampler, an address, a certificate: each exporter has its own
        say(f"telemetry: {mask(first_line(error))}; no traces are sent")
    return None


def _provider(sdk: Any, variables: Mapping[str, str], say: Say) -> Any:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: NAME}))
    provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in exporter_names(variables):
        provider.add_span_processor(BatchSpanProcessor(exporter(name)))
    log = logging.getLogger("opentelemetry")
    log.handlers, log.propagate = [_Once(say)], False
    return provider


def exporter(name: str) -> Any:
    """The exporter with this name.

    Raises:
        ConfigError: no package that is installed has it.
    """
    from importlib.metadata import entry_points

    found = next(iter(entry_points(group=EXPORTERS, name=name)), None)
    if found is None:
        known = ", ".join(sorted({one.name for one in entry_points(group=EXPORTERS)}))
        raise ConfigError(f"OTEL_TRACES_EXPORTER: no exporter {name!r} is installed; there are {known}")
    made: Callable[..., Any] = found.load()
    return made(out=sys.stderr) if name == "console" else made()  # standard output is for results


class _Once(logging.Handler):
    """The first of what OpenTelemetry complains about, as a line of ours."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.WARNING)
        self._say, self._told = say, False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            said = record.getMessage().splitlines() or [record.name]
            self._say(f"telemetry: {mask(said[0])}; the work goes on, and this is said once")


CURRENT: ContextVar[Traces | None] = ContextVar("traces", default=None)


@contextmanager
def tracing(say: Say) -> Iterator[None]:
    """``span`` makes spans inside, where they are wanted."""
    traces = open_traces(say)
    before = CURRENT.set(traces)
    try:
        yield
    finally:
        CURRENT.reset(before)
        if traces is not None:
            traces.close()


@contextmanager
def span(name: str, attributes: Attributes) -> Iterator[Span | None]:
    """What happens inside as a span, where traces are wanted."""
    traces = CURRENT.get()
    if traces is None:
        yield None
        return
    with traces.span(name, _outer()) as opened:
        opened.note(attributes)
        yield opened


def _outer() -> Mapping[str, str] | None:
    """What the whole command belongs to, for a span that none is above."""
    from opentelemetry import trace

    if trace.get_current_span().get_span_context().is_valid:
        return None
    names = ("TRACEPARENT", "TRACESTATE")
    return {name.lower(): os.environ[name] for name in names if os.environ.get(name)}
