"""The pages of the service in a real browser, headless; skipped where there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.serving import ServingSettings
from recsys_ray.serving.http.auth import new_key
from tests.browser import DESKTOP, LOOKS, PHONE, Browser, browser
from tests.serving_worlds import listening, prepared_world, publish_run, two_runs

pytestmark = pytest.mark.browser

NAMES = "[...document.querySelectorAll('#list h3')].map((node) => node.textContent).join()"
LIST, ARRIVALS = "document.querySelector('#list .card')", "document.querySelector('#arrivals .card')"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service with drawn posters, on a port of its own."""
    folder = tmp_path_factory.mktemp("world")
    publish_run(folder, prepared_world(folder, posters=True))
    with listening(ServingSettings(), folder) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def titles(page: Browser, place: str = "#list") -> list[str]:
    found: list[str] = page.run(f"[...document.querySelectorAll('{place} h3')].map((node) => node.textContent)")
    return found


def changed(page: Browser, before: list[str]) -> list[str]:
    page.until(f"document.querySelector('#list h3')?.textContent !== {json.dumps(before[0])}")
    page.until("!document.getElementById('lists').classList.contains('busy')")
    return titles(page)


VIEWS = {
    "people": ("/", ARRIVALS),
    "beside": ("/?user=1&beside=popular&diversity=0.5", "document.querySelector('#other .card')"),
    "item": ("/?item=1&user=2", "document.querySelector('#similar .card')"),
    "rate": ("/?view=rate", "document.querySelector('#rated-list .card')"),
    "search": ("/?view=search&q=", "document.querySelector('#found .card')"),
    "docs": ("/docs", "document.querySelectorAll('.opblock').length > 15"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_accessible_fits_the_screen_and_asks_nobody_else(address: str, page: Browser, view: str) -> None:
    place, ready = VIEWS[view]
    for size, scheme in LOOKS:
        page.look(size, scheme)
        page.open(address + place, ready)
        page.screenshot(f"{view}-{size[0]}-{scheme}")
        assert page.fits(), f"{view} is wider than {size[0]}"
        assert page.violations() == []
        assert page.errors == []
        assert [url for url in page.requested if not url.startswith((address, "data:", "about:"))] == []


def test_what_a_user_had_stands_beside_the_list_and_seen_and_hidden_leave_it(address: str, page: Browser) -> None:
    page.look(DESKTOP)
    page.open(address, ARRIVALS)
    assert "model item_cf · variant default · run " in page.text("#origin")
    page.until("[...document.querySelectorAll('#list img')].slice(0, 3).every((image) => image.naturalWidth > 0)")
    assert titles(page, "#had") and not set(titles(page, "#had")) & set(titles(page))
    assert "Because you liked" in page.text("#lists")
    for name in ("Seen it", "Not for me"):
        before, had = titles(page), page.text("#had-note")
        page.click(f"#list .card:first-child button[aria-label^='{name}']")
        assert before[0] not in changed(page, before)
        assert page.text("#had-note") == had  # neither says that the user liked it
    assert page.errors == []


def test_the_address_is_the_state(address: str, page: Browser) -> None:
    page.look(DESKTOP)
    page.open(address, ARRIVALS)
    page.click("#users li:nth-child(2) button")
    page.until("location.search.includes('user=')")
    page.run("document.getElementById('genre').selectedIndex = 1")
    page.run("document.getElementById('genre').dispatchEvent(new Event('change'))")
    page.until("location.search.includes('genre=')")
    page.until("!document.getElementById('lists').classList.contains('busy')")
    here, shown = page.run("location.href"), titles(page)
    page.open(here, LIST)
    assert titles(page) == shown
    page.click("#list .card:first-child a")
    page.until("document.querySelector('#item h2')")
    assert page.text("#item h2") == shown[0] and "Why user" in page.text("#item")
    page.run("history.back()")
    page.until("!document.querySelector('section[data-view=people]').hidden")
    assert page.run("location.href") == here


def test_half_stars_make_a_list(address: str, page: Browser) -> None:
    page.look(DESKTOP)
    page.open(f"{address}/?view=rate", "document.querySelectorAll('#rate-items .card').length === 15")
    page.until(LIST)
    popular = page.run(NAMES)
    for place in range(1, 6):
        slider = f"document.querySelector('#rate-items .card:nth-child({place}) input')"
        page.run(f"{slider}.value = 4.5; {slider}.dispatchEvent(new Event('input', {{bubbles: true}}))")
        assert page.run(f"{slider}.getAttribute('aria-valuetext')") == "4.5 of 5 stars"
        page.run(f"{slider}.dispatchEvent(new Event('change'))")
        page.until(f"document.getElementById('strength').textContent.startsWith('{place} rated')")
    page.until("document.querySelector('#rated-list h2').textContent === 'For you, so far'")
    page.until(f"{LIST} && {NAMES} !== {json.dumps(popular)}")
    page.click("#keep")
    page.until("document.getElementById('kept').textContent.startsWith('You are user new-')")
    scale = "{lowest: 0.5, highest: 5}"
    script = f"import('/page/cards.js').then((cards) => [0.5, 3, 5].map((n) => cards.rating(n, {scale})))"
    assert page.run(script) == [0.5, 3, 5]


def test_every_control_has_a_name_and_large_enough_a_place(address: str, page: Browser) -> None:
    page.look(PHONE)
    page.open(f"{address}/?view=rate", "document.querySelectorAll('#rated-list .card').length > 5")
    controls = "[...document.querySelectorAll('button, input, select')].filter((node) => node.offsetParent)"
    sizes = page.run(f"{controls}.map((node) => node.getBoundingClientRect()).map((box) => [box.width, box.height])")
    assert len(sizes) > 20 and min(min(size) for size in sizes) >= 24
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "searchbox", "combobox", "progressbar", "slider", "link"}
    named = [node for node in tree if node.get("role", {}).get("value") in roles and not node["ignored"]]
    assert len(named) > 40 and all(node["name"]["value"] for node in named)


def test_a_failing_call_is_said_on_the_page(address: str, page: Browser) -> None:
    page.look(DESKTOP)
    page.open(address, ARRIVALS)
    page.run(
        "window.fetch = async () => new Response(JSON.stringify({error: 'too many requests at once'}), {status: 503})"
    )
    page.click("#users li:nth-child(2) button")
    assert page.until("!document.getElementById('problem').hidden && document.getElementById('problem').textContent")


def with_key(folder: Path, role: str, **settings: Any) -> tuple[str, ServingSettings]:
    key, digest = new_key()
    keys = [{"name": "page", "sha256": digest, "role": role}]
    return key, ServingSettings.model_validate({"keys": keys} | settings)


def give(page: Browser, key: str) -> None:
    page.until("document.getElementById('key-form') && !document.getElementById('key-form').hidden")
    page.run(f"document.getElementById('key').value = {json.dumps(key)}")
    page.run("document.getElementById('key-form').requestSubmit()")


def test_the_page_asks_for_a_key_where_one_is_needed(tmp_path: Path, page: Browser) -> None:
    publish_run(tmp_path, prepared_world(tmp_path))
    key, settings = with_key(tmp_path, "read")
    with listening(settings, tmp_path) as address:
        page.open(address)
        give(page, key)
        page.until(f"Boolean({LIST})")
        assert page.run("document.getElementById('key-form').hidden && document.getElementById('problem').hidden")


def test_the_operator_sees_runs_variants_and_load_live(tmp_path: Path, page: Browser) -> None:
    key, settings = with_key(tmp_path, "admin", variants=[{"name": "one"}, {"name": "two"}])
    with listening(settings, two_runs(tmp_path)) as address:
        page.open(f"{address}/ops")
        give(page, key)
        page.until("Boolean(document.querySelector('#chart svg'))")
        assert page.run("document.querySelectorAll('#runs tbody tr').length") == 2
        assert "LATEST" in page.text("#runs") and "no exposures" in page.text("#effect")
        counts = [page.text("#tiles li:nth-child(2) b")]
        page.until(f"document.querySelector('#tiles li:nth-child(2) b').textContent !== {json.dumps(counts[0])}")
        for size, scheme in LOOKS:
            page.look(size, scheme)
            page.open(f"{address}/ops", "document.querySelector('#chart svg')")
            page.screenshot(f"ops-{size[0]}-{scheme}")
            assert page.fits() and page.violations() == [] and page.errors == []
