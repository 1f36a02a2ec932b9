"""Coding agents: their settings, and how their events read."""

from __future__ import annotations

import json
import subprocess
import tomllib
from typing import Any

import pytest

from outfeed import list_events
from outfeed.display import Display, look_of
from outfeed.feature import shipped_displays
from outfeed.gateways.otlp import agents
from outfeed.store.database import Database
from outfeed.store.displays import DisplayCache
from tests.app_fixtures import Api
from tests.gateways import otlp_samples as samples

URL = "http://127.0.0.1:8000"
AGENTS = {
    "claude_code": (samples.CLAUDE, samples.CLAUDE_RECORDS, samples.CLAUDE_SENTENCES),
    "codex": (samples.CODEX, samples.CODEX_RECORDS, samples.CODEX_SENTENCES),
    "gemini_cli": (samples.GEMINI, samples.GEMINI_RECORDS, samples.GEMINI_SENTENCES),
}


@pytest.mark.parametrize("agent", AGENTS)
def test_the_documented_records_of_an_agent_read_as_sentences(api: Api, agent: str) -> None:
    resource, records, sentences = AGENTS[agent]

    answer = api.post("/v1/logs", json=samples.request(*records, resource=resource))

    assert (answer.status_code, answer.json) == (200, {})
    events = [event for event in reversed(list_events(limit=-1)) if event.source == resource["service.name"]]
    looks = [look_of(event, api.services.displays.current().by_type) for event in events]
    assert [f"{look.icon} {look.text}" for look in looks] == sentences
    assert len({event.task_id for event in events}) == 1
    assert events[0].task_id
    assert [event.timestamp for event in events] == ["2026-01-31T12:00:00.123Z"] * len(events)


def test_a_failed_call_is_a_warning_and_an_error_is_an_error(api: Api) -> None:
    api.post("/v1/logs", json=samples.request(*samples.CLAUDE_RECORDS, resource=samples.CLAUDE))
    displays = api.services.displays.current().by_type
    levels = [look_of(event, displays).level for event in reversed(list_events("claude_code.*", limit=-1))]
    assert levels == ["info", "info", "warning", "info", "error"]


def test_arguments_are_shortened_and_hidden_like_other_data(api: Api) -> None:
    arguments = json.dumps({"full_command": "x" * 500, "password": "secret"})
    found = samples.record("claude_code.tool_result", {"event.name": "tool_result", "tool_parameters": arguments})
    api.post("/v1/logs", json=samples.request(found))
    (event,) = list_events("claude_code.*")
    assert len(event.data["full_command"]) == 200
    assert "secret" not in json.dumps(event.data)


@pytest.mark.parametrize("arguments", ["{", "[1]", '{"cmd": 7, "command": [1], "path": ""}', '{"a":' * 5_000, 5, None])
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
    assert {name.partition(".")[0] for name in agents.DISPLAYS} == set(agents.KINDS)
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
        sent = api.client.post("/v1/logs", json=samples.request(*samples.CODEX_RECORDS), headers=headers)
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
        assert agents.AGENTS[agent].date in script
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
