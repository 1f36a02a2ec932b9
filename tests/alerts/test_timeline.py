"""The timeline: it never goes back, and no event lies outside of it."""

from __future__ import annotations

from outfeed.alerts.timeline import STEP_SECS, Timeline
from outfeed.clock import Reading

BEGIN = Timeline.starting(Reading(1000.0, 50.0, "first"))


def test_it_follows_the_boot_clock_and_notices_a_step_of_the_wall_clock() -> None:
    later = BEGIN.moved_to(Reading(1010.0, 60.0, "first"))
    assert (later.now, later.is_stepped) == (1010, False)
    for step in (-500.0, 500.0):
        stepped = later.moved_to(Reading(1020.0 + step, 70.0, "first"))
        assert (stepped.now, stepped.is_stepped) == (1020, True)
        assert stepped.moved_to(Reading(1030.0 + step, 80.0, "first")).is_stepped is False
    assert later.moved_to(Reading(1020.0 + STEP_SECS / 2, 70.0, "first")).is_stepped is False


def test_it_goes_on_by_the_wall_clock_after_a_restart_of_the_machine_and_never_back() -> None:
    assert BEGIN.moved_to(Reading(2000.0, 5.0, "second")).now == 2000
    assert BEGIN.moved_to(Reading(10.0, 5.0, "second")).now == 1000
    assert BEGIN.moved_to(Reading(2000.0, 5.0, "second")).is_stepped is True


def test_an_event_lies_between_the_one_before_and_the_present() -> None:
    present = BEGIN.moved_to(Reading(1100.0, 150.0, "first"))
    first = present.with_event(1050.0)
    assert first.evaluated == 1050
    assert first.with_event(1040.0).evaluated == 1050
    assert first.with_event(None).evaluated == 1050
    assert first.with_event(9999.0).evaluated == 1100
    assert first.with_all_events().evaluated == 1100


def test_an_event_keeps_its_place_after_a_step() -> None:
    stepped = BEGIN.moved_to(Reading(700.0, 150.0, "first"))  # 400 s back, 100 s later
    assert stepped.now == 1100
    assert stepped.with_event(690.0).evaluated == 1090
