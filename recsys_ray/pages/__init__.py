"""Pages for people: one HTML file each, that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsys_ray.base.optional import require


def check_libraries(what: str, *more: str) -> None:
    """Say what a page needs before the work for it begins.

    Raises:
        ConfigError: a library of the extra ``report`` is missing; ``what`` is the command that needs it.
    """
    for name in ("jinja2", "matplotlib", *more):
        require(name, extra="report", what=what)


def render(package: str, template: str, what: str, **values: Any) -> str:
    """A template of a package, which may extend ``page.html.jinja`` of this one. What comes from data is escaped.

    Raises:
        ConfigError: a library of the extra ``report`` is missing; ``what`` is the command that needs it.
    """
    jinja2 = require("jinja2", extra="report", what=what)
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("recsys_ray.pages")])
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    page: str = environment.get_template(template).render(**values)
    return page


def plain(value: Any) -> str:
    """A JSON-ready value as text."""
    match value:
        case Mapping():
            return "; ".join(f"{name}: {plain(inner)}" for name, inner in value.items())
        case list() | tuple():
            return ", ".join(
                f"({plain(inner)})" if isinstance(inner, list | tuple) else plain(inner) for inner in value
            )
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case None:
            return "none"
    return str(value)
