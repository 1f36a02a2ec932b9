"""Coding agents that export OpenTelemetry: their settings and displays.

The settings and the names of events are those of each agent's public documentation, on the date beside its address.
The events come through `otlp.py`. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from outfeed.display import MAX_CUT_CHARS, Display, Level, cut


class CodingAgent(NamedTuple):
    """An agent with the source of its settings.

    *settings* has the places `{url}` and `{token}`. *step* says what to do with the settings.
    """

    title: str
    documentation: str
    date: str
    settings: str
    step: str


AGENTS = {
    "claude-code": CodingAgent(
        "Claude Code",
        "https://code.claude.com/docs/en/monitoring-usage",
        "2026-07-23",
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
        "2026-08-02",
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
        "2026-08-21",
        """\
export GEMINI_TELEMETRY_ENABLED=true
export GEMINI_TELEMETRY_TARGET=local
export GEMINI_TELEMETRY_OTLP_PROTOCOL=http
export GEMINI_TELEMETRY_OTLP_ENDPOINT={url}
export OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer {token}"
# Texts of prompts:
export GEMINI_TELEMETRY_LOG_PROMPTS=false
""",
        "Start gemini in a shell that has evaluated these settings.",
    ),
}

# --- events -----------------------------------------------------------------------------------------------------------

KINDS = ("claude_code", "codex", "gemini_cli")
# Attributes that hold the arguments of a tool call as JSON, and the arguments that say most.
_ARGUMENTS = ("tool_parameters", "tool_input", "arguments", "function_args")
_TELLING = (
    "full_command", "command", "cmd", "file_path", "absolute_path", "path", "pattern", "query", "url", "skill_name",
    "mcp_tool_name", "description",
)  # fmt: skip
_CALL = "{" + "|".join(_TELLING) + "}"


def detailed(event_type: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return *data* with the telling arguments of a coding agent's tool call.

    A failed call is a warning. Events of other types stay as they are.
    """
    if event_type.partition(".")[0] not in KINDS:
        return data
    level = {"level": Level.WARNING.value} if data.get("success") in (False, "false") else {}
    return {**dict(_telling(data)), **level, **data}


def _telling(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _ARGUMENTS:
        arguments = _parsed(data.get(name))
        for each in _TELLING:
            value = arguments.get(each)
            if isinstance(value, list) and all(isinstance(part, str) for part in value):
                value = " ".join(value)
            if isinstance(value, str) and value:
                yield each, cut(value, MAX_CUT_CHARS)


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
    "claude_code.tool_result": Display("🔧", "{tool_name}: " + _CALL, None),
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
    "claude_code.compaction": Display("🗜️", "Context compacted from {pre_tokens} to {post_tokens} tokens", None),
    "codex.conversation_starts": Display("🚀", "Session with {model}, sandbox {sandbox_policy}", None),
    "codex.user_prompt": Display("💬", "Prompt of {prompt_length} characters: {prompt:200}", None),
    "codex.tool_decision": Display("⚖️", "{tool_name}: {decision} by {source}", None),
    "codex.tool_result": Display("🔧", "{tool_name}: " + _CALL.replace("}", "|arguments|output}"), None),
    "codex.api_request": Display("📡", "{model}: {error.message|http.response.status_code} in {duration_ms} ms", None),
    "codex.sse_event": Display("📶", "Stream: {event.kind|error.message}", None),
    "codex.websocket_request": Display("📡", "WebSocket request: {error.message|duration_ms}", None),
    "codex.websocket_event": Display("📶", "WebSocket: {event.kind|error.message}", None),
    "gemini_cli.config": Display("🚀", "Session with {model}, approval {approval_mode}", None),
    "gemini_cli.user_prompt": Display("💬", "Prompt of {prompt_length} characters: {prompt:200}", None),
    "gemini_cli.tool_call": Display("🔧", "{function_name}: " + _CALL.replace("}", "|function_args}"), None),
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
    "gemini_cli.conversation_finished": Display("🏁", "Conversation finished after {turnCount} turns", None),
}
