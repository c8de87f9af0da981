"""A headless Chromium, driven over its debugging protocol; whoever asks for one is skipped where there is none."""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESKTOP, PHONE = (1366, 900), (390, 844)
LIGHT, DARK = "light", "dark"
SHOTS = os.environ.get("SCREENSHOTS")
"""A folder, for looking at the pages."""
LOOKS = [(DESKTOP, LIGHT), (PHONE, DARK), *([(DESKTOP, DARK), (PHONE, LIGHT)] if SHOTS else [])]
"""Every size and every scheme; all pairs of them when pictures are taken."""


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        """What its console complained of: exceptions, failed requests, what the content policy refused."""
        self.requested: list[str] = []
        """Addresses of all requests."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(json.dumps(message["params"])[:500])
        if message.get("method") == "Network.requestWillBeSent":
            self.requested.append(message["params"]["request"]["url"])

    def run(self, script: str) -> Any:
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str) -> Any:
        """The first true value of an expression; true for a node."""
        script = f"((found) => found instanceof Node || found)({script})"
        deadline = time.monotonic() + 15
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"never true: {script}; {self.errors}"
            time.sleep(0.05)
        return value

    def look(self, size: tuple[int, int], scheme: str = LIGHT) -> None:
        """What the reader's device is like."""
        width, height = size
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, address: str, ready: str = "true") -> None:
        """Go to a page and wait until an expression is true there."""
        self.send("Page.navigate", url="about:blank")
        self.errors.clear()
        self.requested.clear()
        self.send("Page.navigate", url=address)
        self.until(f"location.href !== 'about:blank' && document.readyState === 'complete' && Boolean({ready})")

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def text(self, selector: str) -> str:
        found: str = self.run(f"document.querySelector({json.dumps(selector)}).textContent")
        return found

    def screenshot(self, name: str) -> None:
        """The whole page into the folder SCREENSHOTS of the environment; nothing without one."""
        if SHOTS:
            time.sleep(0.4)
            shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
            Path(SHOTS, f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def fits(self) -> bool:
        """Whether nobody has to scroll sideways."""
        found: bool = self.run("document.documentElement.scrollWidth <= innerWidth")
        return found

    def violations(self) -> list[str]:
        """What axe-core finds against the page: rule, and the first element."""
        spec = importlib.util.find_spec("axe_playwright_python")
        if spec is None or spec.submodule_search_locations is None:
            pytest.skip("no axe-core here: install the extra test")
        script = Path(spec.submodule_search_locations[0], "axe.min.js").read_text()
        self.send("Runtime.evaluate", expression=script)
        found: list[str] = self.run(
            "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations.map("
            "(rule) => `${rule.id} (${rule.nodes.length}): ${rule.nodes[0].html.slice(0, 200)} "
            "${rule.nodes[0].failureSummary.slice(0, 300)}`))"
        )
        return found


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile is in this folder."""
    command = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if command is None:
        pytest.skip("no Chromium here")
    client = pytest.importorskip("websockets.sync.client")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    process = subprocess.Popen([command, *options, "about:blank"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        written = folder / "DevToolsActivePort"
        deadline = time.monotonic() + 30
        while not (written.exists() and len(written.read_text().splitlines()) == 2):
            assert time.monotonic() < deadline, "the browser did not start"
            time.sleep(0.05)
        port = written.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [entry for entry in json.loads(answer.read()) if entry["type"] == "page"]
        with client.connect(pages[0]["webSocketDebuggerUrl"], max_size=2**28) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(10)
