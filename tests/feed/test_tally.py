"""The tally: how long polls and deliveries take, of late."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from outfeed import clock
from outfeed.feed import tally
from outfeed.feed.tally import Spread, Tally, Timings
from outfeed.history import Page
from tests.feed.scene import Client, Feed, StagedSource


def test_of_nothing_there_is_no_spread() -> None:
    assert Timings().recent() == Spread(0, None, None)


def test_the_spread_is_that_of_the_newest_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    timings, now = Timings(), [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    timings.note(60)
    now[0] = tally.RECENT_SECS + 1
    for hundredths in range(100, 0, -1):
        timings.note(hundredths / 100)
    assert timings.recent() == Spread(100, 0.5, 0.99)
    for _ in range(tally.RECENT_SAMPLES):
        timings.note(0.25)
    assert timings.recent() == Spread(tally.RECENT_SAMPLES, 0.25, 0.25)
    assert timings.count == 101 + tally.RECENT_SAMPLES
    assert timings.total_secs == pytest.approx(60 + 50.5 + tally.RECENT_SAMPLES / 4)


@pytest.mark.parametrize("written_at", [None, "a time", 5, b"x"])
def test_a_row_without_a_time_says_nothing(written_at: Any) -> None:
    found = Tally()
    found.note_delivery(written_at, 0)
    assert found.deliveries.count == 0


def test_what_a_clock_set_back_makes_of_a_delivery_is_no_time_at_all() -> None:
    found = Tally()
    found.note_delivery(clock.isoformat(clock.now() + timedelta(hours=1)), 0)
    assert found.deliveries.recent() == Spread(1, 0, 0)


def test_a_delivery_is_late_by_no_more_than_the_time_since_someone_might_be_sent_it() -> None:
    found = Tally()
    found.note_delivery(clock.isoformat(clock.now() - timedelta(hours=1)), clock.monotonic() - 5)
    assert found.deliveries.total_secs == pytest.approx(5, abs=1)
    found.note_delivery(clock.isoformat(clock.now() - timedelta(hours=1)), clock.monotonic() + 5)
    found.note_delivery(clock.isoformat(clock.now() - timedelta(hours=1)), math.inf)
    assert found.deliveries.count == 1


class AgedSource(StagedSource):
    """A source whose rows were written a while ago."""

    def read_after(self, seq: int, limit: int) -> Page:
        page = super().read_after(seq, limit)
        return page._replace(written_at=clock.isoformat(clock.now() - timedelta(seconds=2)) if page.items else None)


def test_the_relay_notes_each_poll_and_how_long_each_page_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    feed = Feed(AgedSource())
    feed.relay.poll()
    assert (feed.relay.tally.polls.count, feed.relay.tally.deliveries.count) == (1, 0)
    with Client(feed) as client:
        client.subscribe()
        feed.write(3)
    assert (feed.relay.tally.polls.count, feed.relay.tally.deliveries.count) == (2, 1)
    assert feed.relay.tally.deliveries.total_secs == pytest.approx(2, abs=0.001)
