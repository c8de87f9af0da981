"""Pages of the reference that list what others read: calls of the service, files, metrics and time series."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from prometheus_client import CollectorRegistry

from recsys_ray.base import manifest, schema
from recsys_ray.evaluation.legend import FORMULAS, LEGEND
from recsys_ray.runs.metrics_file import run_registry
from recsys_ray.serving.http.openapi import description
from recsys_ray.serving.http.routes import ROUTES
from recsys_ray.serving.prometheus import Metrics

Rows = Iterable[Iterable[str]]
TEXT = pa.string()
TABLES: dict[str, tuple[str, Any, pa.Schema]] = {
    "Published recommendations": (
        "`recommendations/<run_id>/part-*.parquet`, with `recommend.layout: long`.",
        schema.recommendations,
        schema.recommendations(TEXT, TEXT, reasons=True),
    ),
    "Published recommendations, nested": (
        "The same with `recommend.layout: nested`.",
        schema.nested_recommendations,
        schema.nested_recommendations(TEXT, TEXT, reasons=True),
    ),
    "Prepared users": (
        "`prepared/<fingerprint>/users/part-*.parquet`.",
        schema.prepared_users,
        schema.prepared_users(TEXT),
    ),
    "Items": (
        "`items.parquet` of prepared data and of a model; further columns of the catalogue follow.",
        schema.items,
        schema.items(TEXT),
    ),
    "Users of a model": ("`models/<model>/users/part-*.parquet`.", schema.users, schema.users(TEXT)),
    "Item embeddings": (
        "`embeddings/<fingerprint>/part-*.parquet`.",
        schema.embeddings,
        schema.embeddings(TEXT, {"text": 384, "image": 384, "fused": 384}),
    ),
    "Events": (
        "What a source gives, and the files of feedback that the service writes for the next run.",
        schema.interactions,
        schema.interactions(TEXT, TEXT),
    ),
    "Exposures": ("What `recsys-ray ab` reads.", schema.exposures, schema.exposures(TEXT, TEXT)),
    "Clicks": ("Beside the exposures.", schema.clicks, schema.clicks(TEXT, TEXT)),
}


def http_page() -> str:
    """Every call of the service: who may make it, what it takes."""
    found = description(ROUTES)
    lines = ["# HTTP", "", "The description for machines is at `/openapi.json`, a page to try calls on at `/docs`.", ""]
    for route in ROUTES:
        operation = found["paths"][route.path][route.method.lower()]
        role = "open to everybody" if route.role is None else f"key with the role `{route.role}`, where keys are set"
        lines += [f"## `{route.method} {route.path}`", "", f"{route.summary}. *{role}.*", ""]
        asked = [one for one in operation["parameters"] if one["in"] == "query"]
        if asked:
            rows = [(f"`{one['name']}`", _kind(one["schema"]), one.get("description", "")) for one in asked]
            lines += [*_table(("query", "type", "meaning"), rows), ""]
        if route.body is not None:
            fields = route.body.model_json_schema().get("properties", {})
            rows = [(f"`{name}`", _kind(one), one.get("description", "")) for name, one in fields.items()]
            lines += [*_table(("body", "type", "meaning"), rows), ""]
        if route.response is not None:
            names = ", ".join(f"`{name}`" for name in route.response.model_fields)
            lines += [f"Answer: {names}.", ""]
    return "\n".join(lines)


def tables_page() -> str:
    """The columns of every table that is written, and the keys of the manifests beside them."""
    lines = ["# Tables and manifests", "", "Ids are `string` or `int64`, as the data has them.", ""]
    for title, (place, made_by, columns) in TABLES.items():
        text = " ".join(inspect.getdoc(made_by).split()) if inspect.getdoc(made_by) else ""
        lines += [f"## {title}", "", place, "", text, ""]
        rows = [(f"`{field.name}`", f"`{_id_type(field)}`") for field in columns]
        lines += [*_table(("column", "type"), rows), ""]
    lines += ["## Manifests", "", inspect.getdoc(manifest) or "", ""]
    return "\n".join(lines)


def metrics_page() -> str:
    """Every metric of an evaluation: meaning, formula, direction."""
    rows = [(f"`{name}`", text, f"`{FORMULAS[name]}`", way) for name, (text, way) in LEGEND.items()]
    lines = [
        "# Metrics",
        "",
        "Of one user at k; the mean is over users with a held-out item. A hit is a held-out item ",
    ]
    lines[-1] += "in the first k of the list. The whole catalogue is ranked; what a user has seen is left out."
    return "\n".join([*lines, "", *_table(("metric", "meaning", "formula", "direction"), rows), ""])


def prometheus_page() -> str:
    """Every time series: those of the service, and those of a run's text file."""
    lines = ["# Prometheus", "", "## Service", "", "At `GET /metrics`; every series also has the label `replica`.", ""]
    lines += _series(Metrics().registry)
    lines += ["", "## Runs", "", "In `recommendations/<run_id>/_metrics.prom`.", "", *_series(run_registry("", {}, 0))]
    return "\n".join([*lines, ""])


def _series(registry: CollectorRegistry) -> list[str]:
    found = [collector for collector in registry._collector_to_names if hasattr(collector, "_labelnames")]
    rows = []
    for collector in found:
        kind = collector._type
        name = collector._name + ("_total" if kind == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in collector._labelnames)
        rows.append((f"`{name}`", kind, labels, collector._documentation))
    return _table(("name", "kind", "labels", "meaning"), rows)


def _kind(found: dict[str, Any]) -> str:
    if "anyOf" in found:
        return " or ".join(dict.fromkeys(_kind(one) for one in found["anyOf"] if one.get("type") != "null"))
    if "$ref" in found:
        return found["$ref"].rpartition("/")[2]
    if "enum" in found:
        return ", ".join(f"`{value}`" for value in found["enum"])
    if found.get("type") == "array":
        return f"list of {_kind(found.get('items', {}))}"
    return str(found.get("type", "any"))


def _id_type(field: pa.Field) -> str:
    if field.name in ("user_id", "item_id"):
        return "id"
    ids = field.name in ("item_ids",) or (field.name == "items" and pa.types.is_string(field.type.value_type))
    return "list<id>" if ids else str(field.type).replace("element: ", "").replace("item: ", "")


def _table(head: tuple[str, ...], rows: Rows) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(cell(one) for one in row)} |" for row in rows]


def cell(value: str) -> str:
    """As it can stand in a table; code stays as it is."""
    parts = " ".join(str(value).split()).replace("|", "\\|").split("`")
    return "`".join(part if place % 2 else part.replace("<", "&lt;") for place, part in enumerate(parts))
