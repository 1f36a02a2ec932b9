"""Events: their limits, ids and displays."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from outfeed.errors import InvalidEvent
from outfeed.events import DISPLAY, Event, EventType, display_of, make_event, new_id, sentence, sentence_parts
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


# --- how each kind looks ----------------------------------------------------------------------------------------------


def test_every_known_type_has_its_own_display() -> None:
    looks = {event_type: DISPLAY[event_type] for event_type in EventType}
    assert len({look.icon for look in looks.values()}) == len(looks)
    for event_type, look in looks.items():
        assert look.label
        assert look.kind in ("task", "agent", "bid", "tool", "system")
        assert look.is_error == event_type.endswith((".failed", ".error"))
        json.dumps(look.as_dict())


# ADR 022's table, and numbers as a browser writes them.
SENTENCES = [
    ("task.created", {"description": "Write tests"}, "New task: Write tests"),
    ("task.assigned", {"name": "Ada"}, "Task assigned to Ada"),
    ("task.completed", {}, "Task completed"),
    ("task.assigned", {"name": "Ada", "bid_sats": 50}, "Task assigned to Ada (50 sats)"),
    ("task.assigned", {"agent": "forge", "amount": 50}, "Task assigned to forge (50 sats)"),
    ("task.started", {"agent": "forge"}, "forge started work"),
    ("agent.joined", {"name": "Ada"}, "Agent Ada joined"),
    ("agent.joined", {"name": "Ada", "persona": "careful reviewer"}, "Agent Ada joined (careful reviewer)"),
    ("agent.joined", {"name": "Ada", "persona": " "}, "Agent Ada joined"),
    ("agent.left", {"name": "Ada"}, "Agent Ada left"),
    ("bid.submitted", {"bid_sats": 100, "name": "Ada"}, "Bid: 100 sats from Ada"),
    ("bid.submitted", {"bid_sats": 1.0, "name": "Ada"}, "Bid: 1 sats from Ada"),
    ("bid.submitted", {"bid_sats": 1.5, "name": "Ada"}, "Bid: 1.5 sats from Ada"),
    ("bid.submitted", {"amount": 50, "agent": "forge"}, "Bid: 50 sats from forge"),
    ("bid.submitted", {"amount": 5, "agent": "a", "bid_sats": 7, "name": "Ada"}, "Bid: 7 sats from Ada"),
    ("auction.closed", {"amount": 50}, "Auction closed at 50 sats"),
    ("tool.called", {"tool_name": "grep"}, "Tool: grep"),
    ("system.info", {"description": "Upgrade proposed"}, "Upgrade proposed"),
    ("system.warning", {"description": "Disk is full"}, "Warning: Disk is full"),
    ("system.error", {"description": "Disk is full", "message": "No space"}, "Error: No space"),
    ("system.error", {"message": "Oops"}, "Error: Oops"),
]


@pytest.mark.parametrize(("event_type", "data", "text"), SENTENCES)
def test_a_sentence_takes_its_names_from_the_data(event_type: str, data: Any, text: str) -> None:
    assert sentence(made(event_type=event_type, data=data)) == text


@pytest.mark.parametrize("event_type", [*EventType, "my.own", "task.my_own"])
@pytest.mark.parametrize(
    "data", [None, {}, [], "text", 7, {"name": None}, {"name": ""}, {"name": "  "}, {"name": ["a"]}, {"name": True}]
)
def test_a_sentence_has_a_fallback_for_every_missing_value(event_type: str, data: Any) -> None:
    text = sentence(made(event_type=event_type, data=data))
    assert text == text.strip()
    assert not re.search(r"None|True|\{|\[|\|", text)
    assert text.count(":") <= 2


def test_a_missing_name_falls_back_on_the_id_and_then_on_words() -> None:
    assert sentence(made(event_type="agent.joined", agent_id="agent-7")) == "Agent agent-7 joined"
    assert sentence(made(event_type="agent.joined")) == "Agent unknown joined"
    assert sentence(made(event_type="bid.submitted", data={"bid_sats": 0})) == "Bid: 0 sats from an agent"


def test_an_unlisted_type_has_a_sensible_display() -> None:
    look = display_of("build.step_finished")
    assert (look.label, look.kind, look.is_error) == ("Step finished", "other", False)
    assert display_of("task.my_own").kind == "task"
    assert sentence(made(event_type="build.step_finished", data={"message": "ok"})) == "build.step_finished: ok"


@pytest.mark.parametrize("event_type", ["", ".", "a.", ".b", "NOT a type / at all", "\ufffd"])
def test_any_text_as_type_has_a_display(event_type: str) -> None:
    assert display_of(event_type).label
    assert sentence(Event("i", event_type, "s", None, None, None, "t"))


@given(value=st.text(max_size=50))
def test_a_sentence_stays_on_one_line_with_any_name(value: str) -> None:
    text = sentence(Event("i", "agent.joined", "s", None, None, {"name": value}, "t"))
    assert text.splitlines() == [text]


def test_the_parts_of_a_sentence_say_which_are_names() -> None:
    parts = sentence_parts(made(event_type="bid.submitted", data={"bid_sats": 5, "name": "Ada"}))
    assert parts == [("Bid: ", False), ("5", True), (" sats from ", False), ("Ada", True)]
    parts = sentence_parts(made(event_type="task.assigned", data={"bid_sats": 5, "name": "Ada"}))
    assert parts == [("Task assigned to ", False), ("Ada", True), (" (", False), ("5", True), (" sats)", False)]


def test_the_error_of_a_bad_type_shows_an_example() -> None:
    with pytest.raises(InvalidEvent, match="lower-case words joined by dots"):
        made(event_type="NO")
