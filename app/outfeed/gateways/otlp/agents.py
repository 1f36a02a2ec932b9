"""Coding agents that export OpenTelemetry: their settings and displays.

The settings are those of each agent's public documentation. The version of each agent that ran with them, and the
date, stand beside the address. tests/gateways/agents has requests that these versions sent. The events
come through `event.py`. No I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from outfeed.display import MAX_CUT_CHARS, Display, Level, cut
from outfeed.redaction import redact


class CodingAgent(NamedTuple):
    """An agent with the source of its settings.

    *version* ran with the settings on *date*. *settings* has the places `{url}` and `{token}`. *step* says what to do
    with the settings.
    """

    title: str
    documentation: str
    version: str
    date: str
    settings: str
    step: str


AGENTS = {
    "claude-code": CodingAgent(
        "Claude Code",
        "https://code.claude.com/docs/en/monitoring-usage",
        "2.1.332",
        "2026-11-30",
        """\
export CLAUDE_CODE_ENABLE_TELEMETRY=1
export OTEL_LOGS_EXPORTER=otlp
export OTEL_LOGS_EXPORT_INTERVAL=1000
export OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=http/json
export OTEL_EXPORTER_OTLP_LOGS_ENDPOINT={url}/v1/logs
export OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer {token}"
# Commands, paths and arguments of tool calls:
export OTEL_LOG_TOOL_DETAILS=1
# Texts of prompts and responses:
# export OTEL_LOG_USER_PROMPTS=1
""",
        "Start claude in a shell that has evaluated these settings.",
    ),
    "codex": CodingAgent(
        "Codex",
        "https://learn.chatgpt.com/codex/config-file/config-sample",
        "0.171.0",
        "2026-11-30",
        """\
[otel]
# Texts of prompts:
log_user_prompt = false

[otel.exporter."otlp-http"]
endpoint = "{url}/v1/logs"
protocol = "json"

[otel.exporter."otlp-http".headers]
"Authorization" = "Bearer {token}"
""",
        "Append these settings to ~/.codex/config.toml, unless it has a table [otel], and start codex.",
    ),
    "gemini": CodingAgent(
        "Gemini CLI",
        "https://github.com/google-gemini/gemini-cli/blob/main/docs/cli/telemetry.md",
        "0.61.0",
        "2026-11-30",
        """\
export GEMINI_TELEMETRY_ENABLED=true
export GEMINI_TELEMETRY_TARGET=local
export GEMINI_TELEMETRY_OTLP_PROTOCOL=http
export GEMINI_TELEMETRY_OTLP_ENDPOINT={url}
export OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer {token}"
# Texts of prompts, and commands, paths and arguments of tool calls:
export GEMINI_TELEMETRY_LOG_PROMPTS=false
# Without it, each event has the command line, with the prompt of gemini -p:
export OTEL_NODE_RESOURCE_DETECTORS=env,host
""",
        "Start gemini in a shell that has evaluated these settings.",
    ),
}

# --- events -----------------------------------------------------------------------------------------------------------

KINDS = ("claude_code", "codex", "gemini_cli")
# Gemini CLI also sends events with the names of OpenTelemetry's conventions.
_GEMINI_SCOPE = "gemini-cli"
MAX_TEXT_CHARS = 8_000  # of an attribute. An agent may log a whole file, and a larger event is rejected
_SYSTEM_PROMPT = "gen_ai.system_instructions"  # the same 30 kB twice in each request of Gemini CLI
_COST_DIGITS = 9  # Claude Code sends 0.005399999999999999 USD
_STREAMS = ("codex.sse_event", "codex.websocket_event")
# Codex reports a command that failed as a successful call.
_EXIT_CODE = re.compile(r"^(?:Process exited with code|Exit code:) -?[1-9]", re.MULTILINE)
# Attributes that hold the arguments of a tool call as JSON, and the arguments that say most.
_ARGUMENTS = ("tool_parameters", "tool_input", "arguments", "function_args")
_TELLING = (
    "full_command", "command", "cmd", "file_path", "absolute_path", "path", "pattern", "query", "url", "skill_name",
    "mcp_tool_name", "description",
)  # fmt: skip
_TOOL = "{failed_tool|tool_name|function_name}: "
_CALL = "{" + "|".join(_TELLING) + "}"


def is_part_of_stream(event: Mapping[str, Any]) -> bool:
    """Return whether *event* only says that a part of an answer came.

    Codex sends one for each token of each answer, without the token.
    """
    kind = event["data"].get("event.kind")
    is_part = event["event_type"] in _STREAMS and isinstance(kind, str) and kind.endswith(".delta")
    return is_part and "error.message" not in event["data"]


def detailed(event_type: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return *data* of a coding agent's event with what its display needs.

    These are the telling arguments of a tool call. A failed call is a warning. Long texts are shortened. Events of
    other programs stay as they are.
    """
    if event_type.partition(".")[0] not in KINDS and data.get("scope") != _GEMINI_SCOPE:
        return data
    tidied = {name: _tidied(name, value) for name, value in data.items()}
    return {**dict(_telling(data)), **_failure(data), **tidied}


def _tidied(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _COST_DIGITS)
    return _cut(value, MAX_CUT_CHARS if name == _SYSTEM_PROMPT else MAX_TEXT_CHARS) if isinstance(value, str) else value


def _cut(text: str, chars: int) -> str:
    """Return *text* or its beginning, without a part of a secret."""
    return text if len(text) <= chars else cut(str(redact(text)), chars)


def _failure(data: Mapping[str, Any]) -> dict[str, str]:
    if data.get("success") not in (False, "false") and not _has_exit_code(data.get("output")):
        return {}
    tool = data.get("tool_name") or data.get("function_name")
    return {"level": Level.WARNING.value, **({"failed_tool": f"{tool} failed"} if tool else {})}


def _has_exit_code(output: Any) -> bool:
    head = output.partition("\nOutput:\n")[0] if isinstance(output, str) else ""
    return _EXIT_CODE.search(head) is not None


def _telling(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _ARGUMENTS:
        arguments = _parsed(data.get(name))
        for each in _TELLING:
            value = arguments.get(each)
            if isinstance(value, list) and all(isinstance(part, str) for part in value):
                value = " ".join(value)
            if isinstance(value, str) and value:
                yield each, _cut(value, MAX_CUT_CHARS)


def _parsed(text: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) and text.startswith("{") else None
    except (ValueError, RecursionError):  # an exporter may cut the text
        return {}
    return found if isinstance(found, dict) else {}


# A display without a level leaves it to the data and to the type.
DISPLAYS: dict[str, Display] = {
    "claude_code.user_prompt": Display("💬", "Prompt of {prompt_length} characters: {prompt|command_name:200}", None),
    "claude_code.assistant_response": Display("🗨️", "Response of {response_length} characters: {response:200}", None),
    "claude_code.tool_result": Display("🔧", _TOOL + _CALL, None),
    "claude_code.tool_decision": Display("⚖️", "{tool_name}: {decision} by {source}", None),
    "claude_code.api_request": Display(
        "📡", "{model}: {input_tokens} tokens in, {output_tokens} out, {cost_usd} USD", None
    ),
    "claude_code.api_error": Display("❌", "{model}: {error|status_code}", Level.ERROR),
    "claude_code.api_refusal": Display("🔶", "{model} refused a request", Level.WARNING),
    "claude_code.api_retries_exhausted": Display(
        "❌", "{model}: {error|status_code} after {total_attempts} attempts", Level.ERROR
    ),
    "claude_code.permission_mode_changed": Display("🔐", "Permission mode {from_mode} → {to_mode}", None),
    "claude_code.auth": Display("🔑", "Account: {action}", None),
    "claude_code.mcp_server_connection": Display("🔌", "MCP server {server_name|server_scope}: {status}", None),
    "claude_code.internal_error": Display("❌", "Internal error: {error_name|error_code}", Level.ERROR),
    "claude_code.plugin_installed": Display("🧩", "Plugin {plugin.name} installed", None),
    "claude_code.plugin_loaded": Display("🧩", "Plugin {plugin.name} loaded", None),
    "claude_code.skill_activated": Display("🎓", "Skill {skill.name} activated", None),
    "claude_code.at_mention": Display("📎", "Mention of a {mention_type}", None),
    "claude_code.hook_registered": Display("🪝", "Hook for {hook_event} registered by {hook_source}", None),
    "claude_code.hook_execution_start": Display("🪝", "Hook {hook_name|hook_event} started", None),
    "claude_code.hook_execution_complete": Display("🪝", "Hook {hook_name|hook_event} completed", None),
    "claude_code.managed_settings_resolved": Display("⚙️", "Managed settings read: {managed_settings.trigger}", None),
    "claude_code.subagent_completed": Display("🤝", "Subagent {agent_type} completed, {total_tokens} tokens", None),
    "claude_code.compaction": Display("🗜️", "Context compacted from {pre_tokens} to {post_tokens} tokens", None),
    "codex.conversation_starts": Display("🚀", "Session with {model}, sandbox {sandbox_policy}", None),
    "codex.user_prompt": Display("💬", "Prompt of {prompt_length} characters: {prompt:200}", None),
    "codex.tool_decision": Display("⚖️", "{tool_name}: {decision} by {source}", None),
    "codex.tool_result": Display("🔧", _TOOL + _CALL.replace("}", "|arguments|output}"), None),
    "codex.api_request": Display("📡", "{model}: {error.message|http.response.status_code} in {duration_ms} ms", None),
    "codex.sse_event": Display("📶", "Stream: {event.kind|error.message}", None),
    "codex.websocket_request": Display("📡", "WebSocket request: {error.message|duration_ms}", None),
    "codex.websocket_event": Display("📶", "WebSocket: {event.kind|error.message}", None),
    "codex.startup_phase": Display("⏱️", "{startup.phase}: {startup.status} in {duration_ms} ms", None),
    "codex.turn_ttft": Display("⏱️", "First token after {duration_ms} ms", None),
    "gemini_cli.config": Display("🚀", "Session with {model}, approval {approval_mode}", None),
    "gemini_cli.user_prompt": Display("💬", "Prompt of {prompt_length} characters: {prompt:200}", None),
    "gemini_cli.tool_call": Display("🔧", _TOOL + _CALL.replace("}", "|function_args|error.message|decision}"), None),
    "gemini_cli.file_operation": Display("📄", "{operation} of a file by {tool_name}", None),
    "gemini_cli.api_request": Display("📡", "Request to {model}", None),
    "gemini_cli.api_response": Display(
        "📡", "{model}: {input_token_count} tokens in, {output_token_count} out in {duration_ms} ms", None
    ),
    "gemini_cli.api_error": Display("❌", "{model_name|model}: {error.message|error|error_type}", Level.ERROR),
    "gemini_cli.slash_command": Display("⌨️", "/{command}: {status|subcommand}", None),
    "gemini_cli.model_routing": Display("🔀", "Routed to {decision_model} by {decision_source}", None),
    "gemini_cli.chat_compression": Display(
        "🗜️", "Context compressed from {tokens_before} to {tokens_after} tokens", None
    ),
    "gemini_cli.agent.start": Display("▶️", "Agent {agent_name} started", None),
    "gemini_cli.agent.finish": Display("⏹️", "Agent {agent_name} ended: {terminate_reason}", None),
    "gemini_cli.hook_call": Display("🪝", "Hook {hook_name}", None),
    "gemini_cli.startup_stats": Display("⏱️", "{message}", None),
    "gemini_cli.ripgrep_fallback": Display("🔎", "{message}", None),
    "gemini_cli.plan.approval_mode_duration": Display("⏱️", "{message}", None),
    "gen_ai.client.inference.operation.details": Display("📡", "{message|gen_ai.request.model}", None),
    "gemini_cli.conversation_finished": Display("🏁", "Conversation finished after {turnCount} turns", None),
}
