"""The output of results."""

import re
import time
from datetime import timedelta

import click
import pytest
from freezegun import freeze_time
from rich.cells import cell_len

from outfeed import clock
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
    assert len(click.unstyle(line)) < 100


def test_times_are_local(monkeypatch):
    line = show.event_line(event(), {})

    from datetime import UTC, datetime

    local = datetime(2024, 1, 15, 10, 30, tzinfo=UTC).astimezone()
    assert f"{local:%Y-%m-%d %H:%M:%S}" in line


@pytest.mark.parametrize(
    ("event_type", "own"),
    [
        ("system.error", {}),  # ⚠️ and ▶️ have one column in some terminals and two in others
        ("task.started", {"task_id": "0192f0c1-7e57-7a11-8b0c-5ec2e7a1d00d"}),
        ("task.created", {"agent_id": "agent-7", "source": "数据"}),
        ("their.own", {}),
    ],
)
def test_columns_are_aligned_by_display_width(event_type, own):
    line = click.unstyle(show.event_line(event(event_type=event_type, data={"message": "HERE"}, **own), {}))

    time, kind, rest = line[:19], line[21:41], line[43:]
    assert (time[4], time[13], kind.strip()) == ("-", ":", event_type)
    assert rest[:9].strip() == {"system.error": "", "their.own": "", "task.started": "…e7a1d00d"}.get(
        event_type, "agent-7"
    )
    assert "\ufe0f" not in line
    icon = rest[11:].split(" ")[0]
    sentence = rest[11:].index(" ", 2 if cell_len(icon) == 1 else 1) + 1
    assert cell_len(rest[11:][:sentence]) == 3, "the icon has two columns, and a space follows"


def test_a_line_without_a_date_begins_with_the_time():
    line = click.unstyle(show.event_line(event(), {}, has_date=False))

    assert re.fullmatch(r"\d\d:30:00  system\.info .*", line)


def test_the_type_of_a_line_is_not_repeated_in_its_sentence():
    line = click.unstyle(show.event_line(event(event_type="shop.paid", data={"amount": 5}), {}))

    assert line.endswith("  shop.paid                        •  amount=5  tests")


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


@pytest.mark.parametrize(
    ("delta", "text"),
    [({"seconds": -5}, "in 5 s"), ({"seconds": 59}, "59 s ago"), ({"hours": 30}, "1 d ago"), ({"days": -9}, "in 9 d")],
)
def test_a_time_in_a_table_is_relative(delta, text):
    with freeze_time("2026-01-31T12:00:00Z"):
        assert clock.ago(clock.now() - timedelta(**delta)) == text
    assert [clock.ago(None), clock.ago("when?")] == ["never", "never"]


def test_json_is_ascii_on_one_line():
    text = show.as_json({"a": "Füße\n\x1b\u2028"})

    assert text.isascii()
    assert text.isprintable()
