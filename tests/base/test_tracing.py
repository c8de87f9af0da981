"""Traces: a span for each stage and each request, as the standard variables ask, and nothing that fails for them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.base import tracing
from recsys_ray.base.tracing import exporter_names, is_wanted, span
from tests.cluster.test_embed_job import poster_world
from tests.here import without_ray
from tests.serving_worlds import client, prepared_world, publish_run
from tests.worlds import World

ROOT = Path(__file__).parent.parent.parent
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """Traces into memory; the call gives what was sent."""
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "memory")
    monkeypatch.setattr(tracing, "exporter", lambda name: memory)
    return lambda: list(memory.get_finished_spans())


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "shop"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://here:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://here:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://here"}, False),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://here"}, False),
    ],
)
def test_the_environment_asks_for_them(variables: dict[str, str], wanted: bool) -> None:
    assert is_wanted(variables) == wanted


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ["otlp_proto_http"],
        ),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
    ],
)
def test_exporters_are_those_that_are_named(variables: dict[str, str], names: list[str]) -> None:
    assert exporter_names(variables) == names


def test_without_the_variables_nothing_is_imported() -> None:
    code = (
        "import sys\nfrom recsys_ray.base.tracing import span, tracing\n"
        "with tracing(print), span('run', {}) as opened:\n    assert opened is None\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={}, timeout=100)
    assert done.returncode == 0 and done.stdout == "", done.stderr


def test_a_run_is_a_span_with_its_stages_in_it(
    tmp_path: Path, spans: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", TRACEPARENT)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    world = World(tmp_path / "world")
    with without_ray():
        assert world.command("run").status == 0
    found = {one.name: one for one in spans()}
    assert set(found) == {
        "run",
        "prepare",
        "train",
        "popularity",
        "transitions",
        "evaluate",
        "refit",
        "recommend",
        "publish",
    }
    run = found["run"]
    assert run.parent.span_id == int(CALLER, 16)
    assert {one.context.trace_id for one in found.values()} == {int(TRACE, 16)}
    inside = {"publish": "recommend", "refit": "recommend", "popularity": "evaluate", "transitions": "evaluate"}
    for name, one in found.items():
        if name != "run":
            assert one.parent.span_id == found[inside.get(name, "run")].context.span_id
    assert found["prepare"].attributes == {
        "recsys_ray.name": "tiny", "recsys_ray.skipped": False, "recsys_ray.users": 300, "recsys_ray.items": 120,
        "recsys_ray.memory": found["prepare"].attributes["recsys_ray.memory"],
    }  # fmt: skip
    assert found["publish"].attributes["recsys_ray.run_id"] == world.latest().name
    resource = run.resource.attributes
    assert (resource["service.name"], resource["deployment.environment"]) == ("recsys_ray", "test")


def test_a_stage_that_is_asked_for_twice_is_one_span(tmp_path: Path, spans: Callable[[], list[Any]]) -> None:
    world = poster_world(tmp_path)
    with without_ray():
        done = world.command("run")
        assert done.status == 0, done.errors
    assert [one.name for one in spans()].count("embed") == 1


def test_what_fails_is_told_by_its_kind_alone(
    tmp_path: Path, spans: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "nightly")
    world = World(
        tmp_path / "world",
        recommend={"n": 1},
        runs={"gate": {"min_coverage": 1.0}},
        evaluation={"bootstrap": 0, "baselines": []},
    )
    with without_ray():
        assert world.command("run").status == 1
    failed = {one.name: one for one in spans() if one.status.status_code.name == "ERROR"}
    assert set(failed) == {"run", "recommend"}
    assert failed["run"].attributes["error.type"] == "RefusedRun"
    assert failed["run"].status.description is None and not failed["run"].events
    assert failed["run"].resource.attributes["service.name"] == "nightly"


def test_a_request_is_a_span_below_that_of_its_caller(tmp_path: Path, spans: Callable[[], list[Any]]) -> None:
    publish_run(tmp_path, prepared_world(tmp_path))
    calls = (
        ("GET", "/v1/recommendations/17?n=3", 200, "GET /v1/recommendations/{user_id}"),
        ("HEAD", "/docs", 200, "HEAD /docs"),
        ("GET", "/v1/recommendations/17?n=many", 422, "GET /v1/recommendations/{user_id}"),
        ("DELETE", "/v1/recommendations/17", 405, "DELETE /v1/recommendations/{user_id}"),
        ("GET", "/u17", 404, "GET"),
        ("BREW", "/u17", 404, "_OTHER"),
    )
    with client(tmp_path) as service:
        for method, path, status, _ in calls:
            assert service.request(method, path, headers={"traceparent": TRACEPARENT}).status_code == status
        service.get("/docs", headers={"traceparent": "nothing of the kind"})
    *found, alone = spans()
    assert [one.name for one in found] == [name for *_, name in calls]
    for one, (_, _, status, name) in zip(found, calls, strict=True):
        assert one.context.trace_id == int(TRACE, 16) and one.parent.span_id == int(CALLER, 16)
        assert one.kind.name == "SERVER" and one.attributes["http.response.status_code"] == status
        assert one.attributes["http.request.method"] == name.partition(" ")[0]
        assert one.status.status_code.name == "UNSET"  # what a caller did wrong is no error of the service
        assert one.attributes.get("http.route") == (name.partition(" ")[2] or None)
        assert "17" not in str(one.attributes) + one.name
    assert alone.parent is None


def test_a_request_that_the_service_could_not_answer_is_an_error(
    tmp_path: Path, spans: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_run(tmp_path, prepared_world(tmp_path))
    with client(tmp_path) as service:
        monkeypatch.setattr("recsys_ray.serving.http.app.decoded", lambda *given: 1 / 0)
        assert service.get("/v1/recommendations/17").status_code == 500
    [one] = spans()
    assert one.status.status_code.name == "ERROR" and one.attributes["error.type"] == "500"


class Collector:
    """Something that listens, and what was sent to it."""

    def __init__(self, status: int) -> None:
        bodies: list[tuple[str, bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *given: Any) -> None:
                return None

        self.bodies = bodies
        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collectors() -> Iterator[Callable[[int], Collector]]:
    made: list[Collector] = []

    def make(status: int) -> Collector:
        made.append(Collector(status))
        return made[-1]

    yield make
    for one in made:
        one.close()


def traced_lines() -> list[str]:
    """What is said around one span."""
    said: list[str] = []
    with tracing.tracing(said.append), span("run", {}):
        pass
    return said


def test_otlp_reaches_a_collector(collectors: Callable[[int], Collector], monkeypatch: pytest.MonkeyPatch) -> None:
    messages = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    collector = collectors(200)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    assert traced_lines() == []
    [(path, body)] = collector.bodies
    sent = messages.ExportTraceServiceRequest.FromString(body)
    assert path == "/v1/traces" and sent.resource_spans[0].scope_spans[0].spans[0].name == "run"


@pytest.mark.parametrize("status", [400, 503, None])
def test_a_collector_that_fails_is_one_line(
    status: int | None, collectors: Callable[[int], Collector], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.5)
    url = "http://user:secret@127.0.0.1:9" if status is None else collectors(status).url
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    started = time.monotonic()
    said = traced_lines()
    assert time.monotonic() - started < 5
    assert 1 <= len(said) <= 2 and all(line.startswith("telemetry: ") and "\n" not in line for line in said)
    assert "secret" not in str(said)
    assert capfd.readouterr() == ("", "")


def test_what_is_missing_is_said_and_the_run_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "world", evaluation={"bootstrap": 0, "baselines": []})
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")
    with without_ray():
        done = world.command("run")
        assert done.status == 0 and "no exporter 'pigeon' is installed" in done.errors
        monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
        done = world.command("run")
    assert done.status == 0 and 'pip install "recsys_ray[telemetry]"; no traces are sent' in done.errors


def test_a_provider_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.SimpleSpanProcessor(memory))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    for _ in range(2):  # it is not ours to close
        assert traced_lines() == []
    assert [one.name for one in memory.get_finished_spans()] == ["run", "run"]


def test_standard_output_is_for_results(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    assert traced_lines() == []
    out, err = capsys.readouterr()
    assert out == "" and '"name": "run"' in err
