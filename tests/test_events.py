"""Events: their limits and ids."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from freezegun import freeze_time

from outfeed.errors import InvalidEvent
from outfeed.events import Event, EventType, make_event, new_id
from tests.server import ROOT


def made(**fields: Any) -> Event:
    return make_event(**{"event_type": "a.b", "source": "s", "max_event_bytes": 1000} | fields)[0]


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"event_type": "task"}, "event_type", "'task'"),
        ({"event_type": ""}, "event_type", "''"),
        ({"event_type": "Task.created"}, "event_type", "'Task.created'"),
        ({"event_type": "task.created "}, "event_type", "'task.created '"),
        ({"event_type": "task.created\n"}, "event_type", "task.created"),
        ({"event_type": "task..a"}, "event_type", "task..a"),
        ({"event_type": "1task.a"}, "event_type", "1task.a"),
        ({"event_type": "täsk.a"}, "event_type", "täsk.a"),
        ({"event_type": "a." + "b" * 63}, "event_type", "at most 64 characters, got 65"),
        ({"event_type": 7}, "event_type", "got 7"),
        ({"event_type": None}, "event_type", "got None"),
        ({"source": ""}, "source", "1 to 200 characters, got nothing"),
        ({"source": "s" * 201}, "source", "200 characters, got .*201 characters"),
        ({"source": None}, "source", "got None"),
        ({"source": b"s"}, "source", "got b's'"),
        ({"source": "a\0b"}, "source", "NUL"),
        ({"source": "\ud800"}, "source", "storable"),
        ({"task_id": ""}, "task_id", "nothing"),
        ({"task_id": 7}, "task_id", "got 7"),
        ({"agent_id": "a" * 201}, "agent_id", "201"),
        ({"id": ""}, "id", "nothing"),
        ({"id": "i" * 201}, "id", "201"),
        ({"id": 7}, "id", "got 7"),
        ({"timestamp": "yesterday"}, "timestamp", "ISO 8601, got 'yesterday'"),
        ({"timestamp": "2026-01-01T00:00:00"}, "timestamp", "needs a timezone"),
        ({"timestamp": datetime(2026, 1, 1)}, "timestamp", "needs a timezone"),  # noqa: DTZ001
        ({"timestamp": 7}, "timestamp", "got 7"),
        ({"timestamp": datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))}, "timestamp", "ISO 8601"),
        ({"data": "x" * 999}, "data", "1,001 bytes as JSON; at most 1,000"),
        ({"data": "ü" * 500}, "data", "1,002 bytes as JSON; at most 1,000"),
        ({"data": float("nan")}, "data", "not JSON-serialisable"),
        ({"data": {"a": [float("inf")]}}, "data", "not JSON-serialisable"),
        ({"data": {"a": object()}}, "data", "not JSON-serialisable"),
        ({"data": {(1, 2): 3}}, "data", "not JSON-serialisable"),
        ({"data": b"bytes"}, "data", "not JSON-serialisable"),
        ({"data": "\ud800"}, "data", "not JSON-serialisable"),
    ],
)
def test_the_error_of_an_exceeded_limit_names_field_value_and_limit(fields: Any, field: str, said: str) -> None:
    with pytest.raises(InvalidEvent, match=said) as refused:
        made(**fields)
    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")
    assert len(str(refused.value)) < 400


def test_data_that_is_nested_too_deeply_or_holds_itself_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    circle: list[Any] = []
    circle.append(circle)
    for data in (deep, circle):
        with pytest.raises(InvalidEvent, match=r"^data: "):
            made(data=data)


@pytest.mark.parametrize(
    "fields",
    [
        {"event_type": "a.b"},
        {"event_type": "a1_2.b_3.4"},
        {"event_type": "a." + "b" * 62},
        {"source": "s" * 200},
        {"source": "line\ntwo\t\U0001f600"},
        {"id": "any text at all / of mine"},
        {"task_id": "t", "agent_id": "a"},
        {"data": "x" * 998},
        {"data": False},
        {"data": 0},
        {"data": {"deep": [1, {"er": None}]}},
    ],
)
def test_an_event_within_the_limits_is_accepted_unchanged(fields: dict[str, Any]) -> None:
    event = made(**fields)
    assert {name: getattr(event, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("data", "text"), [(None, None), (False, "false"), (0, "0"), ("", '""'), ({"ü": 1.0}, '{"ü":1.0}')]
)
def test_data_is_written_as_compact_json_and_none_is_left_out(data: Any, text: str | None) -> None:
    assert make_event("a.b", "s", data=data, max_event_bytes=1000)[1] == text


def test_a_known_type_equals_its_name_and_its_member() -> None:
    event = made(event_type="task.created")
    assert event.event_type is EventType.TASK_CREATED
    assert event.event_type == "task.created"
    assert json.dumps(event.as_dict()) == json.dumps(event.as_dict() | {"event_type": "task.created"})
    assert made(event_type=EventType.TASK_CREATED).event_type is EventType.TASK_CREATED
    assert type(made(event_type="my.own").event_type) is str


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("2024-01-15T10:30:00Z", "2024-01-15T10:30:00.000Z"),
        ("2024-01-15T12:30:00.123456+02:00", "2024-01-15T10:30:00.123Z"),
        (datetime(2024, 1, 15, 10, 30, tzinfo=UTC), "2024-01-15T10:30:00.000Z"),
        (datetime(2024, 1, 15, 5, 30, tzinfo=timezone(timedelta(hours=-5))), "2024-01-15T10:30:00.000Z"),
    ],
)
def test_timestamps_are_utc_with_milliseconds_and_a_z(given: Any, written: str) -> None:
    assert made(timestamp=given).timestamp == written


def test_the_default_timestamp_is_the_wall_time() -> None:
    with freeze_time("2026-02-03T04:05:06.789"):
        assert made().timestamp == "2026-02-03T04:05:06.789Z"


def test_omitted_bytes_are_shown_only_if_data_was_left_out() -> None:
    assert "omitted_bytes" not in made().as_dict()
    assert Event("i", "a.b", "s", None, None, None, "t", omitted_bytes=9).as_dict()["omitted_bytes"] == 9


# --- ids --------------------------------------------------------------------------------------------------------------


def test_ids_are_version_7_uuids_and_sort_by_time() -> None:
    ids = []
    with freeze_time("2026-01-01T00:00:00.000") as frozen:
        for _ in range(50):
            ids.append(new_id())
            frozen.tick(timedelta(milliseconds=1))
    parsed = [uuid.UUID(text) for text in ids]
    assert {(each.version, each.variant) for each in parsed} == {(7, uuid.RFC_4122)}
    assert [str(each) for each in parsed] == ids == sorted(ids)
    assert parsed[0].int >> 80 == int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)


def test_ids_of_one_millisecond_differ() -> None:
    with freeze_time("2026-01-01"):
        assert len({new_id() for _ in range(1000)}) == 1000


def test_a_program_that_seeds_random_gets_no_id_twice() -> None:
    with freeze_time("2026-01-01"):
        ids = set()
        for _ in range(2):
            random.seed(7)
            ids.add(new_id())
    assert len(ids) == 2


def test_a_forked_child_creates_other_ids() -> None:
    code = """
import os
from outfeed.events import new_id
if child := os.fork():
    os.waitpid(child, 0)
print(new_id()[-20:])
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    first, second = said.split()
    assert first != second


def test_the_error_of_a_bad_type_shows_an_example() -> None:
    with pytest.raises(InvalidEvent, match="lower-case words joined by dots"):
        made(event_type="NO")
