"""`outfeed alert` and the findings of `outfeed doctor`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outfeed.alerts.store import past, rules
from outfeed.store.database import Database
from tests.alerts.simulated import SimulatedAlerts
from tests.database_file import write_events


def test_alerts_are_added_listed_changed_and_removed(outfeed: Any, database: Database) -> None:
    assert "Alert errors is active: any event." in outfeed("alert", "add", "errors", "type:system.error").output
    added = outfeed(
        "alert", "add", "slow", "type:a.b data.status:504", "--more-than", 20, "--in", "10m", "--pause", "1h"
    )
    assert "more than 20 events in 10 min" in added.output
    assert "no event for 25 h" in outfeed("alert", "add", "backup", "type:c.d", "--nothing-for", "25h").output
    listed = json.loads(outfeed("alert", "list", "--json").output)
    assert [(each["name"], each["condition"], each["state"]) for each in listed] == [
        ("backup", "absence", "ok"), ("errors", "any", "ok"), ("slow", "count", "ok")
    ]  # fmt: skip
    assert "There are 3 alerts." in outfeed("alert", "list").output
    assert (
        "changed: more than 5 events in 1 min"
        in outfeed("alert", "edit", "errors", "--more-than", 5, "--in", "60s", "--query", "type:e.f").output
    )
    found = rules.find(database, "errors").rule
    assert (found.query, found.threshold, found.pause_secs) == ("type:e.f", 5, 300)
    assert "changed: any event" in outfeed("alert", "edit", "errors", "--any").output
    assert "is paused" in outfeed("alert", "pause", "errors").output
    assert "paused" in outfeed("alert", "list").output
    assert "is active" in outfeed("alert", "resume", "errors").output
    assert "There are 0 notices." in outfeed("alert", "show", "errors").output
    assert "Removed alert errors" in outfeed("alert", "remove", "errors").output
    assert outfeed("alert", "remove", "errors").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["out of memory"], "a rule can't search for text"),
        (["type:a.b until:1d"], "a rule has no since: and until:"),
        (["", "--more-than", "5"], "--more-than and --in need each other"),
        (["", "--nothing-for", "1h", "--in", "5m"], "--nothing-for excludes"),
        (["", "--more-than", "5", "--in", "soon"], "must be a duration such as"),
        (["", "--more-than", "5", "--in", "1s"], "must be 10 to"),
        (["", "--pause", "1s"], "pause: must be 10 to"),
        (["", "--to", "nowhere"], "there is no target 'nowhere'"),
    ],
)
def test_an_invalid_alert_is_refused_with_the_reason(
    outfeed: Any, database: Database, arguments: list[str], problem: str
) -> None:
    refused = outfeed("alert", "add", "errors", *arguments)
    assert refused.exit_code != 0
    assert problem in " ".join(refused.output.split())
    assert rules.list_alerts(database) == []


def test_a_trial_changes_nothing_and_says_when_it_would_have_raised(outfeed: Any, database: Database) -> None:
    write_events(database.path, 5)
    tried = outfeed("alert", "add", "errors", "type:a.b", "--more-than", 4, "--in", "1m", "--dry-run").output
    assert "Would have raised once since" in tried
    assert "stops where the outbox begins" in tried
    assert rules.list_alerts(database) == []
    outfeed("alert", "add", "errors", "type:a.b")
    outfeed("alert", "add", "others", "type:c.d")
    assert "Would have raised once" in outfeed("alert", "try", "errors", "--days", 1).output
    assert "Would not have raised" in outfeed("alert", "try", "others").output


def test_a_trial_stops_at_its_limits_and_says_so(
    outfeed: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "CHUNK_ROWS", 10)
    monkeypatch.setattr(past, "MAX_MATCHES", 25)
    write_events(database.path, 100)
    outfeed("alert", "add", "errors", "type:a.b")
    assert "stops at the limit of matching events" in outfeed("alert", "try", "errors").output
    monkeypatch.setattr(past, "MAX_SECS", -1.0)
    assert "stops at the time limit" in outfeed("alert", "try", "errors").output


def test_doctor_names_a_failing_target_a_missing_one_and_an_evaluation_that_is_behind(
    outfeed: Any, database: Database
) -> None:
    alerts = SimulatedAlerts(database)
    alerts.add("errors", "type:a.b", targets=("ops",))
    alerts.write()
    alerts.evaluate()
    with database.transaction() as connection:
        connection.execute("UPDATE outfeed_alert_notice SET attempts = 1, last_error = 'connection refused'")
        connection.execute("UPDATE outbox SET created_at = '2026-01-31T12:00:00.000Z'")
    found = outfeed("doctor").output
    assert "the target ops does not accept notices: connection refused" in found
    assert "the alert errors has no target ops" in found
    assert "s behind the events" in found
