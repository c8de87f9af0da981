"""The pages of the service and what they load: the same bytes for every caller, and nothing from elsewhere."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
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
POLICY = (
    b"default-src 'self'; img-src 'self' data: https: http:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)


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
    headers = {b"cache-control": b"no-cache", b"content-security-policy": POLICY}
    return HttpResponse(file.read_bytes(), content_type=kind, headers=headers)
