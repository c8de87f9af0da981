"""The OpenAPI description of the service, written from the list of its routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from recsys_ray import __version__
from recsys_ray.serving.http import response_models
from recsys_ray.serving.http.routes import Route

REF = "#/components/schemas/{model}"
PROBLEMS = {
    "400": "The request is not well-formed",
    "401": "No valid API key",
    "403": "The key may not do this",
    "404": "Nothing there",
    "409": "The run can't be served",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "421": "The service is not reached by the name in the header Host",
    "415": "The body is not declared as JSON",
    "422": "A value is not possible",
    "503": "Overloaded, or not ready: try again after Retry-After seconds",
}
EXAMPLE_IDS = {"user_id": "42", "item_id": "1"}
TEXT = {"/metrics": "text/plain"}
IMAGE = {"/v1/items/{item_id}/poster": "image/*"}
EITHER = {"/v1/recommendations": ("Recommendations", "ManyRecommendations")}


def description(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document, JSON-ready."""
    models = {model for route in routes for model in (route.body, route.response) if model is not None}
    models |= {response_models.Error, response_models.Recommendations, response_models.ManyRecommendations}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "recsys_ray",
            "version": __version__,
            "description": "Recommendations of the published run, for known and for new users. Ids in paths are "
            "percent-encoded whole, slashes included.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    problems: dict[str, Any] = {
        status: {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": _ref(response_models.Error)}}},
        }
        for status, text in PROBLEMS.items()
        if status != "409" or route.role == "admin"
    }
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *_query_parameters(route.query)],
        "responses": {"200": {"description": "The answer", "content": _content(route)}, **problems},
        "security": [] if route.role is None else [{}, {"key": []}, {"bearer": []}],
    }
    if route.role == "admin":
        operation["security"] = [{"key": []}, {"bearer": []}]
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _ref(route.body)}}},
        }
    return operation


def _content(route: Route) -> dict[str, Any]:
    if route.path in TEXT:
        return {TEXT[route.path]: {"schema": {"type": "string"}}}
    if route.path in IMAGE:
        return {IMAGE[route.path]: {}}
    if route.response is None:
        return {"application/json": {"schema": {"anyOf": [{"$ref": REF.format(model=m)} for m in EITHER[route.path]]}}}
    return {"application/json": {"schema": {"$ref": _ref(route.response)}}}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
            "example": example,
            "description": "Any text, percent-encoded whole",
        }
        for name, example in EXAMPLE_IDS.items()
        if "{" + name + "}" in route.path
    ]


def _query_parameters(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    properties = {} if model is None else model.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.get("description", ""),
            "schema": _without_null({key: value for key, value in schema.items() if key != "description"}),
        }
        for name, schema in properties.items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """An optional value: in a query it is left out, never null."""
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    if schema.get("default", 0) is None:
        schema.pop("default")
    return schema | (kinds[0] if kinds else {})


def _ref(model: type[BaseModel]) -> str:
    return REF.format(model=model.__name__)
