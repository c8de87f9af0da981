"""A language model's address that gives the text it is set to, and counts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INPUT_TOKENS, OUTPUT_TOKENS = 100, 10


class Endpoint:
    """``calls`` holds the bodies that it was sent."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.status, self.text, self.seconds = 200, "Because you like good films.", 0.0
        self.usage: Any = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint.calls.append(body | {"path": self.path, "key": self.headers["authorization"]})
                time.sleep(endpoint.seconds)
                said = {"choices": [{"message": {"content": endpoint.text}}], "usage": endpoint.usage}
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

    @property
    def facts(self) -> list[dict[str, Any]]:
        """What each call was told."""
        return [json.loads(call["messages"][1]["content"]) for call in self.calls]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def listening_model() -> Iterator[Endpoint]:
    made = Endpoint()
    try:
        yield made
    finally:
        made.close()
