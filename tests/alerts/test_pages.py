"""The API of alerts and their pages."""

from __future__ import annotations

import pytest
from flask import Flask

from outfeed.access.store import account
from outfeed.alerts.store import rules
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.store.database import Database
from tests.alerts.simulated import SimulatedAlerts
from tests.database_file import write_events
from tests.http.visitors import Visit, bearer, show_tokens_and_names, signed_in, text_of

COUNT = {"condition": "count", "threshold": "3", "window": "10m", "pause": "5m", "query": "type:a.b", "targets": ""}


@pytest.fixture
def app(database: Database) -> Flask:
    app = create_app(Settings(database=database.path))
    show_tokens_and_names(app)
    return app


@pytest.fixture
def operator(app: Flask, database: Database) -> Visit:
    return signed_in(app, database)


@pytest.fixture
def program(app: Flask, database: Database) -> Visit:
    return bearer(app, account.create_token(database, "ops", ["admin"]))


class TestApi:
    def test_an_alert_is_added_changed_paused_and_removed(self, program: Visit, database: Database) -> None:
        new = {"name": "errors", "query": "type:a.b  -source:ci", "condition": "count", "threshold": 3}
        added = program("POST", "/api/alerts", json={**new, "window_secs": 600})
        assert added.status_code == 201
        assert added.json is not None
        assert (added.json["state"], added.json["query"]) == ("ok", "type:a.b -source:ci")
        assert program("POST", "/api/alerts", json={**new, "window_secs": 600}).status_code == 409
        changed = program("PUT", "/api/alerts/errors", json={"query": "type:c.d", "pause_secs": 60})
        assert changed.json is not None
        assert (changed.json["condition"], changed.json["pause_secs"]) == ("any", 60)
        assert program("POST", "/api/alerts/errors/pause").json["is_paused"] is True  # type: ignore[index]
        assert program("POST", "/api/alerts/errors/resume").json["is_paused"] is False  # type: ignore[index]
        listed = program("GET", "/api/alerts").json
        assert listed is not None
        assert [each["name"] for each in listed["alerts"]] == ["errors"]
        assert program("DELETE", "/api/alerts/errors").json == {"alerts": []}
        with database.connection() as connection:
            sql = (
                "SELECT event_type, json_extract(data, '$.by') FROM event_log"
                " WHERE event_type GLOB 'access.alert*' ORDER BY rowid"
            )
            found = connection.execute(sql).fetchall()
        assert {by for _, by in found} == {"token:ops"}
        assert [kind.removeprefix("access.alert_") for kind, _ in found] == [
            "added", "changed", "paused", "resumed", "removed"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"query": "out of memory"}, "query: a rule can't search for text"),
            ({"query": "type:a.b since:1h"}, "query: a rule has no since: and until:"),
            ({"query": "typ:a.b"}, "query: Unknown filter typ"),
            ({"condition": "count", "threshold": 0, "window_secs": 60}, "threshold: must be 1 to"),
            ({"condition": "absence"}, "window: must be 10 to"),
            ({"window_secs": 60}, "window: this condition has none"),
            ({"targets": ["nowhere"]}, "targets: there is no target 'nowhere'"),
            ({"name": "a b"}, "name: a name has up to 55 letters"),
        ],
    )
    def test_an_invalid_alert_is_refused_with_the_field(
        self, program: Visit, fields: dict[str, object], problem: str
    ) -> None:
        refused = program("POST", "/api/alerts", json={"name": "errors", **fields})
        assert refused.status_code == 422
        assert problem in refused.text

    def test_a_trial_says_how_often_the_alert_would_have_been_raised(self, program: Visit, database: Database) -> None:
        write_events(database.path, 4)
        wanted = {"query": "type:a.b", "condition": "count", "threshold": 3, "window_secs": 60, "days": 1}
        found = program("POST", "/api/alerts/trial", json=wanted).json
        assert found is not None
        assert (found["raises"], found["matches"]) == (1, 4)
        assert found["summary"].startswith("Would have raised once since")
        assert found["limit"] == "where the outbox begins"

    def test_an_alert_shows_its_notices(self, program: Visit, database: Database) -> None:
        alerts = SimulatedAlerts(database)
        alerts.add("errors", "type:a.b", targets=("ops",))
        alerts.write()
        alerts.evaluate()
        found = program("GET", "/api/alerts/errors").json
        assert found is not None
        assert [(each["kind"], each["target"], each["state"]) for each in found["notices"]] == [
            ("raised", "ops", "waiting")
        ]


class TestPages:
    def test_the_form_tries_an_alert_and_adds_it(self, operator: Visit, database: Database) -> None:
        write_events(database.path, 4)
        tried = operator("POST", "/admin/alerts", data={**COUNT, "try": "yes"})
        assert "Would have raised once" in text_of(tried)
        assert 'value="10m"' in tried.text
        assert rules.list_alerts(database) == []
        added = operator("POST", "/admin/alerts", data={**COUNT, "name": "errors"})
        assert added.status_code == 303
        (alert,) = rules.list_alerts(database)
        assert alert.rule.when == "more than 3 events in 10 min"
        page = operator("GET", "/admin/alerts")
        assert "The alert errors is active: more than 3 events in 10 min." in text_of(page)
        assert "1" in text_of(operator("GET", "/admin"))

    def test_an_invalid_form_names_each_field(self, operator: Visit) -> None:
        page = operator("POST", "/admin/alerts", data={**COUNT, "name": "errors", "query": "lost", "window": "soon"})
        assert page.status_code == 422
        assert "can't search for text" in text_of(page)
        assert "must be a duration such as 90s" in text_of(page)

    def test_an_alert_is_changed_paused_and_removed(self, operator: Visit, database: Database) -> None:
        alerts = SimulatedAlerts(database)
        alerts.add("errors", "type:a.b", targets=())
        alerts.write()
        alerts.evaluate()
        page = operator("GET", "/admin/alerts/rule/errors")
        assert "State raised Raises at any event Raised once the last time" in text_of(page)
        assert '<span class="badge" data-state="bad">raised</span>' in page.text
        assert 'action="/admin/alerts/pause"' in page.text
        assert "errors raised any event type:a.b none once" in text_of(operator("GET", "/admin/alerts"))
        changed = operator("POST", "/admin/alerts/rule/errors", data=COUNT)
        assert changed.status_code == 303
        assert rules.find(database, "errors").rule.threshold == 3
        assert operator("POST", "/admin/alerts/pause", data={"name": "errors"}).status_code == 303
        assert rules.find(database, "errors").is_paused
        paused = operator("GET", "/admin/alerts/rule/errors").text
        assert '<span class="badge" data-state="off">paused</span>' in paused
        assert 'action="/admin/alerts/resume"' in paused
        assert operator("POST", "/admin/alerts/resume", data={"name": "errors"}).status_code == 303
        asked = operator("POST", "/admin/alerts/remove", data={"name": "errors"})
        assert "Remove the alert errors?" in text_of(asked)
        assert rules.list_alerts(database)
        operator("POST", "/admin/alerts/remove", data={"name": "errors", "confirmed": "yes"})
        assert rules.list_alerts(database) == []

    def test_the_status_page_shows_alerts_and_failing_targets(self, operator: Visit, database: Database) -> None:
        assert "No alerts yet" in text_of(operator("GET", "/status"))
        alerts = SimulatedAlerts(database)
        alerts.add("errors", "type:a.b", targets=("ops",))
        alerts.write()
        alerts.evaluate()
        with database.transaction() as connection:
            connection.execute("UPDATE outfeed_alert_notice SET attempts = 1, last_error = 'no route'")
        shown = text_of(operator("GET", "/status"))
        assert "errors raised any event 1" in shown
        assert "The target ops does not accept notices, and 1 waits: no route" in shown
