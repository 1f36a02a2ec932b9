"""Raw writers insert any values, and every other event still arrives.

Each INSERT succeeds as it does without the feed.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import pytest

from outfeed import get_event, list_events
from outfeed.store.database import Database
from tests.server import Server

TEN_MB = '"' + "x" * 10_000_000 + '"'
COLUMNS = ("id", "event_type", "source", "task_id", "agent_id", "data", "timestamp")
FINE = {
    "id": "p",
    "event_type": "a.b",
    "source": "s",
    "task_id": None,
    "agent_id": None,
    "data": None,
    "timestamp": "t",
}

# Each value with the `data` that clients must receive.
POISON: dict[str, tuple[dict[str, str], Any]] = {
    "invalid UTF-8 as data": ({"data": "CAST(x'e9ff' AS TEXT)"}, "\ufffd\ufffd"),
    "invalid UTF-8 in JSON": ({"data": "CAST(x'22e922' AS TEXT)"}, "\ufffd"),
    "invalid UTF-8 in every column": (
        {name: "CAST(x'e9' AS TEXT)" for name in COLUMNS if name != "id"},
        "\ufffd",
    ),
    "BLOBs in every column": (dict.fromkeys(COLUMNS, "x'00ff'"), "00FF"),
    "no JSON": ({"data": "'{oops'"}, "{oops"),
    "a number beyond a double": ({"data": "'{\"n\": 1e999}'"}, {"n": "1e999"}),
    "a lone surrogate": ({"data": "'\"\\ud800\"'"}, "\ufffd"),
    "nesting beyond every parser": ({"data": f"'{'[' * 1500}{']' * 1500}'"}, "[" * 1500 + "]" * 1500),
    "nesting that some parsers read": ({"data": f"'{'[' * 900}1{']' * 900}'"}, "[" * 900 + "1" + "]" * 900),
    "nesting that all read": ({"data": f"'{'[' * 65}{']' * 65}'"}, "[" * 65 + "]" * 65),
    "ten megabytes of data": ({"data": f"'{TEN_MB}'"}, None),
    "ten megabytes of source": ({"source": f"'{TEN_MB}'"}, None),
    "a ten megabyte BLOB": ({"data": "zeroblob(10000000)"}, None),
    "numbers for texts": ({"source": "7", "data": "1.5", "task_id": "9e999"}, 1.5),
    "a NUL in a text": ({"data": "'a' || char(0) || 'b'"}, "a\0b"),
    "a foreign type": ({"event_type": "'NOT a type / at all'"}, None),
    "an empty type": ({"event_type": "''"}, None),
    "a foreign timestamp": ({"timestamp": "'yesterday-ish'"}, None),
    "a control character": ({"source": "'line' || char(10) || 'two'"}, None),
}


def insert(raw: sqlite3.Connection, values: dict[str, str]) -> None:
    row = {name: repr(value) if value is not None else "NULL" for name, value in FINE.items()} | values
    raw.execute(f"INSERT INTO event_log ({', '.join(COLUMNS)}) VALUES ({', '.join(row[name] for name in COLUMNS)})")


def test_every_unusual_value_arrives_in_a_readable_form(server: Server) -> None:
    with contextlib.closing(sqlite3.connect(server.database, isolation_level=None)) as raw, server.connect() as client:
        client.subscribe()
        for n, (values, _) in enumerate(POISON.values()):
            insert(raw, {"id": f"'poison-{n}'", **values})
            insert(raw, {"id": f"'fine-{n}'"})
        client.follow(2 * len(POISON))
        assert [event["id"] for event in client.events[1::2]] == [f"fine-{n}" for n in range(len(POISON))]
        for name, event, (_, expected) in zip(POISON, client.events[::2], POISON.values(), strict=True):
            if expected is not ...:
                assert event["data"] == expected, name
            assert len(json.dumps(event)) < 100_000, name
        with server.http() as http:
            page = http.get("/api/events", params={"limit": 1000})
            assert page.status_code == 200
            assert len(page.json()["events"]) == 2 * len(POISON)
            feed = http.get("/api/feed", params={"after": 0, "limit": 1000}).json()
            assert [event["seq"] for event in feed["events"]] == list(range(1, 2 * len(POISON) + 1))


def test_too_large_data_is_omitted_with_its_size(server: Server) -> None:
    with contextlib.closing(sqlite3.connect(server.database, isolation_level=None)) as raw, server.connect() as client:
        client.subscribe()
        insert(raw, {"data": f"'{TEN_MB}'", "source": "'big'"})
        event = client.next_event()["payload"]
        assert (event["source"], event["data"], event["omitted_bytes"]) == ("big", None, len(TEN_MB))


@pytest.mark.parametrize("name", POISON)
def test_the_log_can_be_read_with_any_value(database: Database, name: str) -> None:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as raw:
        insert(raw, POISON[name][0])
    (event,) = list_events()
    assert name == "BLOBs in every column" or get_event(event.id) is not None


@pytest.mark.parametrize("payload", [None, "", "nonsense", b"\xff\xfe", "[1, 2]", "7", "{}", '{"id": 1}', "[" * 5000])
def test_a_foreign_outbox_row_is_delivered(server: Server, payload: Any) -> None:
    with contextlib.closing(sqlite3.connect(server.database, isolation_level=None)) as raw, server.connect() as client:
        client.subscribe()
        raw.execute("INSERT INTO outbox (event_id, payload) VALUES ('x', ?)", (payload,))
        insert(raw, {})
        client.follow(2)
        assert client.events[1]["id"] == "p"
