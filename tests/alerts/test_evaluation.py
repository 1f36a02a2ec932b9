"""Evaluation: conditions and clocks, on a clock of the test's own."""

from __future__ import annotations

import pytest

from outfeed.store.database import Database
from tests.alerts.simulated import AlertEvent, SimulatedAlerts, saved_progress


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

    def test_an_event_before_the_first_evaluation_of_a_rule_raises(self, alerts: SimulatedAlerts) -> None:
        alerts.add("errors", "type:a.b")
        alerts.write()
        alerts.pass_secs(1)
        alerts.evaluate()
        assert alerts.kinds() == ["raised"]

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
        alerts.evaluate()
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

    def test_an_event_about_an_alert_never_matches(self, alerts: SimulatedAlerts) -> None:
        alerts.add("all", "-type:access.*")
        alerts.add_absence("none", 60, "type:alert.*")
        alerts.evaluate()
        alerts.write(event_type="alert.raised")
        alerts.run_for(59)
        assert alerts.events() == []
        alerts.write()
        alerts.run_for(2)
        assert alerts.events() == [AlertEvent("raised", "all", 1), AlertEvent("raised", "none", 0)]

    def test_a_burst_of_many_pages_has_bounded_results(self, alerts: SimulatedAlerts) -> None:
        alerts.add("any", "type:a.b", pause_secs=60)
        alerts.add_count("many", 1_000, 60, "type:a.b")
        alerts.write(3_000)
        alerts.evaluate()
        assert sorted(alerts.events()) == [AlertEvent("raised", "any", 1), AlertEvent("raised", "many", 1_001)]
        alerts.stop()
        assert max(map(len, saved_progress(alerts.database.path))) < 1000
        alerts.run_for(61)
        assert sorted(alerts.events()[2:]) == [AlertEvent("cleared", "many", 0), AlertEvent("raised", "any", 2_999)]


class TestClocks:
    """A rule of each kind, after a while in which nothing has happened."""

    @pytest.fixture
    def alerts(self, alerts: SimulatedAlerts) -> SimulatedAlerts:
        alerts.add_count("burst", 5, 60, "type:a.b")
        alerts.add_absence("quiet", 60, "type:tick.tock")
        alerts.run_for(1)
        return alerts

    @staticmethod
    def tick_for(alerts: SimulatedAlerts, secs: int) -> None:
        for _ in range(secs // 10):
            alerts.write(event_type="tick.tock")
            alerts.run_for(10)

    @pytest.mark.parametrize("step", [-86_400, -60, -3, 3, 60, 86_400])
    @pytest.mark.parametrize("is_running", [True, False])
    def test_a_clock_step_neither_raises_nor_clears(self, alerts: SimulatedAlerts, step: int, is_running: bool) -> None:
        self.tick_for(alerts, 30)
        alerts.write(3, event_type="a.b")
        alerts.evaluate()
        if not is_running:
            alerts.stop()
        alerts.write(1, event_type="a.b")
        alerts.wall += step
        alerts.write(1, event_type="a.b")
        alerts.run_for(1)
        self.tick_for(alerts, 100)
        assert alerts.events() == []
        alerts.write(6, event_type="a.b")
        alerts.evaluate()
        assert alerts.events() == [AlertEvent("raised", "burst", 6)]
        alerts.wall += step
        alerts.run_for(59)
        assert alerts.kinds() == ["raised"]
        alerts.run_for(2)
        assert alerts.events()[1:] == [AlertEvent("cleared", "burst", 0), AlertEvent("raised", "quiet", 0)]

    def test_the_time_of_a_suspended_machine_counts(self, alerts: SimulatedAlerts) -> None:
        self.tick_for(alerts, 20)
        alerts.write(4, event_type="a.b")
        alerts.evaluate()
        alerts.pass_secs(3600)  # the boot clock runs through suspend
        alerts.write(4, event_type="a.b")
        alerts.evaluate()
        assert alerts.events() == [AlertEvent("raised", "quiet", 0)]

    def test_an_absence_is_decided_a_window_after_a_restart(self, alerts: SimulatedAlerts) -> None:
        self.tick_for(alerts, 20)
        alerts.crash()
        alerts.pass_secs(600)
        alerts.run_for(59)
        assert alerts.events() == []
        alerts.run_for(2)
        assert alerts.events() == [AlertEvent("raised", "quiet", 0)]

    def test_an_absence_is_decided_only_at_the_head(self, alerts: SimulatedAlerts) -> None:
        self.tick_for(alerts, 20)
        alerts.pass_secs(60)
        alerts.write(1500, event_type="other.type")  # more than a page
        alerts.write(event_type="tick.tock")
        alerts.evaluate()
        assert alerts.events() == []

    def test_a_count_goes_on_after_a_restart(self, alerts: SimulatedAlerts) -> None:
        alerts.write(3, event_type="a.b")
        alerts.evaluate()
        alerts.crash()
        alerts.pass_secs(20)
        alerts.write(3, event_type="a.b")
        alerts.evaluate()
        assert alerts.events() == [AlertEvent("raised", "burst", 6)]

    def test_events_of_a_long_downtime_are_counted_at_their_own_times(self, alerts: SimulatedAlerts) -> None:
        alerts.stop()
        for _ in range(10):
            alerts.write(2, event_type="a.b")
            alerts.pass_secs(40)
        alerts.evaluate()
        assert alerts.events() == []

    def test_the_windows_begin_again_after_a_restart_of_the_machine(self, alerts: SimulatedAlerts) -> None:
        alerts.write(3, event_type="a.b")
        alerts.evaluate()
        alerts.stop()
        alerts.boot_id, alerts.boot = "second", 5.0
        alerts.wall += 5
        alerts.write(3, event_type="a.b")
        alerts.evaluate()
        assert alerts.events() == []
        alerts.write(6, event_type="a.b")
        alerts.run_for(1)
        assert alerts.events() == [AlertEvent("raised", "burst", 6)]
