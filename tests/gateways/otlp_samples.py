"""Requests of OpenTelemetry's exporters, as JSON, and their protobuf.

The records of coding agents have the shapes that their documentation gives.
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


# --- coding agents ----------------------------------------------------------------------------------------------------

CLAUDE = {"service.name": "claude-code", "service.version": "2.1.202"}
_CLAUDE = {
    "user.id": "f00d", "session.id": "7b7ae0b4-5f6a-4a8c-9d0e-3a5e8f6f0c11", "terminal.type": "tmux",
    "event.timestamp": "2026-01-31T12:00:00.123Z", "prompt.id": "3d0f8a8e",
}  # fmt: skip
CLAUDE_RECORDS = [
    record(
        "claude_code.user_prompt",
        {**_CLAUDE, "event.name": "user_prompt", "prompt_length": "14", "prompt": "Fix the flaky test"},
    ),
    record(
        "claude_code.tool_result",
        {
            **_CLAUDE, "event.name": "tool_result", "tool_name": "Bash", "success": "true", "duration_ms": "140",
            "tool_parameters": '{"bash_command":"git","full_command":"git status --short","timeout":5000}',
        },
    ),
    record(
        "claude_code.tool_result",
        {
            **_CLAUDE, "event.name": "tool_result", "tool_name": "Read", "success": "false", "duration_ms": "3",
            "error_type": "Error:ENOENT", "tool_input": '{"file_path":"/src/shop.py","limit":20}',
        },
    ),
    record(
        "claude_code.api_request",
        {
            **_CLAUDE, "event.name": "api_request", "model": "claude-sonnet-5", "cost_usd": "0.0123",
            "input_tokens": "1200", "output_tokens": "300", "duration_ms": "2100",
        },
    ),
    record("claude_code.api_error", {**_CLAUDE, "event.name": "api_error", "model": "claude-sonnet-5", "error": "529"}),
]  # fmt: skip
CLAUDE_SENTENCES = [
    "💬 Prompt of 14 characters: Fix the flaky test",
    "🔧 Bash: git status --short",
    "🔧 Read: /src/shop.py",
    "📡 claude-sonnet-5: 1200 tokens in, 300 out, 0.0123 USD",
    "❌ claude-sonnet-5: 529",
]

CODEX = {"service.name": "codex_cli_rs", "service.version": "0.140.0", "env": "dev"}
_CODEX = {"conversation.id": "0199d2d4-7f0e-7d53-8a40-6c9b7f1b2a10", "app.version": "0.140.0", "model": "gpt-5.6"}


def _codex(line: int, name: str, **members: Any) -> dict[str, Any]:
    """Return a record with the place of its call as `eventName`, and no time."""
    found = record(None, {"event.name": name, **_CODEX, **members})
    place = f"event otel/src/events/session_telemetry.rs:{line}"
    return {**found, "timeUnixNano": "0", "observedTimeUnixNano": TIME, "eventName": place, "severityNumber": 9}


CODEX_RECORDS = [
    _codex(468, "codex.conversation_starts", sandbox_policy="workspace-write", approval_policy="on-request"),
    _codex(785, "codex.user_prompt", prompt_length="14", prompt="[REDACTED]"),
    _codex(810, "codex.tool_decision", tool_name="exec_command", call_id="c1", decision="approved", source="config"),
    _codex(
        902, "codex.tool_result", tool_name="exec_command", call_id="c1", arguments='{"cmd":"ls -la"}',
        duration_ms="20", success="true", output="total 0",
    ),
    _codex(
        902, "codex.tool_result", tool_name="shell", arguments='{"command":["bash","-lc","make"]}', success="false",
    ),
]  # fmt: skip
CODEX_SENTENCES = [
    "🚀 Session with gpt-5.6, sandbox workspace-write",
    "💬 Prompt of 14 characters: [REDACTED]",
    "⚖️ exec_command: approved by config",
    "🔧 exec_command: ls -la",
    "🔧 shell: bash -lc make",
]

GEMINI = {"service.name": "gemini-cli", "service.version": "v22.0.0", "session.id": "d1b6a1c2"}
_GEMINI = {"session.id": "d1b6a1c2", "installation.id": "i-1", "interactive": True}
GEMINI_RECORDS = [
    record(
        "CLI configuration loaded.",
        {**_GEMINI, "event.name": "gemini_cli.config", "model": "gemini-3-pro", "approval_mode": "plan"},
    ),
    record("User prompt. Length: 14.", {**_GEMINI, "event.name": "gemini_cli.user_prompt", "prompt_length": 14}),
    record(
        "Tool call: run_shell_command. Decision: accept. Success: true. Duration: 21ms.",
        {
            **_GEMINI, "event.name": "gemini_cli.tool_call", "function_name": "run_shell_command",
            "function_args": '{"command":"ls","description":"List"}', "duration_ms": 21, "success": True,
            "metadata": {"model_added_lines": 2},
        },
    ),
    record("Plan executed.", {**_GEMINI, "event.name": "plan_execution", "approval_mode": "default"}),
]  # fmt: skip
GEMINI_SENTENCES = [
    "🚀 Session with gemini-3-pro, approval plan",
    "💬 Prompt of 14 characters: –",
    "🔧 run_shell_command: ls",
    " otel.plan_execution Plan executed.",
]
