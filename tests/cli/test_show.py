"""The output of results."""

import time

import pytest

from outfeed.cli import show
from outfeed.events import Event


def event(**fields):
    empty = dict.fromkeys(("task_id", "agent_id", "data"))
    base = {"id": "1", "event_type": "system.info", "source": "tests", "timestamp": "2024-01-15T10:30:00.000Z"}
    return Event(**{**empty, **base, **fields})


@pytest.mark.parametrize(
    "timestamp", ["", "yesterday", "2024-13-45", "9999-12-31T23:59:59-12:00", "\x1b[2J", None, 1705314600, "x" * 500]
)
def test_every_timestamp_gives_a_line(timestamp):
    line = show.event_line(event(timestamp=timestamp, data={"message": "hello"}), {})

    assert "hello" in line
    assert "\x1b[2J" not in line
    assert len(line) < 100


def test_times_are_local(monkeypatch):
    line = show.event_line(event(), {})

    from datetime import UTC, datetime

    local = datetime(2024, 1, 15, 10, 30, tzinfo=UTC).astimezone()
    assert f"{local:%Y-%m-%d %H:%M:%S}" in line


@pytest.mark.parametrize("timestamp", ["2024-01-15 10:30:00", "2024-01-15T12:30:00+02:00", "2024-01-15t10:30:00z"])
def test_a_raw_timestamp_is_shown_as_its_instant(monkeypatch, timestamp):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    line = show.event_line(event(timestamp=timestamp), {})
    monkeypatch.undo()
    time.tzset()

    assert "2024-01-15 19:30:00" in line


@pytest.mark.parametrize(
    ("source", "data", "event_type"),
    [(None, None, "task.created"), ("s", [1, 2], "bid.submitted"), ("s", "text", "their.own"), ("", {}, "")],
)
def test_an_odd_event_has_a_line(source, data, event_type):
    assert show.event_line(event(source=source, data=data, event_type=event_type), {})


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 events"), (1, "1 event"), (2, "2 events"), (1_200_000, "1,200,000 events")]
)
def test_a_count_has_the_right_plural(number, text):
    assert show.count(number, "event") == text


def test_json_is_ascii_on_one_line():
    text = show.as_json({"a": "Füße\n\x1b\u2028"})

    assert text.isascii()
    assert text.isprintable()
