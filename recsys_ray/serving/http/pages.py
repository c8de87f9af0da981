"""The pages of the service and what they load: the same bytes for every caller, and nothing from elsewhere."""

from __future__ import annotations

import gzip
from collections.abc import Collection, Mapping
from importlib import resources
from importlib.resources.abc import Traversable

from recsys_ray.serving.http.messages import HttpResponse

PAGES = {"/": "index.html", "/ops": "ops.html", "/docs": "docs.html"}
KINDS = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
}
ASSETS = "/page/"
CONTENT_POLICY = b"content-security-policy"
MOST_ORIGINS = 10
"""Of posters, that are named one by one."""


def policy(origins: Collection[str]) -> bytes:
    """What a page may load: its own, and images from these origins (https://host) where posters are on the web."""
    named = " ".join(sorted(origins)) if len(origins) <= MOST_ORIGINS else "https: http:"
    images = f"'self' data: {named}".rstrip()
    return (
        f"default-src 'self'; img-src {images}; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    ).encode()


def pages() -> dict[str, HttpResponse]:
    """Every page and every file that one loads, by path."""
    folder = resources.files("recsys_ray.serving") / "page"
    found = {path: _response(folder / name) for path, name in PAGES.items()}
    for place, inside in ((folder, ""), (folder / "swagger", "swagger/")):
        for file in place.iterdir():
            if file.name.endswith((".js", ".css")):
                found[f"{ASSETS}{inside}{file.name}"] = _response(file)
    return found


def zipped(responses: Mapping[str, HttpResponse]) -> dict[str, HttpResponse]:
    """The same responses, smaller, for callers that accept gzip."""
    vary = {b"content-encoding": b"gzip", b"vary": b"accept-encoding"}
    return {
        path: HttpResponse(
            gzip.compress(one.body, mtime=0), content_type=one.content_type, headers=dict(one.headers) | vary
        )
        for path, one in responses.items()
    }


def _response(file: Traversable) -> HttpResponse:
    kind = KINDS[f".{file.name.rpartition('.')[2]}"]
    headers = {b"cache-control": b"no-cache", CONTENT_POLICY: policy(())}
    return HttpResponse(file.read_bytes(), content_type=kind, headers=headers)
