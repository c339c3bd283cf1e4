"""The OpenAPI document: what each route declares, and the problems it can answer with.

The problems follow from the operation itself: whether it needs a caller, names a thing, changes
one or takes a body. A route declares any other problem with `responses={404: {}}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from registry.api.problems import MEDIA_TYPE, STATUSES
from registry.errors import FAMILIES, BundleRejected, RegistryError

Operation = dict[str, Any]
READING = ("get", "head")
MODELS = "#/components/schemas/"
NO_PROBLEM = {416}
"""Statuses that are answered without a problem document: the headers say everything."""
REPLACED = ("HTTPValidationError", "ValidationError")
"""Schemas of FastAPI's own refusals, which problem documents replace."""

PROBLEM = {
    "type": "object",
    "description": "Why a request was refused, and what to do (RFC 9457).",
    "required": [
        "type",
        "title",
        "status",
        "detail",
        "fix",
        "family",
        "kind",
        "instance",
        "request_id",
        "facts",
    ],
    "properties": {
        "type": {"type": "string", "pattern": "^/problems/[a-z0-9-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "enum": sorted(set(STATUSES.values()))},
        "detail": {"type": "string", "description": "What happened, and why."},
        "fix": {"type": "string", "description": "What to do about it."},
        "family": {"type": "string", "enum": list(STATUSES)},
        "kind": {"type": "string", "pattern": "^[a-z0-9-]+$"},
        "instance": {"type": "string", "description": "The path of the request."},
        "request_id": {"type": "string"},
        "facts": {"type": "object", "description": "Details for programs."},
        "defects": {
            "type": "array",
            "description": "Every defect of a refused bundle.",
            "items": {
                "type": "object",
                "required": ["file", "where", "rule", "detail", "fix"],
                "properties": {
                    name: {"type": "string"} for name in ("file", "where", "rule", "detail", "fix")
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
STORABLE = {"type": "string", "pattern": r"^[^\x00]*$"}
JSON = {
    "description": "Any JSON that can be stored: no NUL characters, no numbers beyond 2**53 - 1.",
    "anyOf": [
        {"type": "null"},
        {"type": "boolean"},
        {"type": "integer", "minimum": 1 - 2**53, "maximum": 2**53 - 1},
        {"type": "number", "minimum": 1 - 2**53, "maximum": 2**53 - 1},
        STORABLE,
        {"type": "array", "items": {"$ref": f"{MODELS}Json"}},
        {
            "type": "object",
            "propertyNames": STORABLE,
            "additionalProperties": {"$ref": f"{MODELS}Json"},
        },
    ],
}


def install(app: FastAPI) -> None:
    """Serve the document at the app's `openapi_url`."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI documents it


def describe(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with every problem each operation can answer with."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    models = document["components"]["schemas"]
    for name in REPLACED:
        models.pop(name, None)
    models |= {"Problem": PROBLEM, "Json": JSON}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _with_problems(operation, method, path)
            for parameter in operation.get("parameters", []):
                _not_null(parameter)
            for schema in _inputs(operation, models):
                _storable(schema)
    return document


def _statuses(operation: Operation, method: str, path: str) -> Iterator[int]:
    """The status of every problem that an operation of this form can answer with."""
    takes = bool(operation.get("parameters") or "requestBody" in operation)
    yield from (STATUSES["unavailable"], STATUSES["fault"])
    if operation.get("security"):
        yield from (STATUSES["unauthenticated"], STATUSES["forbidden"])
    if takes or "{" in path:
        yield from (STATUSES["not-found"], STATUSES["invalid"])
    if method not in READING:
        yield from (STATUSES["conflict"], STATUSES["too-large"], STATUSES["invalid"])


def _with_problems(operation: Operation, method: str, path: str) -> None:
    responses = operation["responses"]
    declared = {int(status) for status in responses if int(status) >= 400}
    for status in declared.union(_statuses(operation, method, path)) - NO_PROBLEM:
        entry: dict[str, Any] = {"description": _meaning(status)}
        if method != "head":
            entry["content"] = {MEDIA_TYPE: {"schema": {"$ref": f"{MODELS}Problem"}}}
        if status == STATUSES["unavailable"]:
            entry["headers"] = {
                "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}
            }
        responses[str(status)] = entry
    if method == "head":
        for entry in responses.values():
            entry.pop("content", None)
    operation["responses"] = dict(sorted(responses.items()))


def _meaning(status: int) -> str:
    classes: list[type[RegistryError]] = [*FAMILIES.values(), BundleRejected]
    return " ".join(
        (cls.__doc__ or "").partition("\n")[0] for cls in classes if STATUSES[cls.family] == status
    )


def _not_null(parameter: dict[str, Any]) -> None:
    """Remove null from an optional parameter: a path or a query cannot say null."""
    schema = parameter["schema"]
    types = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    if len(types) == 1:
        del schema["anyOf"]
        parameter["schema"] = {**schema, **types[0]}


def _inputs(operation: Operation, models: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The models of a request's body, with the models nested in them."""
    seen: set[str] = set()
    waiting = list(_references(operation.get("requestBody", {})))
    while waiting:
        name = waiting.pop()
        if name not in seen and name != "Json":
            seen.add(name)
            yield models[name]
            waiting += _references(models[name])


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].removeprefix(MODELS)
        for inner in schema.values():
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)


def _storable(schema: Any) -> None:
    """Describe what every free-form object may contain."""
    if isinstance(schema, dict):
        if schema.get("additionalProperties") is True:
            schema["additionalProperties"] = {"$ref": f"{MODELS}Json"}
            schema.setdefault("propertyNames", STORABLE)
        for inner in schema.values():
            _storable(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _storable(inner)
