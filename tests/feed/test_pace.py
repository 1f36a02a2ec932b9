"""Pace: frames per second, and the time of the next frame."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outfeed.feed.pace import SLACK, Pacer, next_due
from tests.feed.simulated import Simulation, busiest_second
from tests.waits import wait_until

RATES = st.one_of(st.integers(1, 1000).map(float), st.floats(0.1, 1000))
# The delay of each frame, in intervals: mostly small, sometimes after a quiet time.
LATENESS = st.lists(st.one_of(st.just(0.0), st.floats(0, 1.5), st.floats(0, 20)), min_size=30, max_size=300)
START = st.floats(0, 1e7)


def sent(rate: float, lateness: list[float], start: float) -> list[float]:
    """Return the times of frames with these delays, in intervals."""
    due, now, times = 0.0, start, []
    for late in lateness:
        now = max(due, now) + late * SLACK / rate
        times.append(now)
        due = next_due(due, now, rate)
    return times


@settings(max_examples=300, deadline=None)
@given(RATES, LATENESS, START)
def test_no_second_has_more_frames_than_the_rate_even_with_late_ticks(
    rate: float, lateness: list[float], start: float
) -> None:
    assert busiest_second(sent(rate, lateness, start)) <= math.ceil(rate)


@settings(max_examples=300, deadline=None)
@given(RATES, LATENESS, START)
def test_no_frame_waits_longer_than_two_intervals(rate: float, lateness: list[float], start: float) -> None:
    due, now = 0.0, start
    for late in lateness:
        now = max(due, now) + late * SLACK / rate
        due = next_due(due, now, rate)
        assert now < due <= now + 2 * SLACK / rate + 1e-6


@settings(max_examples=300, deadline=None)
@given(RATES, START, START, st.floats(0, 3), st.floats(0, 3))
def test_all_clients_of_one_rate_send_together_after_any_start(
    rate: float, one: float, other: float, late: float, later: float
) -> None:
    interval = SLACK / rate
    intervals = (
        next_due(one, one + late * interval, rate) - next_due(other, other + later * interval, rate)
    ) / interval
    assert abs(intervals - round(intervals)) < 1e-3


@pytest.mark.parametrize("rate", [1, 10, 1000])
def test_punctual_frames_are_sent_at_every_interval(rate: int) -> None:
    times = sent(rate, [0.0] * 50, start=1000.0)
    assert max(b - a for a, b in itertools.pairwise(times[1:])) == pytest.approx(SLACK / rate, rel=1e-3)


class PlannedCalls:
    """The times of a pacer's calls."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.pacer = Pacer()

    def note(self) -> None:
        self.times.append(time.monotonic())


@pytest.fixture
def calls() -> Iterator[PlannedCalls]:
    found = PlannedCalls()
    found.pacer.start(found.note)
    yield found
    found.pacer.stop()


def test_a_pacer_calls_when_it_is_due_and_never_before(calls: PlannedCalls) -> None:
    due = time.monotonic() + 0.05
    calls.pacer.plan(due)
    wait_until(lambda: calls.times, "a call")
    assert calls.times[0] >= due


def test_an_earlier_plan_comes_first_and_a_later_one_changes_nothing(calls: PlannedCalls) -> None:
    began = time.monotonic()
    calls.pacer.plan(began + 60)
    calls.pacer.plan(began + 0.02)
    calls.pacer.plan(began + 120)
    wait_until(lambda: calls.times, "a call")
    assert len(calls.times) == 1


def test_a_plan_made_during_a_call_is_kept() -> None:
    done = threading.Event()
    calls_made: list[int] = []

    def note() -> None:
        calls_made.append(1)
        pacer.plan(0) if len(calls_made) < 50 else done.set()

    pacer = Pacer()
    pacer.start(note)
    pacer.plan(0)
    assert done.wait(5)
    pacer.stop()
    assert len(calls_made) == 50


def test_a_pacer_without_a_plan_uses_no_cpu(calls: PlannedCalls) -> None:
    calls.pacer.plan(0)
    wait_until(lambda: calls.times, "a call")
    before = time.process_time()
    assert not threading.Event().wait(0.3)
    assert time.process_time() - before < 0.05
    assert len(calls.times) == 1


def test_a_pacer_with_a_plan_stops(calls: PlannedCalls) -> None:
    calls.pacer.plan(time.monotonic() + 3600)


def test_an_event_that_is_erased_before_a_paced_client_reaches_it_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(monkeypatch)
    simulation.source.add(30)
    simulation.relay.poll()
    simulation.core.forget()  # so that it reads a page of its own
    viewer = simulation.join(after=0, rate=10)
    simulation.run(1)
    assert 2 <= len(viewer.seqs()) <= 15
    simulation.source.items = [item for item in simulation.source.items if item.seq != 20]
    simulation.core.forget()
    simulation.run(10)
    assert viewer.seqs() == [seq for seq in range(1, 31) if seq != 20]
    assert busiest_second(viewer.times()) <= 10
