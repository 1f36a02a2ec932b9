"""Mappings: the shipped tables, files of operators, and their mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outfeed import config, list_events
from outfeed.errors import ConfigError, InvalidRequest
from outfeed.feature import registered
from outfeed.gateways.incoming import mapping_file
from outfeed.gateways.incoming.template import Payload
from outfeed.store.database import Database
from tests.gateways import samples


def events(name: str, body: Any, topic: str = "", **headers: str) -> list[dict[str, Any]]:
    known = {header.replace("_", "-").lower(): value for header, value in headers.items()}
    return mapping_file.shipped()[name].events(Payload(topic or name, "sender", known, body))


class TestShippedMappings:
    def test_a_github_delivery_becomes_an_event_of_its_kind_and_action(self) -> None:
        (event,) = events("github", samples.GITHUB_ISSUE, X_GitHub_Event="issues", X_GitHub_Delivery="72d3162e-cc78")

        assert event == {
            "event_type": "github.issues.opened",
            "source": "octocat/Hello-World",
            "id": "72d3162e-cc78",
            "data": {
                "message": "issues opened by octocat: Found a bug",
                "repository": "octocat/Hello-World",
                "sender": "octocat",
                "number": 1347,
                "state": "open",
                "url": "https://github.com/octocat/Hello-World/issues/1347",
            },
        }

    @pytest.mark.parametrize(("conclusion", "level"), [("failure", "error"), ("timed_out", "error"), ("success", None)])
    def test_a_failed_github_run_is_an_error(self, conclusion: str, level: str | None) -> None:
        (event,) = events(
            "github", samples.github_run(conclusion), X_GitHub_Event="workflow_run", X_GitHub_Delivery="1"
        )

        assert event["event_type"] == "github.workflow_run.completed"
        assert (event["data"]["state"], event["data"].get("level")) == (conclusion, level)

    def test_a_github_ping_has_no_action_and_no_repository(self) -> None:
        (event,) = events("github", samples.GITHUB_PING, X_GitHub_Event="ping", X_GitHub_Delivery="1")

        assert (event["event_type"], event["source"]) == ("github.ping", "sender")
        assert event["data"]["message"] == "ping: Keep it logically awesome."

    def test_each_alert_of_a_group_becomes_an_event_with_its_state_in_the_id(self) -> None:
        resolved = {**samples.ALERT, "status": "resolved", "endsAt": "2023-02-06T14:00:00Z"}
        warning = {**samples.ALERT, "labels": {**samples.ALERT["labels"], "severity": "warning"}, "fingerprint": "f2"}

        found = events("alertmanager", samples.alertmanager(samples.ALERT, resolved, warning), topic="alert")

        assert [event["event_type"] for event in found] == ["alert.firing", "alert.resolved", "alert.firing"]
        assert [event["data"]["level"] for event in found] == ["error", "info", "warning"]
        assert [event["id"] for event in found] == [
            "1a30ba71cca2921f-2023-02-06T13:08:45.828Z-firing",
            "1a30ba71cca2921f-2023-02-06T13:08:45.828Z-resolved",
            "f2-2023-02-06T13:08:45.828Z-firing",
        ]
        assert found[0]["source"] == "http_checks"
        assert found[0]["data"]["message"] == "Probe failure: server.example.org"
        assert found[0]["data"]["labels"] == samples.ALERT["labels"]

    def test_a_group_with_more_alerts_than_a_request_may_have_is_rejected_before_any_is_read(self) -> None:
        with pytest.raises(InvalidRequest, match="at most 1,000"):
            events("alertmanager", {"alerts": [{}] * 1001})

    def test_a_grafana_alert_keeps_its_values(self) -> None:
        (event,) = events("grafana", samples.GRAFANA)

        assert (event["event_type"], event["source"]) == ("grafana.firing", "Nodes")
        assert event["data"]["values"] == {"B": 44.23943737541908, "C": 1}
        assert event["data"]["url"] == "https://play.grafana.org/alerting/1afz29v7z/edit"

    def test_a_standard_webhook_has_its_type_below_the_topic(self) -> None:
        body = {"type": "Invoice.Paid now", "timestamp": "2026-01-31T12:00:00Z", "data": {"amount": 5}}
        (event,) = events("standard", body, topic="billing", webhook_id="msg_1")

        assert (event["event_type"], event["id"]) == ("billing.invoice.paid_now", "msg_1")
        assert event["data"] == {"sent_at": "2026-01-31T12:00:00Z", "data": {"amount": 5}}
        (untyped,) = events("standard", {"data": 1}, topic="billing", webhook_id="msg_1")
        assert untyped["event_type"] == "billing.message"

    @pytest.mark.parametrize(
        ("name", "body", "problem"),
        [
            ("github", {}, "event 0: type: the request has no value for '{topic}.{header.X-GitHub-Event}"),
            ("alertmanager", {"alerts": {}}, "alerts: must be a list"),
            ("alertmanager", [], "alerts: must be a list"),
            ("alertmanager", samples.alertmanager(samples.ALERT, {}), "event 1: type: "),
            ("alertmanager", samples.alertmanager(None), "event 0: type: "),  # type: ignore[arg-type]
            ("standard", None, "event 0: id: the request has no value for '{header.webhook-id}'"),
        ],
    )
    def test_a_payload_without_a_required_value_is_rejected_by_name(self, name: str, body: Any, problem: str) -> None:
        with pytest.raises(InvalidRequest) as refused:
            events(name, body)
        assert str(refused.value).startswith(problem)


LONG_EVENT = "X-GitHub-Event: " + "x" * 70
OWN = """
[gitea]
type = "gitea.{header.X-Gitea-Event}"
data = { message = "{commits.0.message}" }
level = [{ of = "{state}", is = "bad", level = "error" }]

[github]
type = "own.github"
"""


class TestFilesOfOperators:
    def test_a_file_adds_mappings_and_replaces_shipped_ones(self, tmp_path: Path) -> None:
        file = tmp_path / "own.toml"
        file.write_text(OWN)
        tables = mapping_file.load(file)

        assert set(tables) == {"alertmanager", "gitea", "github", "grafana", "standard"}
        (event,) = tables["gitea"].events(
            Payload("t", "s", {"x-gitea-event": "push"}, {"commits": [{"message": "Fix"}], "state": "bad"})
        )
        assert event == {"event_type": "gitea.push", "source": "s", "data": {"message": "Fix", "level": "error"}}
        assert tables["github"].events(Payload("t", "s", {}, None))[0]["event_type"] == "own.github"

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("[a", "is not TOML"),
            ("a = 1", "a: must be a table, [a]"),
            ("[a]\nsource = 'x'", "a.type: Field required"),
            ("[a]\ntype = 1", "a.type: must be text"),
            ("[a]\ntype = 'x.{y'", "a.type: must have places like {a.b} or [ in {a.b}], got 'x.{y'"),
            ("[a]\ntype = 'x.y'\ndate = 1", "a.date: is an unknown field"),
            ("[a]\ntype = 'x.y'\nsignature = 'rsa'", "a.signature: Input should be"),
            ("[a]\ntype = 'x.y'\nlevel = [{ level = 'fatal' }]", "a.level.0.level: Input should be"),
            ("[a]\ntype = 'x.y'\n[a.data]\nmessage = ['x']", "a.data.message: must be text"),
            ("#" * (2**20 + 1), "must have at most 1,048,576 bytes"),
        ],
    )  # fmt: skip
    def test_a_mistake_in_a_file_names_table_and_field_before_the_port_opens(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, problem: str
    ) -> None:
        file = tmp_path / "own.toml"
        file.write_text(content)
        monkeypatch.setenv("OUTFEED_INCOMING_MAPPINGS", str(file))
        settings, checks = config.load(), [feature.check for feature in registered()]
        with pytest.raises(ConfigError) as refused:
            [check(settings) for check in checks]
        assert str(refused.value).startswith(f"OUTFEED_INCOMING_MAPPINGS: {file}: {problem}")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no\.toml: No such file"):
            mapping_file.load(tmp_path / "no.toml")


class TestCommands:
    def test_list_shows_every_mapping(self, outfeed: Any) -> None:
        output = outfeed("mapping", "list").output
        assert all(name in output for name in ("github", "alertmanager", "grafana", "standard"))
        assert output.endswith("There are 4 mappings.\n")

    def test_check_shows_the_events_of_a_sample_and_writes_none(
        self, outfeed: Any, database: Database, tmp_path: Path
    ) -> None:
        file = tmp_path / "payload.json"
        file.write_text(json.dumps(samples.alertmanager(samples.ALERT, {**samples.ALERT, "status": "resolved"})))

        done = outfeed("mapping", "check", "alertmanager", file, "--topic", "alert")

        assert [json.loads(line)["event_type"] for line in done.stdout.splitlines()] == [
            "alert.firing",
            "alert.resolved",
        ]
        assert done.stderr == "The mapping alertmanager makes 2 events. Nothing was written.\n"
        assert list_events() == []

    def test_check_uses_headers_and_a_file_that_is_not_yet_in_use(self, outfeed: Any, tmp_path: Path) -> None:
        payload, own = tmp_path / "payload.json", tmp_path / "own.toml"
        payload.write_text("{}")
        own.write_text(OWN)

        done = outfeed("mapping", "check", "gitea", payload, "--file", own, "--header", "X-Gitea-Event: push")

        assert json.loads(done.stdout)["event_type"] == "gitea.push"

    @pytest.mark.parametrize(
        ("arguments", "payload", "problem"),
        [
            (("nothing",), "{}", "mapping 'nothing' not found"),
            (("github",), "{", "is not JSON"),
            (("github",), "[" * 100_000, "is not JSON"),
            (("github",), "{}", "event 0: type: the request has no value"),
            (("github", "--header", LONG_EVENT, "--header", "X-GitHub-Delivery: 1"), "{}", "event_type: "),
        ],
    )  # fmt: skip
    def test_check_fails_with_the_reason(
        self, outfeed: Any, tmp_path: Path, arguments: tuple[str, ...], payload: str, problem: str
    ) -> None:
        file = tmp_path / "payload.json"
        file.write_text(payload)

        failed = outfeed("mapping", "check", arguments[0], file, *arguments[1:])

        assert (failed.exit_code, failed.stdout) == (1, "")
        assert problem in failed.stderr

    def test_a_header_without_a_colon_is_a_usage_error(self, outfeed: Any, tmp_path: Path) -> None:
        (tmp_path / "p").write_text("{}")
        assert outfeed("mapping", "check", "github", tmp_path / "p", "--header", "push").exit_code == 2
