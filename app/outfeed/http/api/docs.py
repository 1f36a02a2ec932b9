"""The API's documentation: OpenAPI, and a page of the same document."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from flask import Blueprint, Response, current_app, jsonify, render_template, request

from outfeed.http import addresses, docs_pages
from outfeed.http.api import examples, openapi
from outfeed.http.api.operation import EVENT_STREAM, JSON
from outfeed.http.permission import requires
from outfeed.principal import READ

docs = Blueprint("docs", __name__, url_prefix="/api")
# Messages outside of calls: each name with the topic and anchor that describe them.
MESSAGES = {
    "WebSocket": ("websocket", "messages"),
    "Server-sent events": ("http", "server-sent-events"),
    "Webhooks": ("webhooks", "messages"),
}


@docs.get("/openapi.json")
@requires(READ)
def specification() -> Response:
    """Return the OpenAPI document."""
    return jsonify(openapi.document(current_app))


@docs.get("/docs")
@requires(READ, is_page=True)
def page() -> str:
    """Show the OpenAPI document, with a command to copy for each operation."""
    document = openapi.document(current_app)
    schemas = document["components"]["schemas"]
    groups: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append(_entry(path, method, operation))
    shapes = {name: (schema, _fields(schema)) for name, schema in sorted(schemas.items())}
    messages = {
        name: (topic, docs_pages.rendered_section(topic, anchor, request.script_root))
        for name, (topic, anchor) in MESSAGES.items()
    }
    return render_template(
        "api_docs.html", groups=groups, shapes=shapes, messages=messages, version=document["info"]["version"]
    )


class FieldRow(NamedTuple):
    """A parameter or field as a row of the page.

    *shape* is the name of the shape that it holds, if any.
    """

    name: str
    kind: str
    shape: str | None
    rules: str
    text: str
    is_required: bool


def _entry(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation as the page shows it.

    Each body is (media type, kind, shape).
    """
    bodies = _bodies(operation.get("requestBody", {}))
    answers = [
        {
            "status": status,
            "text": one["description"],
            "bodies": _bodies(one),
            "example": _example_in(one),
            "types": one.get("content", {}),
        }
        for status, one in operation["responses"].items()
    ]
    return {
        "anchor": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "operation": operation,
        "parameters": [
            _field(one["name"], one["schema"] | one, is_required=one["required"]) for one in operation["parameters"]
        ],
        "bodies": bodies,
        "answers": [one for one in answers if one["status"] < "4"],
        "refusals": [one for one in answers if "4" <= one["status"] < "6"],
        "calls": _calls(path, method, operation),
        "is_tried": method == "get"
        and "{" not in path
        and JSON in answers[0]["types"]
        and not _needs_values(operation),
    }


def _needs_values(operation: dict[str, Any]) -> bool:
    return any(one["required"] for one in operation["parameters"])


def _example_in(answer: dict[str, Any]) -> str | None:
    content = answer.get("content", {}).get(JSON, {})
    return json.dumps(content["example"], indent=2, ensure_ascii=False) if "example" in content else None


def _bodies(holder: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    return [(media_type, *_kind(body["schema"])) for media_type, body in holder.get("content", {}).items()]


def _fields(schema: dict[str, Any]) -> list[FieldRow]:
    required = schema.get("required", ())
    return [_field(name, one, is_required=name in required) for name, one in schema.get("properties", {}).items()]


def _field(name: str, schema: dict[str, Any], *, is_required: bool) -> FieldRow:
    return FieldRow(name, *_kind(schema), _rules(schema), schema.get("description", ""), is_required)


def _kind(schema: dict[str, Any]) -> tuple[str, str | None]:
    """Return a schema in words, and the name of the shape among them."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return name, name
    if "anyOf" in schema:
        kinds = [_kind(one) for one in schema["anyOf"]]
        return " or ".join(text for text, _ in kinds), next((shape for _, shape in kinds if shape), None)
    if schema.get("type") == "array":
        text, shape = _kind(schema["items"])
        return f"array of {text}", shape
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"]), None
    return schema.get("type", "any JSON"), None


_RULES = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "default": "default {}",
}


def _rules(schema: dict[str, Any]) -> str:
    inner: dict[str, Any] = next((one for one in schema.get("anyOf", ()) if one.get("type") != "null"), {})
    found = {name: value for name, value in (inner | schema).items() if value not in (None, [], 2**63 - 1)}
    texts = [
        text.format(f"{found[name]:,}" if isinstance(found[name], int) else found[name])
        for name, text in _RULES.items()
        if name in found
    ]
    return ", ".join(texts).replace("least 1 characters", "least 1 character")


_PATH_EXAMPLES = {
    "event_id": "task-1-created",
    "name": "cron",
    "topic": "backups",
    "address": "ADDRESS",
    "agent_id": "agent-3f9a1c2b7d004e51",
    "task_id": "task-7c41d0a95be2f836",
    "view_id": "3",
}


def _calls(path: str, method: str, operation: dict[str, Any]) -> dict[str, str]:
    """Return the operation as a call in each language, by language."""
    for name, example in _PATH_EXAMPLES.items():
        path = path.replace(f"{{{name}}}", example)
    url = f"{addresses.of_site()}{path}{examples.query_of(operation['parameters'])}"
    if EVENT_STREAM in operation["responses"].get("200", {}).get("content", {}):
        return {language: write(url) for language, write in examples.STREAM_LANGUAGES.items()}
    body = operation.get("requestBody", {}).get("content", {}).get(JSON, {}).get("example")
    return {language: write(method.upper(), url, body) for language, write in examples.LANGUAGES.items()}
