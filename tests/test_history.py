"""Reading the outbox: any row becomes valid, bounded JSON in UTF-8."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NoReturn

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outfeed.errors import Overtaken
from outfeed.history import Window, read_item, read_plain_item
from outfeed.redaction import QuickLook, may_hold_secrets

LIMIT = 300


def strict(text: bytes) -> Any:
    """Parse as a browser does: UTF-8, and no NaN or Infinity."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text.decode("utf-8"), parse_constant=refuse)


def event(**fields: Any) -> dict[str, Any]:
    names = ("id", "event_type", "source", "task_id", "agent_id", "timestamp", "data")
    return dict.fromkeys(names) | {"id": "i", "event_type": "a.b", "source": "s"} | fields


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


# --- anything ---------------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
_events = st.fixed_dictionaries({}, optional=dict.fromkeys((*event(), "seq", "type", "omitted_bytes"), _json))
_payloads = st.one_of(
    st.none(),
    st.binary(max_size=600),
    _json.map(lambda value: json.dumps(value).encode()),
    _events.map(lambda value: json.dumps(value).encode()),
    _events.map(lambda value: json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass")),
    st.tuples(_events, st.integers(0, 400)).map(lambda cut: json.dumps(cut[0]).encode()[: cut[1]]),
)


@settings(max_examples=150, deadline=None)
@given(raw=_payloads, size=st.sampled_from([0, 5_000_000]))
@example(raw=b"{}", size=0)
@example(raw=b' {"id": 1}', size=0)
@example(raw=b'{\n"id": 1}', size=0)
@example(raw=b'{"seq": 99, "id": "i"}', size=0)
@example(raw=b'"\\ud800"', size=0)
@example(raw=b'{"data": 1e999, "id": "\xff"}', size=0)
@example(raw=b'{"data": NaN}', size=0)
@example(raw=b'{"\\ud800": "\\udc00"}', size=0)
@example(raw=b"1" * 5000, size=0)
@example(raw=b"-" + b"9" * 40, size=0)
@example(raw=nested(254), size=0)
@example(raw=nested(600), size=0)
@example(raw=nested(1000), size=0)
@example(raw=nested(1024), size=0)
@example(raw=nested(100_000), size=0)
@example(raw=b'{"data":' + nested(998) + b"}", size=0)
@example(raw=b'{"id":"i","data":' + nested(998) + b"}", size=0)
@example(raw=b'{"id":"i","source":' + nested(900) + b',"data":' + nested(99) + b"}", size=0)
def test_any_row_becomes_one_line_of_json(raw: bytes | None, size: int) -> None:
    item = read_item(7, raw, size, LIMIT)
    assert item.seq == 7
    assert len(item.json) < 4 * len(raw or b"") + 1000
    assert isinstance(item.event_type, str)
    fields = orjson.loads(item.json)
    assert isinstance(fields, dict)
    assert item.json.decode("utf-8")
    # Encoders insert the seq after the opening brace. It must stay the only one.
    with_seq = orjson.loads(b'{"seq":7,%b' % item.json[1:])
    assert with_seq == {"seq": 7, **fields}


@settings(max_examples=150, deadline=None)
@given(raw=_payloads)
@example(raw=b'{"id":"i","data":{"a":1,"a":2}}')
@example(raw=b'{"id":"i","data":{"a":{"token":"x"},"a":2}}')
@example(raw=b' {"id":"i"}')
@example(raw=b'{"id":"i","seq":99}')
@example(raw=b'{"id":"i","data":{"a":' + nested(65) + b"}}")
@example(raw=b'{"id":"i","data":"' + b"x" * LIMIT + b'"}')
@example(raw=b'{"id":"i","data":{"a":"xoxb-123456789012"}}')
@example(raw=b'{"id":"i","data":{"a":"123456789:a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R"}}')
@example(raw=b'{"id":"i","data":{"token":"x"}}')
@example(raw=b'{"id":"i","data":{"a":1}} x')
def test_the_quick_check_returns_the_same_item_or_none(raw: bytes | None) -> None:
    raw = raw or b""
    with suppress(ValueError):
        remember_shape(orjson.loads(raw))

    assert read_plain_item(7, raw, LIMIT, QuickLook(raw)) in (None, read_item(7, raw, 0, LIMIT))


def remember_shape(fields: Any) -> None:
    """Make the redactor remember the keys of *fields* as harmless."""
    with suppress(TypeError):  # deeper than orjson writes
        if isinstance(fields, dict):
            flat = {"data": dict.fromkeys(fields["data"])} if isinstance(fields.get("data"), dict) else {}
            may_hold_secrets(orjson.dumps(dict.fromkeys(fields) | flat), dict.fromkeys(fields) | flat)


def test_the_quick_check_reads_an_ordinary_event_of_a_known_shape() -> None:
    first, second = (orjson.dumps(event(data={"n": n, "text": "a:b"})) for n in (1, 2))
    item = read_item(1, first, 0, LIMIT)

    assert read_plain_item(1, second, LIMIT, QuickLook(first + second)) == item._replace(json=second)


@pytest.mark.parametrize("limit", [256, 65_536])
@pytest.mark.parametrize("depth", [100, 300, 900, 990, 998])
def test_nesting_is_read_at_any_depth_of_the_stack(limit: int, depth: int) -> None:
    raw = b'{"id":"i","event_type":"a.b","source":"s","data":' + nested(depth) + b',"x":"' + b"x" * 66_000 + b'"}'

    def deeper(levels: int) -> bytes:
        return deeper(levels - 1) if levels else read_item(1, raw, 0, limit).json

    for levels in (0, 50, 200):
        assert orjson.loads(deeper(levels))["event_type"] in ("a.b", "system.unreadable")


@pytest.mark.parametrize("depth", [65, 254, 255, 970, 1024, 5000])
def test_data_nested_deeper_than_64_levels_becomes_its_text(depth: int) -> None:
    raw = b'{"id":"i","event_type":"a.b","source":"s","data":' + nested(depth) + b"}"

    fields = strict(read_item(1, raw, 0, 65_536).json)

    assert (fields["id"], fields["event_type"], fields["source"]) == ("i", "a.b", "s")
    assert (fields["data"], fields["flattened"]) == (nested(depth).decode(), True)


def test_data_of_64_levels_is_read_unchanged() -> None:
    raw = b'{"id":"i","event_type":"a.b","source":"s","data":' + nested(64) + b"}"

    assert read_item(1, raw, 0, LIMIT).json == raw


# --- what is made of what ---------------------------------------------------------------------------------------------


def test_an_ordinary_event_passes_byte_for_byte() -> None:
    raw = orjson.dumps(event(task_id="t", agent_id="a", timestamp="now", data={"n": 1.5, "text": "ü\n"}))
    item = read_item(3, raw, 0, LIMIT)
    assert item.json == raw
    assert item[2:] == ("i", "a.b", "s", "t", "a", "now")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b'"\xe9"', "\ufffd"),
        (b'"\\ud800"', "\ufffd"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"1e999", "1e999"),
        (b"-1e999", "-1e999"),
        (b"1e308", 1e308),
        (b"[1e999, 1]", ["1e999", 1]),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b"1" * 5000, "1" * 5000),
        (b'{"n": [-%b]}' % (b"9" * 400), {"n": ["-" + "9" * 400]}),
        (b'{"\\udc00": [{"\xff": 1}]}', {"\ufffd": [{"\ufffd": 1}]}),
    ],
)
def test_odd_values_become_readable_ones(written: bytes, read: Any) -> None:
    raw = b'{"id":"i","event_type":"a.b","source":"s","data":' + written + b"}"
    fields = strict(read_item(1, raw, 0, 10_000).json)
    assert fields["data"] == read
    assert fields["id"] == "i"


@pytest.mark.parametrize("raw", [None, b"", b"nonsense", b"\xff\xfe", b'{"id": "i"', b"[1", b"{} {}"])
def test_a_payload_that_is_not_json_becomes_an_unreadable_event(raw: bytes | None) -> None:
    item = read_item(1, raw, 0, LIMIT)
    assert item.event_type == "system.unreadable"
    assert strict(item.json)["data"] is None


@pytest.mark.parametrize("value", [None, 7, "text", [1, 2], {}])
def test_json_that_is_not_an_event_becomes_the_data_of_one(value: Any) -> None:
    item = read_item(1, json.dumps(value).encode(), 0, LIMIT)
    assert (item.event_type, strict(item.json)["data"]) == ("system.unreadable", value)


def test_data_above_the_limit_is_left_out_and_its_size_is_given() -> None:
    data = "x" * LIMIT
    fields = strict(read_item(1, orjson.dumps(event(data=data)), 0, LIMIT).json)
    assert (fields["data"], fields["omitted_bytes"], fields["source"]) == (None, LIMIT + 2, "s")


def test_data_within_the_limit_stays_in_a_larger_event() -> None:
    fields = strict(read_item(1, orjson.dumps(event(data="x" * (LIMIT - 2))), 0, LIMIT).json)
    assert fields["data"] == "x" * (LIMIT - 2)
    assert "omitted_bytes" not in fields


def test_a_cut_payload_keeps_the_fields_before_its_data() -> None:
    raw = orjson.dumps(event(source="big", data="x" * 100_000))
    fields = strict(read_item(1, raw[:8192], len(raw), LIMIT).json)
    assert (fields["id"], fields["source"], fields["data"], fields["omitted_bytes"]) == ("i", "big", None, 100_002)


def test_a_payload_that_was_cut_before_its_data_is_unreadable_and_has_its_size() -> None:
    raw = orjson.dumps(event(source="x" * 100_000))
    fields = strict(read_item(1, raw[:8192], len(raw), LIMIT).json)
    assert (fields["event_type"], fields["omitted_bytes"]) == ("system.unreadable", len(raw))


def test_overlong_names_are_cut() -> None:
    fields = strict(read_item(1, orjson.dumps(event(source="s" * 1000)), 0, LIMIT).json)
    assert fields["source"] == "s" * 200 + "…"


# --- the window -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cursor", "is_proven"), [(3, False), (4, True), (5, True), (9, True), (0, False)])
def test_a_cursor_is_valid_if_every_row_after_it_exists(cursor: int, is_proven: bool) -> None:
    window = Window("e", first_seq=5, last_seq=9)
    if is_proven:
        window.prove("e", cursor)
    else:
        with pytest.raises(Overtaken, match=f"{cursor + 1} to 4 were pruned"):
            window.prove("e", cursor)


def test_a_cursor_of_another_epoch_is_invalid() -> None:
    with pytest.raises(Overtaken, match="epoch"):
        Window("e", 1, 9).prove("other", 9)
