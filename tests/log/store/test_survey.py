"""Surveys: bars of equal width that cover the period, at bounded work."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outfeed.log.store.survey import MAX_BARS, bars_of

FIRST = datetime(2026, 1, 31, 12, tzinfo=UTC)


def texts(secs: list[int]) -> list[str]:
    return sorted(f"{FIRST + timedelta(seconds=each):%Y-%m-%dT%H:%M:%S}" for each in secs)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_each_time_is_in_one_bar(secs: list[int], failed: int) -> None:
    bars = bars_of(texts(secs), texts(secs[:failed]), None, None)
    assert sum(bar.count for bar in bars) == len(secs)
    assert sum(bar.failed for bar in bars) == min(failed, len(secs))
    assert len(bars) <= MAX_BARS + 1
    assert len({bar.end - bar.start for bar in bars}) == 1
    assert all(before.end == after.start for before, after in itertools.pairwise(bars))


@pytest.mark.parametrize(
    ("span", "width"),
    [
        (timedelta(seconds=50), timedelta(seconds=1)),
        (timedelta(minutes=15), timedelta(seconds=30)),
        (timedelta(hours=24), timedelta(minutes=30)),
        (timedelta(days=7), timedelta(hours=3)),
        (timedelta(days=365), timedelta(days=7)),
    ],
)
def test_the_width_of_the_bars_follows_the_period(span: timedelta, width: timedelta) -> None:
    bars = bars_of(texts([1]), [], FIRST, FIRST + span)
    assert bars[0].end - bars[0].start == width
    assert bars[0].start <= FIRST
    assert bars[-1].end > FIRST + span


def test_no_time_and_a_reversed_period_have_no_bars() -> None:
    assert bars_of([], [], None, None) == []
    assert bars_of(texts([1]), [], FIRST, FIRST - timedelta(days=1)) == []


def test_the_ends_of_the_calendar_have_bars() -> None:
    assert bars_of(["0001-01-01T00:00:00", "9998-12-31T23:59:59"], [], None, None)[0].count == 1
