"""Evaluation: conditions, clocks, gaps and crashes, on a clock of the test's own."""

from __future__ import annotations

import pytest

from outfeed.store.database import Database
from tests.alerts.simulated import AlertEvent, SimulatedAlerts


@pytest.fixture
def alerts(database: Database) -> SimulatedAlerts:
    return SimulatedAlerts(database)


class TestConditions:
    def test_a_match_raises_and_a_pause_without_one_clears(self, alerts: SimulatedAlerts) -> None:
        alerts.add("errors", "type:system.error", pause_secs=60)
        alerts.write(event_type="a.b")
        alerts.evaluate()
        assert alerts.events() == []
        alerts.write(event_type="system.error")
        alerts.evaluate()
        assert alerts.events() == [AlertEvent("raised", "errors", 1)]
        alerts.run_for(59)
        assert alerts.kinds() == ["raised"]
        alerts.run_for(1)
        assert alerts.kinds() == ["raised", "cleared"]

    def test_matches_within_the_pause_are_reported_at_its_end(self, alerts: SimulatedAlerts) -> None:
        alerts.add("errors", pause_secs=60)
        alerts.write()
        alerts.evaluate()
        for _ in range(5):
            alerts.run_for(5)
            alerts.write(3)
        alerts.run_for(35)
        assert alerts.events() == [AlertEvent("raised", "errors", 1), AlertEvent("raised", "errors", 15)]

    def test_more_than_the_threshold_in_the_window_raises(self, alerts: SimulatedAlerts) -> None:
        alerts.add_count("burst", 3, 60)
        for _ in range(3):
            alerts.write()
            alerts.run_for(10)
        assert alerts.events() == []
        alerts.write()
        alerts.evaluate()
        assert alerts.events() == [AlertEvent("raised", "burst", 4)]
        alerts.run_for(29)
        assert alerts.kinds() == ["raised"]
        alerts.run_for(1)
        assert alerts.kinds() == ["raised", "cleared"]

    def test_events_that_come_slowly_never_exceed_the_threshold(self, alerts: SimulatedAlerts) -> None:
        alerts.add_count("burst", 3, 60)
        for _ in range(20):
            alerts.write()
            alerts.run_for(20)
        assert alerts.events() == []

    def test_no_event_for_the_window_raises_and_the_next_one_clears(self, alerts: SimulatedAlerts) -> None:
        alerts.add_absence("backup", 60, "type:backup.done")
        alerts.run_for(59)
        alerts.write(event_type="other.type")
        assert alerts.events() == []
        alerts.run_for(2)
        assert alerts.kinds() == ["raised"]
        alerts.run_for(100)
        assert alerts.kinds() == ["raised"]
        alerts.write(event_type="backup.done")
        alerts.run_for(1)
        assert alerts.kinds() == ["raised", "cleared"]
