"""The OpenAPI 3.1 document, made from the views' `@operation`.

No library makes it. The libraries that take pydantic models (flask-openapi3 4.3 and spectree 3.0, read in 2026) know
one media type, JSON, for each body and response. They support neither NDJSON nor problem+json, and the first makes the
schema of a query again for every request. pydantic writes the schemas in OpenAPI 3.1's own dialect, and this file does
the rest.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Flask
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from werkzeug.routing import Rule

from outfeed.http.api import examples
from outfeed.http.api.operation import JSON, MAX_FILTER_CHARS, OPERATIONS, Operation
from outfeed.http.api.problem import Problem

PROBLEM = "application/problem+json"
_REFERENCE = "#/components/schemas/{model}"
_REFUSALS = {
    401: "The token or session is missing or unknown.",
    403: "The token lacks the scope.",
    422: "A parameter breaks a rule.",
    503: "The database is unavailable. Retry after the seconds in Retry-After.",
}


def document(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document of every view of *app* with `@operation`."""
    schemas = _Schemas()
    paths: dict[str, Any] = {}
    for rule, method, operation in _operations(app):
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        paths.setdefault(path, {})[method.lower()] = _operation(schemas, app, rule, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Outfeed",
            "version": _version(),
            "description": "A restart-safe live event feed. The live feed itself is a WebSocket at /ws.",
        },
        "servers": [{"url": app.extensions["outfeed"].settings.public_url or "/"}],
        "security": [{"token": []}],
        "tags": [{"name": name} for name in dict.fromkeys(map(_group, paths))],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "`outfeed token create`"}},
        },
    }


def _group(path: str) -> str:
    """Return the group of an operation, in words.

    It is the first part of its path after `/api/`. Paths outside of the API are those of senders with other protocols.
    """
    _, first, second, *_ = path.split("/")
    return second.capitalize() if first == "api" else "Gateways"


def _version() -> str:
    try:
        return version("outfeed")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0"


def _operations(app: Flask) -> Iterator[tuple[Rule, str, Operation]]:
    for rule in app.url_map.iter_rules():
        described = OPERATIONS.get(app.view_functions[rule.endpoint])
        if described is not None:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method, described


def _operation(schemas: _Schemas, app: Flask, rule: Rule, operation: Operation) -> dict[str, Any]:
    text = inspect.getdoc(app.view_functions[rule.endpoint]) or ""
    summary, _, description = text.partition("\n\n")
    fields: dict[str, Any] = {
        "operationId": rule.endpoint.replace(".", "_"),
        "tags": [_group(rule.rule)],
        "summary": " ".join(summary.split()),
        "description": " ".join(description.split()),
        "parameters": [*_path_parameters(rule), *_query_parameters(schemas, operation)],
        "responses": _responses(schemas, operation),
    }
    if operation.body:
        fields["requestBody"] = {"required": True, "content": _content(schemas, operation.body, "validation")}
    return fields


# No name is longer.
_PATH_PART = {"type": "string", "minLength": 1, "maxLength": MAX_FILTER_CHARS}


def _path_parameters(rule: Rule) -> Iterator[dict[str, Any]]:
    for name in sorted(rule.arguments):
        yield {"name": name, "in": "path", "required": True, "schema": {**_PATH_PART}}


def _query_parameters(schemas: _Schemas, operation: Operation) -> Iterator[dict[str, Any]]:
    if operation.query is None:
        return
    model = schemas.of(operation.query, "validation", is_inline=True)
    for name, found in model["properties"].items():
        schema = _without_null(found)
        parameter = {"name": name, "in": "query", "required": name in model.get("required", ())}
        if description := schema.pop("description", None):
            parameter["description"] = description
        if schema.get("type") == "array":
            parameter |= {"style": "form", "explode": False}  # with commas between
        yield parameter | {"schema": schema}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without null, which a query string can't express."""
    schema = {name: value for name, value in schema.items() if name != "title"}
    if "anyOf" in schema:
        (first,) = [one for one in schema.pop("anyOf") if one != {"type": "null"}]
        schema = {**first, **schema}
    if schema.get("default", "") is None:
        del schema["default"]
    return schema


def _responses(schemas: _Schemas, operation: Operation) -> dict[str, Any]:
    answers = {
        str(status): {"description": HTTPStatus(status).phrase, "content": _content(schemas, shapes, "serialization")}
        for status, shapes in operation.answers.items()
    }
    problem = {"content": _content(schemas, operation.errors or {PROBLEM: Problem}, "serialization")}
    texts = {**_REFUSALS, **operation.refusals}
    refusals = {str(status): {"description": text, **problem} for status, text in sorted(texts.items())}
    return answers | refusals | {"default": {"description": "Another problem.", **problem}}


def _content(schemas: _Schemas, shapes: Any, mode: JsonSchemaMode) -> dict[str, Any]:
    content = {media_type: {"schema": schemas.of(shape, mode)} for media_type, shape in shapes.items()}
    if JSON in content:
        content[JSON]["example"] = examples.value_of(content[JSON]["schema"], schemas.definitions)
    return content


class _Schemas:
    """pydantic's schemas.

    `definitions` collects the schemas that have a name.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def of(self, shape: Any, mode: JsonSchemaMode, *, is_inline: bool = False) -> dict[str, Any]:
        """Return the schema of *shape*, or a reference to it if it has a name."""
        schema = TypeAdapter(shape).json_schema(mode=mode, ref_template=_REFERENCE)
        for name, definition in schema.pop("$defs", {}).items():
            self._define(name, definition)
        title = schema.get("title")
        if is_inline or title is None or schema.get("type") != "object":
            return schema
        self._define(title, schema)
        return {"$ref": _REFERENCE.format(model=title)}

    def _define(self, name: str, schema: dict[str, Any]) -> None:
        known = self.definitions.setdefault(name, schema)
        assert known == schema, f"two shapes have the name {name}"
