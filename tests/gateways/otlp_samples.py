"""Requests of OpenTelemetry's exporters, as JSON, and their protobuf.

The folder `agents` has what coding agents sent.
"""

from __future__ import annotations

import base64
import copy
import math
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

PROTOBUF = "application/x-protobuf"
TIME = "1769860800123456789"


def value_of(value: Any) -> dict[str, Any]:
    """Return *value* as an AnyValue."""
    match value:
        case None:
            return {}
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value if math.isfinite(value) else "NaN"}
        case bytes():
            return {"bytesValue": base64.b64encode(value).decode()}
        case list():
            return {"arrayValue": {"values": [value_of(each) for each in value]}}
        case dict():
            return {"kvlistValue": {"values": attributes(value)}}
    return {"stringValue": value}


def attributes(members: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value_of(value)} for key, value in members.items()]


def record(body: Any = None, members: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    found = {"timeUnixNano": TIME, "attributes": attributes(members or {}), **fields}
    return found if body is None else {**found, "body": value_of(body)}


def request(*records: dict[str, Any], resource: dict[str, Any] | None = None) -> dict[str, Any]:
    resource = {"service.name": "shop"} if resource is None else resource
    scopes = [{"scope": {"name": "shop.orders"}, "logRecords": list(records)}]
    return {"resourceLogs": [{"resource": {"attributes": attributes(resource)}, "scopeLogs": scopes}]}


def protobuf(body: dict[str, Any]) -> bytes:
    """Return the protobuf of a request in JSON.

    protobuf's own JSON has ids in base64, and OpenTelemetry's has them in hexadecimal.
    """
    body = copy.deepcopy(body)
    for one in body.get("resourceLogs", ()):
        for scope in one.get("scopeLogs", ()):
            for each in scope.get("logRecords", ()):
                for name in {"traceId", "spanId"} & each.keys():
                    each[name] = base64.b64encode(bytes.fromhex(each[name])).decode()
    encoded: bytes = json_format.ParseDict(body, ExportLogsServiceRequest()).SerializeToString()
    return encoded


# --- a coding agent ---------------------------------------------------------------------------------------------------

CLAUDE = {"service.name": "claude-code", "service.version": "2.1.332"}
_CLAUDE = {"session.id": "7b7ae0b4-5f6a-4a8c-9d0e-3a5e8f6f0c11", "event.name": "tool_result"}
CLAUDE_CALLS = [
    record(
        "claude_code.tool_result",
        {
            **_CLAUDE, "tool_name": "Bash", "success": "true", "duration_ms": "140",
            "tool_parameters": '{"bash_command":"git","full_command":"git status --short","timeout":5000}',
        },
    ),
    record(
        "claude_code.tool_result",
        {
            **_CLAUDE, "tool_name": "Read", "success": "false", "duration_ms": "3",
            "error_type": "Error:ENOENT", "tool_input": '{"file_path":"/src/shop.py","limit":20}',
        },
    ),
]  # fmt: skip
