"""Parked: the times of requests that wait without a thread."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from outfeed.http.admission import Admission, AdmissionSlot
from outfeed.http.server.parked import ParkedConnections, ParkedRequest


@pytest.fixture
def parked() -> ParkedConnections[str]:
    return ParkedConnections()


def new(on_woken: Callable[[ParkedRequest], None] = lambda _: None) -> ParkedRequest:
    return ParkedRequest(
        None, AdmissionSlot(Admission(1, 1), "192.0.2.1"), not_before=9.0, deadline=5.0, on_woken=on_woken
    )


def test_a_request_is_overdue_when_its_time_has_come(parked: ParkedConnections[str]) -> None:
    assert (parked.next_time(), parked.overdue(1e9)) == (math.inf, [])
    for name, at in (("late", 5.0), ("early", 3.0), ("twin", 3.0)):
        parked.put(new(), name, at)
    assert (parked.next_time(), parked.overdue(2.9)) == (3.0, [])
    assert parked.overdue(3.0) == ["early", "twin"]
    assert parked.overdue(math.inf) == ["late", "early", "twin"]


def test_a_time_can_change_in_both_directions(parked: ParkedConnections[str]) -> None:
    first, second = new(), new()
    parked.put(first, "first", 5.0)
    parked.put(second, "second", 7.0)
    parked.put(second, "second", 4.0)
    assert (parked.next_time(), parked.overdue(4.0)) == (4.0, ["second"])
    parked.put(second, "second", 9.0)
    assert (parked.next_time(), parked.overdue(5.0)) == (5.0, ["first"])
    parked.remove(first)
    assert (parked.next_time(), parked.overdue(8.0), len(parked)) == (9.0, [], 1)
    assert (parked.get(first), parked.get(second)) == (None, "second")


def test_many_short_waits_leave_nothing_behind(parked: ParkedConnections[str]) -> None:
    """A client that asks again at once leaves one time after the other."""
    parked.put(lasting := new(), "lasting", 50.0)
    size = 0
    for _ in range(1000):
        parked.put(short := new(), "short", 60.0)
        parked.remove(short)
        size = max(size, parked.times)
    assert size < 100
    assert (parked.next_time(), parked.get(lasting)) == (50.0, "lasting")


def test_a_woken_request_is_reported_once_for_each_call_and_keeps_its_limits() -> None:
    found: list[ParkedRequest] = []
    request = new(found.append)
    assert (request.is_woken, request.not_before) == (False, request.deadline)
    request.set()
    assert (request.is_woken, found) == (True, [request])
