"""Coding agents: their settings, and how their events read."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from outfeed import Event, list_events
from outfeed.display import Display, look_of
from outfeed.feature import shipped_displays
from outfeed.gateways.otlp import agents
from outfeed.store.database import Database
from outfeed.store.displays import DisplayCache
from tests.app_fixtures import Api
from tests.gateways import otlp_samples as samples

SENT = Path(__file__).parent / "agents"
URL = "http://127.0.0.1:8000"
SESSION = "7b7ae0b4-5f6a-4a8c-9d0e-3a5e8f6f0c11"
# The folder has requests of Claude Code 2.1.332, Codex 0.171.0 and Gemini CLI 0.61.0 of 2026-11-30, with a stub of the
# model. Names, paths and ids are replaced.
SOURCES = {
    "claude_code": "claude-code",
    "codex": "codex_exec",
    "gemini_cli": "gemini-cli",
    "gemini_cli_prompts": "gemini-cli",
}
SUBAGENT = "a28a7ee599af9a7d8"
SENTENCES = {
    "claude_code": [
        "⚙️ Managed settings read: startup",
        "💬 Prompt of 18 characters: <REDACTED>",
        "⚖️ Bash: accept by config",
        "📡 claude-opus-5-5: 1200 tokens in, 30 out, 0.0054 USD",
        "🔧 Bash failed: git status --short",
        "🔧 Read failed: /src/shop.py",
        "🔧 mcp_tool: search_events",
        "🔧 Bash: echo sub",
        "🗨️ Response of 9 characters: <REDACTED>",
        "🤝 Subagent general-purpose completed, 1230 tokens",
        "🔧 Bash: echo two",
    ],
    "codex": [
        "🚀 Session with gpt-5.6, sandbox danger-full-access",
        "⏱️ thread_start_create_thread: ready in 14 ms",
        "💬 Prompt of 18 characters: [REDACTED]",
        "📡 gpt-5.6: 200 in 1209 ms",
        "📶 Stream: response.created",
        "⏱️ First token after 1253 ms",
        "⚖️ exec_command: approved by Config",
        "🔧 exec_command: ls -la",
        "🔧 exec_command failed: cat /src/shop.py",
        "🔧 shell failed: bash -lc make",
    ],
    "gemini_cli": [
        "🚀 Session with auto, approval yolo",
        "⏱️ Startup stats: 9 phases recorded.",
        "💬 Prompt of 18 characters: –",
        "📡 Request to gemini-3.5-flash-lite",
        "📡 GenAI operation request details from gemini-3.5-flash-lite.",
        "📡 stub: 1200 tokens in, 30 out in 22 ms",
        "🔀 Routed to gemini-3.8-flash by agent-router/NumericalClassifier (Default)",
        "🔧 run_shell_command: accept",
        "🔧 read_file failed: File not found: /home/ann/shop/shop.py",
    ],
    "gemini_cli_prompts": ["💬 Prompt of 18 characters: Fix the flaky test", "🔧 run_shell_command: ls -la"],
}


def send(api: Api, name: str) -> list[Event]:
    """Post the records that an agent sent; return their events."""
    answer = api.client.post(
        "/v1/logs", data=(SENT / f"{name}.json").read_bytes(), content_type="application/json", headers=api.headers
    )
    assert (answer.status_code, answer.json) == (200, {})
    return [event for event in reversed(list_events(limit=-1)) if event.task_id == SESSION]


@pytest.mark.parametrize("name", SENTENCES)
def test_the_records_that_an_agent_sent_read_as_sentences(api: Api, name: str) -> None:
    events = send(api, name)

    looks = [look_of(event, api.services.displays.current().by_type) for event in events]
    assert [f"{look.icon} {look.text}" for look in looks] == SENTENCES[name]
    assert {event.source for event in events} == {SOURCES[name]}


def test_records_of_the_parts_of_a_stream_are_not_stored(api: Api) -> None:
    """The request of Codex has one, before the record of a wrong type."""
    body = json.loads((SENT / "codex.json").read_text())
    records = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    records.append(samples.record("no", eventName="access.granted"))
    answer = api.post("/v1/logs", json=body)

    assert json.dumps(body).count("response.output_text.delta") == 1
    assert answer.json["partialSuccess"]["errorMessage"].startswith(f"record {len(records) - 1}: ")
    kinds = [event.data["event.kind"] for event in list_events("codex.sse_event", limit=-1)]
    assert kinds == ["response.created"]


@pytest.mark.parametrize("name", ["claude_code", "codex", "gemini_cli"])
def test_a_failed_call_is_a_warning_that_says_so(api: Api, name: str) -> None:
    events = send(api, name)
    displays = api.services.displays.current().by_type
    failed = [event for event in events if look_of(event, displays).level != "info"]

    assert failed
    assert {look_of(event, displays).level for event in failed} == {"warning"}
    assert [" failed: " in look_of(event, displays).text for event in events].count(True) == len(failed)


def test_the_events_of_a_subagent_have_its_id(api: Api) -> None:
    found = {event.event_type.partition(".")[2]: event.agent_id for event in send(api, "claude_code") if event.agent_id}
    assert found == dict.fromkeys(["tool_result", "assistant_response", "subagent_completed"], SUBAGENT)


def test_arguments_are_shortened_and_hidden_like_other_data(api: Api) -> None:
    arguments = json.dumps({"full_command": "x" * 500, "password": "secret"})
    found = samples.record("claude_code.tool_result", {"event.name": "tool_result", "tool_parameters": arguments})
    api.post("/v1/logs", json=samples.request(found))
    (event,) = list_events("claude_code.*")
    assert len(event.data["full_command"]) == 200
    assert "secret" not in json.dumps(event.data)


def test_a_text_that_would_make_an_event_too_large_is_cut(api: Api) -> None:
    """Claude Code sends a prompt twice, with up to 60 kB each."""
    prompt = "x" * 61_440
    found = samples.record(
        "claude_code.user_prompt", {"event.name": "user_prompt", "prompt": prompt, "prompt_text": prompt}
    )
    answer = api.post("/v1/logs", json=samples.request(found))
    (event,) = list_events("claude_code.*")

    assert answer.json == {}
    assert (len(event.data["prompt"]), len(event.data["prompt_text"])) == (8_000, 8_000)


def test_a_secret_at_the_place_of_the_cut_is_hidden_as_a_whole() -> None:
    secret = "ghp_" + "a1B2" * 9
    for chars, name in ((200, "gen_ai.system_instructions"), (8_000, "prompt")):
        text = "x" * (chars - 20) + f" {secret} " + "y" * 100
        found = agents.detailed("gemini_cli.user_prompt", {name: text, "scope": "gemini-cli"})
        assert "ghp_" not in found[name]


def test_the_system_prompt_of_each_request_is_shortened_for_gemini_alone() -> None:
    prompt = "You are " * 4_000
    name, member = "gen_ai.client.inference.operation.details", "gen_ai.system_instructions"

    assert len(agents.detailed(name, {member: prompt, "scope": "gemini-cli"})[member]) == 200
    assert agents.detailed(name, {member: prompt, "scope": "other"})[member] == prompt


@pytest.mark.parametrize(
    ("output", "is_failed"),
    [
        ("Chunk ID: 1\nProcess exited with code 1\nOutput:\n", True),
        ("Exit code: 127\nWall time: 0 seconds\nOutput:\n", True),
        ("Process exited with code 0\nOutput:\nProcess exited with code 1\n", False),
        (None, False),
    ],
)
def test_a_command_that_codex_ran_failed_by_its_exit_code(output: str | None, is_failed: bool) -> None:
    found = agents.detailed("codex.tool_result", {"tool_name": "exec_command", "success": "true", "output": output})
    assert (found.get("level"), found.get("failed_tool")) == (
        ("warning", "exec_command failed") if is_failed else (None, None)
    )


@pytest.mark.parametrize("arguments", ["{", "[1]", '{"cmd": 7, "command": [1], "path": ""}', '{"a":' * 1_500, 5, None])
def test_other_arguments_add_nothing(arguments: Any) -> None:
    data = {"arguments": arguments, "tool_name": "x"}
    assert agents.detailed("codex.tool_result", data) == data
    assert agents.detailed("shop.sold", {"arguments": '{"cmd": "ls"}', "success": False}).keys() == {
        "arguments",
        "success",
    }


def test_the_displays_of_agents_are_valid(database: Database) -> None:
    for name, display in shipped_displays().items():
        Display.checked(name, icon=display.icon, label=display.label)
    assert {name.partition(".")[0] for name in agents.DISPLAYS} == {*agents.KINDS, "gen_ai"}
    assert DisplayCache(database, shipped_displays()).current().made_by == {}


class TestConnect:
    def test_it_prints_settings_with_a_new_token_that_only_writes(self, outfeed: Any, api: Api) -> None:
        done = outfeed("connect", "codex")

        assert done.exit_code == 0
        assert "Created token codex with the scope write. It is not shown again." in done.stderr
        assert "Append these settings to ~/.codex/config.toml" in done.stderr
        assert "work only on this machine" in done.stderr
        found = tomllib.loads(done.stdout)["otel"]["exporter"]["otlp-http"]
        assert (found["endpoint"], found["protocol"]) == (f"{URL}/v1/logs", "json")
        headers = found["headers"]
        assert api.client.get("/api/events", headers=headers).status_code == 403
        sent = api.client.post("/v1/logs", json=json.loads((SENT / "codex.json").read_text()), headers=headers)
        assert (sent.status_code, sent.json) == (200, {})
        (created,) = [event for event in list_events("access.token_created") if event.data["name"] == "codex"]
        assert (created.data["scopes"], created.data["by"]) == (["write"], "command line")

    @pytest.mark.parametrize("agent", ["claude-code", "gemini"])
    def test_the_settings_of_a_shell_can_be_evaluated(self, outfeed: Any, database: Database, agent: str) -> None:
        script = outfeed("connect", agent, "--token", "outfeed_abc").stdout
        shell = subprocess.run(
            ["bash", "-euc", f"{script}\nenv -0"],
            check=True,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin"},
        )
        values = dict(each.partition("=")[::2] for each in shell.stdout.split("\0"))
        assert values["OTEL_EXPORTER_OTLP_HEADERS"] == "Authorization=Bearer outfeed_abc"
        endpoint = (
            values.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT") or values["GEMINI_TELEMETRY_OTLP_ENDPOINT"] + "/v1/logs"
        )
        assert endpoint == f"{URL}/v1/logs"
        assert f"{agents.AGENTS[agent].version} ({agents.AGENTS[agent].date})" in script
        assert values.get("OTEL_NODE_RESOURCE_DETECTORS", "env,host") == "env,host"
        assert agents.AGENTS[agent].documentation in script
        assert list_events("access.token_created") == []

    def test_a_second_token_needs_another_name(self, outfeed: Any, database: Database) -> None:
        assert outfeed("connect", "gemini").exit_code == 0
        again = outfeed("connect", "gemini")
        assert (again.exit_code, "already a token named 'gemini'" in again.stderr, again.stdout) == (1, True, "")
        assert outfeed("connect", "gemini", "--name", "gemini on the laptop").exit_code == 0

    @pytest.mark.parametrize(
        "arguments",
        [
            ("other",), ("codex", "--token", 'a"b'), ("codex", "--token", "$(x)"), ("codex", "--token", ""),
            ("codex", "--token", "x", "--name", "y"), ("codex", "--name", " "),
        ],
    )  # fmt: skip
    def test_a_wrong_argument_creates_no_token(
        self, outfeed: Any, database: Database, arguments: tuple[str, ...]
    ) -> None:
        assert outfeed("connect", *arguments).exit_code == 2
        assert list_events("access.token_created") == []

    def test_an_address_that_a_shell_would_read_as_a_command_is_refused(
        self, outfeed: Any, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from outfeed import config

        monkeypatch.setenv("OUTFEED_PUBLIC_URL", "http://$(touch x)")
        config.settings.cache_clear()
        done = outfeed("connect", "claude-code")
        assert (done.exit_code, done.stdout) == (2, "")
