"""Displays: how an event of each type reads, and what may be set."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outfeed.display import COLOURS, KINDS, OWN, Display, Level, Look, colour_of, kind_of, look_of, title_of
from outfeed.errors import InvalidDisplay
from outfeed.events import Event, EventType, make_event
from tests import looks


def made(**fields: Any) -> Event:
    return make_event(**{"event_type": "a.b", "source": "s", "max_event_bytes": 1000} | fields)[0]


def look(**fields: Any) -> Look:
    return look_of(made(**fields), {})


def shown(case: dict[str, Any]) -> dict[str, Any]:
    """Return what the look of *case* is, as far as the case says."""
    event, set_ = Event(**looks.event_of(case)), looks.display_of(case)
    displays = {event.event_type: Display.of(set_)} if set_ else {}
    found = look_of(event, displays)
    all_ = {
        "text": found.text,
        "parts": [list(part) for part in found.parts],
        "look": [found.kind, found.icon, found.level],
        "colour": found.colour,
    }
    return {name: all_[name] for name in looks.expected(case)}


@pytest.mark.parametrize("case", looks.CASES, ids=lambda case: case["case"])
def test_an_event_reads_as_the_table_of_cases_says(case):
    assert shown(case) == looks.expected(case)


# --- Outfeed's own types ----------------------------------------------------------------------------------------------


def test_every_known_type_has_its_own_display():
    own = {event_type: OWN[event_type] for event_type in EventType}
    assert len({each.icon for each in own.values()}) == len(own)
    for event_type, each in own.items():
        assert each.title
        assert each.kind in ("task", "agent", "bid", "tool", "system")
        assert (each.level is Level.ERROR) == event_type.endswith((".failed", ".error"))
        json.dumps(each.as_dict())


# ADR 022's table, and numbers as a browser writes them.
SENTENCES = [
    ("task.created", {"description": "Write tests"}, "New task: Write tests"),
    ("task.assigned", {"name": "Ada"}, "Task assigned to Ada"),
    ("task.completed", {"description": "Write tests"}, "Task completed · Write tests"),
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
def test_a_sentence_takes_its_names_from_the_data(event_type, data, text):
    assert look(event_type=event_type, data=data).text == text


@pytest.mark.parametrize("event_type", [*EventType, "my.own", "task.my_own"])
@pytest.mark.parametrize(
    "data", [None, {}, [], "text", 7, {"name": None}, {"name": ""}, {"name": "  "}, {"name": ["a"]}]
)
def test_a_sentence_has_a_fallback_for_every_missing_value(event_type, data):
    text = look(event_type=event_type, data=data).text
    assert text == text.strip()
    assert not re.search(r"None|True|\{|\[|\|", text)
    assert text.count(":") <= 2


def test_a_missing_name_falls_back_on_the_id_and_then_on_words():
    assert look(event_type="agent.joined", agent_id="agent-7").text == "Agent agent-7 joined"
    assert look(event_type="agent.joined").text == "Agent unknown joined"
    assert look(event_type="bid.submitted", data={"bid_sats": 0}).text == "Bid: 0 sats from an agent"


# --- any type ---------------------------------------------------------------------------------------------------------


def test_the_title_of_a_type_is_its_name_unless_it_is_of_ours():
    assert (title_of("build.step_finished"), title_of("task.created")) == ("build.step_finished", "Task created")


@pytest.mark.parametrize("event_type", ["", ".", "a.", ".b", "NOT a type / at all", "\ufffd", "x" * 500, None])
def test_any_text_as_type_has_a_look(event_type):
    found = look_of(Event("i", event_type, "s", None, None, None, "t"), {})
    assert 0 < len(found.text) <= 80
    assert re.fullmatch(r"[a-z0-9_]+", found.kind)


@given(value=st.text(max_size=50), label=st.sampled_from(["{name}", "{name:7}", None]))
def test_a_sentence_stays_on_one_line_with_any_name(value, label):
    displays = {"a.b": Display(label=label)}
    text = look_of(Event("i", "a.b", "s", None, None, {"name": value}, "t"), displays).text
    assert text.splitlines() == [text]


def test_the_words_of_kinds_spread_over_all_colours():
    kinds = [f"kind_{number}" for number in range(200)]
    found = {colour_of(kind) for kind in kinds}
    assert found == {f"kind-{number}" for number in range(COLOURS)}
    assert [colour_of(kind) for kind in KINDS] == list(KINDS)


def test_the_kind_is_the_first_word_of_a_type():
    assert [kind_of(name) for name in ("orders.paid", "a_1.b.c", "9.b", "a-b.c")] == ["orders", "a_1", "other", "other"]


# --- what may be set --------------------------------------------------------------------------------------------------

BAD = {
    "no type": ({"name": "orders"}, "'orders': must be a type"),
    "a pattern": ({"name": "orders.*"}, "must be a type"),
    "a long type": ({"name": "a." + "b" * 63}, "at most 64 characters"),
    "a type of Outfeed's": ({"name": "task.created"}, "Outfeed defines this type"),
    "a type of the audit": ({"name": "access.anything"}, "Outfeed defines this type"),
    "an empty icon": ({"icon": ""}, "icon: must have 1 to 16 characters, got 0"),
    "a long icon": ({"icon": "x" * 17}, "icon: must have 1 to 16 characters, got 17"),
    "an icon of two lines": ({"icon": "a\nb"}, "icon: must be one line"),
    "an icon that turns the line around": ({"icon": "\u202e"}, "icon: must be one line"),
    "a number as icon": ({"icon": 7}, "icon: must be text"),
    "a blank label": ({"label": "  "}, "label: must have 1 to 200 characters"),
    "a long label": ({"label": "x" * 201}, "label: must have 1 to 200 characters, got 201"),
    "a label with a control character": ({"label": "a\x1b[2J"}, "label: must be one line"),
    "too many places": ({"label": "{a}" * 21}, "label: must have at most 20 places, got 21"),
    "an open brace": ({"label": "{a} {b"}, "label: has a brace without its partner"),
    "a closed brace": ({"label": "a} {b}"}, "label: has a brace without its partner"),
    "an empty place": ({"label": "{}"}, "label: a place names one or more values"),
    "an empty choice": ({"label": "{a|}"}, "label: a place names one or more values"),
    "spaces in a place": ({"label": "{ a }"}, "label: a place names one or more values"),
    "no name after was": ({"label": "{was.}"}, "label: a place names one or more values"),
    "a cut to nothing": ({"label": "{a:0}"}, "label: a value may have 1 to 200 characters, got 0"),
    "a long cut": ({"label": "{a:201}"}, "label: a value may have 1 to 200 characters, got 201"),
    "an unknown level": ({"level": "loud"}, "level: must be info, warning or error (got 'loud')"),
    "no level": ({"level": None}, "level: must be info, warning or error"),
}


@pytest.mark.parametrize(("given", "said"), BAD.values(), ids=BAD)
def test_a_display_outside_the_limits_is_refused_and_the_error_names_the_field(given, said):
    with pytest.raises(InvalidDisplay, match=re.escape(said)):
        Display.checked(**{"name": "orders.paid", **given})


@pytest.mark.parametrize(
    "given",
    [
        {"icon": "🗑️"},
        {"icon": "👩‍💻"},
        {"icon": "x" * 16},
        {"label": "x" * 200},
        {"label": "{a}" * 20},
        {"label": "{a:200}"},
        {"label": "{was.a|b:c|d e}"},
        {"level": "error"},
    ],
)
def test_a_display_at_the_limits_is_taken(given):
    assert Display.checked("orders.paid", **given).as_dict() == {"level": "info"} | given
