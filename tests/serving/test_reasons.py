"""Reasons in answers: what they cite is true, and a language model words them when it can."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.serving.http import response_models as schemas
from tests.serving_worlds import client, counted, prepared_world, publish_run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    publish_run(folder, prepared_world(folder), "als", settings={"embedding_dim": 8, "epochs": 3})
    return folder


LIKED = {"history": [{"item_id": item, "rating": 5.0} for item in (3, 8, 21, 34)], "explain": True, "n": 80}


def test_a_cited_item_that_is_taken_out_lowers_the_score(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as service:
        answer = service.post("/v1/recommendations", json=LIKED)
        schemas.Recommendations.model_validate_json(answer.content)
        explained = [item for item in answer.json()["items"] if item["reason"]["kind"] == "contribution"]
        assert len(explained) > 5
        for item in explained[:5]:
            cited = item["reason"]["because_of"][0]
            assert cited["item_id"] in (3, 8, 21, 34) and 0 < cited["share"] <= 1 and item["reason"]["text"]
            without = [event for event in LIKED["history"] if event["item_id"] != cited["item_id"]]  # type: ignore[attr-defined]
            lists = service.post("/v1/recommendations", json=LIKED | {"history": without}).json()["items"]
            after = next(other["score"] for other in lists if other["item_id"] == item["item_id"])
            assert after < item["score"]


def test_the_fallback_is_explained_by_popularity(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as service:
        items = service.get("/v1/recommendations/nobody", params={"explain": True}).json()["items"]
        assert {item["reason"]["kind"] for item in items} == {"popularity"}
        assert service.get("/v1/recommendations/nobody").json()["items"][0].get("reason") is None


def test_rows_that_fill_a_list_up_are_explained_by_popularity_though_genres_are_shared(tmp_path: Path) -> None:
    publish_run(tmp_path, prepared_world(tmp_path), "item_cf", settings={"neighbors": 3})
    with client(tmp_path) as service:
        items = service.post("/v1/recommendations", json=LIKED).json()["items"]
    filled = [item["reason"]["kind"] for item in items if item["source"] == "fallback:popularity"]
    assert len(filled) > 20 and set(filled) == {"popularity"}


class Endpoint:
    """A language model's address that gives the text it is set to, and counts."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.status, self.text = 200, "Because you like good films."
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint.calls.append(body | {"path": self.path, "key": self.headers["authorization"]})
                usage = {"prompt_tokens": 100, "completion_tokens": 10}
                said = {"choices": [{"message": {"content": endpoint.text}}], "usage": usage}
                answer = json.dumps(said).encode()
                self.send_response(endpoint.status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


def test_a_language_model_words_the_leading_reasons_once_and_is_counted(
    world: Path, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", "secret")
    narrator = {"url": endpoint.url, "model": "m", "items": 3, "key_variable": "MODEL_KEY", "prompt_price": 2.0}
    with client(world, state=str(tmp_path), narrator=narrator, cache={"mib": 0}) as service:
        for _ in range(2):
            items = service.post("/v1/recommendations", json=LIKED | {"n": 5}).json()["items"]
            assert [item["reason"]["by"] for item in items] == ["m"] * 3 + ["template"] * 2
            assert items[0]["reason"]["text"] == endpoint.text
        cached, cost = (
            counted(service, "recsys_narrations_total", outcome="cached"),
            counted(service, "recsys_narration_cost_total"),
        )
    assert len(endpoint.calls) == 3
    assert {(call["path"], call["key"], call["model"]) for call in endpoint.calls} == {
        ("/v1/chat/completions", "Bearer secret", "m")
    }
    assert cached == 3
    assert cost == pytest.approx(0.0006)  # 3 calls of 100 prompt tokens at 2 a million


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["error", "empty", "endless", "away", "late"])
def test_the_template_speaks_when_the_language_model_does_not(
    world: Path, tmp_path: Path, endpoint: Endpoint, trouble: str
) -> None:
    narrator = {"url": endpoint.url, "model": "m", "timeout_seconds": 0.3, "items": 2}
    match trouble:
        case "error":
            endpoint.status = 500
        case "empty":
            endpoint.text = " "
        case "endless":
            endpoint.text = "word " * 500
        case "away":
            endpoint.close()
        case "late":
            narrator["url"] = "http://192.0.2.1/v1"  # an address that never answers
    with client(world, state=str(tmp_path), narrator=narrator) as service:
        answer = service.post("/v1/recommendations", json=LIKED | {"n": 5})
        assert answer.status_code == 200 and answer.json()["took_ms"] < 2000
        assert {item["reason"]["by"] for item in answer.json()["items"]} == {"template"}
        assert all(item["reason"]["text"] for item in answer.json()["items"])
