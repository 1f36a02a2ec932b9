"""Statistics: durations of polls and deliveries, and sent frames."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from outfeed import clock
from outfeed.feed import stats
from outfeed.feed.stats import FeedStats, LatencyHistogram, Percentiles
from outfeed.history import Page
from outfeed.metrics import Metrics
from tests.feed.fake_source import LockedSource
from tests.feed.samples import counted
from tests.feed.socket_harness import Client, Feed


def test_without_samples_there_are_no_percentiles() -> None:
    assert LatencyHistogram(Metrics().poll_seconds).recent() == Percentiles(0, None, None)


def test_the_percentiles_are_those_of_the_newest_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, now = Metrics(), [0.0]
    timings = LatencyHistogram(metrics.poll_seconds)
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    timings.note(60)
    now[0] = stats.RECENT_SECS + 1
    for hundredths in range(100, 0, -1):
        timings.note(hundredths / 100)
    assert timings.recent() == Percentiles(100, 0.5, 0.99)
    for _ in range(stats.RECENT_SAMPLES):
        timings.note(0.25)
    assert timings.recent() == Percentiles(stats.RECENT_SAMPLES, 0.25, 0.25)
    assert counted(metrics, "poll_seconds_count") == 101 + stats.RECENT_SAMPLES
    assert counted(metrics, "poll_seconds_sum") == pytest.approx(60 + 50.5 + stats.RECENT_SAMPLES / 4)


@pytest.mark.parametrize("written_at", [None, "a time", 5, b"x"])
def test_a_row_without_a_time_is_not_counted(written_at: Any) -> None:
    found = FeedStats(Metrics())
    found.note_delivery(written_at, 0)
    assert counted(found.metrics, "delivery_seconds_count") == 0


def test_a_negative_duration_counts_as_zero() -> None:
    found = FeedStats(Metrics())
    found.note_delivery(clock.isoformat(clock.now() + timedelta(hours=1)), 0)
    assert found.deliveries.recent() == Percentiles(1, 0, 0)


def test_a_delivery_is_late_by_at_most_the_time_since_a_client_was_due() -> None:
    found = FeedStats(Metrics())
    found.note_delivery(clock.isoformat(clock.now() - timedelta(hours=1)), clock.monotonic() - 5)
    assert counted(found.metrics, "delivery_seconds_sum") == pytest.approx(5, abs=1)
    found.note_delivery(clock.isoformat(clock.now() - timedelta(hours=1)), clock.monotonic() + 5)
    found.note_delivery(clock.isoformat(clock.now() - timedelta(hours=1)), math.inf)
    assert counted(found.metrics, "delivery_seconds_count") == 1


class AgedSource(LockedSource):
    """A source whose rows were written in the past."""

    def read_after(self, seq: int, limit: int) -> Page:
        page = super().read_after(seq, limit)
        return page._replace(written_at=clock.isoformat(clock.now() - timedelta(seconds=2)) if page.items else None)


def test_the_relay_notes_the_duration_of_each_poll_and_the_age_of_each_page(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    feed = Feed(AgedSource())
    metrics = feed.hub.stats.metrics
    feed.relay.poll()
    assert (counted(metrics, "poll_seconds_count"), counted(metrics, "delivery_seconds_count")) == (1, 0)
    with Client(feed) as client:
        client.subscribe()
        feed.write(3)
    assert (counted(metrics, "poll_seconds_count"), counted(metrics, "delivery_seconds_count")) == (2, 1)
    assert counted(metrics, "delivery_seconds_sum") == pytest.approx(2, abs=0.001)


def test_sent_frames_are_counted_for_each_client_and_separately_for_each_feed() -> None:
    feed, other = Feed(), Feed()
    with Client(feed) as one, Client(feed) as another:
        one.subscribe()
        another.subscribe()
        feed.write(3)
        size = len(one.socket.recv(1 << 16))
    found = feed.hub.stats.metrics
    assert counted(found, "frames_total", transport="websocket") == 6
    assert 0 < counted(found, "bytes_total", transport="websocket") <= 2 * size
    assert counted(found, "events_total", type="other") == 3
    assert counted(other.hub.stats.metrics, "frames_total", transport="websocket") == 0
