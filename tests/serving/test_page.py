"""The page in a real browser, headless; skipped where there is none. What it calls is tested without one."""

from __future__ import annotations

import base64
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

from recsys_ray.serving import ServingSettings
from recsys_ray.serving.http.auth import new_key
from tests.serving_worlds import listening, prepared_world, publish_run

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESKTOP, PHONE = (1200, 900), (390, 844)


class Browser:
    """One page of a headless Chromium, driven over its debugging protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=20))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(message["params"])[:500])
            if message.get("id") == number:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found

    def run(self, script: str) -> Any:
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str) -> Any:
        """The first true value of an expression."""
        deadline = time.monotonic() + 10
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.05)
        return value

    def open(self, address: str, size: tuple[int, int]) -> None:
        width, height = size
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && document.querySelectorAll('#list .card').length > 0")

    def titles(self) -> list[str]:
        found: list[str] = self.run("[...document.querySelectorAll('#list h3')].map((node) => node.textContent)")
        return found

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
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
        with client.connect(pages[0]["webSocketDebuggerUrl"], max_size=2**26) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service with drawn posters, on a port of its own."""
    if not any(shutil.which(name) for name in BROWSERS):
        pytest.skip("no Chromium here")
    folder = tmp_path_factory.mktemp("world")
    publish_run(folder, prepared_world(folder, posters=True))
    with listening(ServingSettings(), folder) as found:
        yield f"{found}/"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path / "profile") as opened:
        yield opened


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_shows_people_ratings_search_and_where_answers_come_from(
    address: str, page: Browser, size: tuple[int, int]
) -> None:
    shots = os.environ.get("SCREENSHOTS")  # a folder, for looking at them

    def shot(name: str) -> None:
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the screen"
        if shots:
            time.sleep(0.3)
            page.screenshot(Path(shots) / f"{name}-{size[0]}.png")

    page.open(address, size)
    shot("people")
    assert "model item_cf · variant default · run " in page.run("document.getElementById('origin').textContent")
    page.until("[...document.images].slice(0, 3).every((image) => image.complete && image.naturalWidth > 0)")

    first = page.titles()
    page.click("#users li:nth-child(2) button")
    page.until(f"document.querySelector('#list h3').textContent !== {json.dumps(first[0])}")
    second = page.titles()
    page.click("#list .card:first-child .actions button")  # seen it
    page.until(f"document.querySelector('#list h3').textContent !== {json.dumps(second[0])}")
    assert second[0] not in page.titles()

    page.click("#list .card:first-child .actions button:last-child")
    page.until("document.getElementById('list-title').textContent.startsWith('Similar to')")

    page.click("nav [data-view=rate]")
    page.until("document.querySelectorAll('#rate-items .card').length === 15")
    page.until("document.getElementById('list-title').textContent === 'Popular now'")
    lists = [page.titles()]
    for place in range(1, 6):
        page.click(f"#rate-items .card:nth-child({place}) .stars button:nth-child(5)")
        page.until(f"document.getElementById('strength').textContent.startsWith('{place} rated')")
        page.until("!document.getElementById('list').classList.contains('busy')")
        lists.append(page.titles())
    shot("rate")
    assert all(before != after for before, after in itertools.pairwise(lists))
    page.click("#keep")
    page.until("document.getElementById('kept').textContent.startsWith('You are user new-')")

    page.click("nav [data-view=search]")
    title = lists[0][0]
    page.run(f"document.getElementById('search').value = {json.dumps(title.lower())}")
    page.run("document.getElementById('search-form').requestSubmit()")
    page.until(f"document.querySelector('#found h3')?.textContent === {json.dumps(title)}")
    shot("search")
    assert page.errors == []


def test_every_control_has_a_name_and_large_enough_a_place(address: str, page: Browser) -> None:
    page.open(address, PHONE)
    page.click("nav [data-view=rate]")
    page.until("document.querySelectorAll('#rate-items .card').length === 15")
    controls = "[...document.querySelectorAll('button, input, select')].filter((node) => node.offsetParent)"
    sizes = page.run(f"{controls}.map((node) => node.getBoundingClientRect()).map((box) => [box.width, box.height])")
    assert len(sizes) > 80 and min(min(size) for size in sizes) >= 24
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "searchbox", "combobox", "progressbar"}
    named = [node for node in tree if node.get("role", {}).get("value") in roles and not node["ignored"]]
    assert len(named) > 80 and all(node["name"]["value"] for node in named)


def test_a_failing_call_is_said_on_the_page(address: str, page: Browser) -> None:
    page.open(address, DESKTOP)
    page.run(
        "window.fetch = async () => new Response(JSON.stringify({error: 'too many requests at once'}), {status: 503})"
    )
    page.click("#users li:nth-child(2) button")
    assert page.until("!document.getElementById('problem').hidden && document.getElementById('problem').textContent")


def test_the_page_asks_for_a_key_where_one_is_needed(tmp_path: Path, page: Browser) -> None:
    publish_run(tmp_path, prepared_world(tmp_path))
    key, digest = new_key()
    settings = ServingSettings.model_validate({"keys": [{"name": "page", "sha256": digest}]})
    with listening(settings, tmp_path) as address:
        page.send("Page.navigate", url=address)
        page.until("document.getElementById('key-form') && !document.getElementById('key-form').hidden")
        page.run(f"document.getElementById('key').value = {json.dumps(key)}")
        page.run("document.getElementById('key-form').requestSubmit()")
        page.until("document.querySelectorAll('#list .card').length > 0")
        assert page.run("document.getElementById('key-form').hidden && document.getElementById('problem').hidden")
