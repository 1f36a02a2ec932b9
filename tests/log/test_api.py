"""The HTTP API: write one event, read the log, read the feed by cursor.

Every error is a problem.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.store.database import Database

EVENT: dict[str, Any] = {"event_type": "task.created", "source": "http", "task_id": "t", "data": {"n": 1}}
ROW = "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES (?, ?, ?, ?, '2026-01-01T00:00:00.000Z')"


@pytest.fixture
def flask_app(database: Database) -> Flask:
    return create_app(Settings(database=database.path, max_event_bytes=1000))


@pytest.fixture
def api(flask_app: Flask, database: Database) -> FlaskClient:
    """Return the client of a program whose token may read and write."""
    client = flask_app.test_client(use_cookies=False)
    token = account.create_token(database, "tests", ["read", "write"])
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


def write(
    raw: sqlite3.Connection, count: int, event_type: str = "a.b", source: str = "s", data: str | None = None
) -> None:
    (head,) = raw.execute("SELECT coalesce(max(rowid), 0) FROM event_log").fetchone()
    raw.execute("BEGIN")
    raw.executemany(ROW, [(f"id-{head + n}", event_type, source, data) for n in range(1, count + 1)])
    raw.execute("COMMIT")


def body_of(answer: TestResponse) -> Any:
    """Return the JSON as a strict parser reads it."""
    assert answer.content_type == "application/json", answer.text
    return orjson.loads(answer.data)


def assert_problem(answer: TestResponse, status: int, said: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    problem = orjson.loads(answer.data)
    assert problem["status"] == status
    assert problem["title"]
    assert said in problem["detail"], problem


def count(raw: sqlite3.Connection) -> int:
    return int(raw.execute("SELECT count(*) FROM event_log").fetchone()[0])


# --- POST /api/events -------------------------------------------------------------------------------------------------


def test_a_new_event_is_created_and_the_response_has_its_position(api: FlaskClient, raw: sqlite3.Connection) -> None:
    answer = api.post("/api/events", json=EVENT)
    assert answer.status_code == 201
    told = body_of(answer)
    (epoch,) = raw.execute("SELECT value FROM outfeed_meta WHERE key = 'epoch'").fetchone()
    assert set(told) == {"id", "seq", "epoch"}
    assert (told["seq"], told["epoch"]) == (1, epoch)
    assert raw.execute("SELECT event_id, seq FROM outbox").fetchall() == [(told["id"], 1)]


def test_a_repeated_event_gets_the_same_seq(api: FlaskClient, raw: sqlite3.Connection) -> None:
    first = api.post("/api/events", json=EVENT | {"id": "mine"})
    again = api.post("/api/events", json=EVENT | {"id": "mine"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert body_of(first) == body_of(again)
    assert count(raw) == 1


def test_the_seq_is_null_once_the_outbox_row_is_pruned(api: FlaskClient, raw: sqlite3.Connection) -> None:
    api.post("/api/events", json=EVENT | {"id": "mine"})
    raw.execute("DELETE FROM outbox")
    again = api.post("/api/events", json=EVENT | {"id": "mine"})
    assert again.status_code == 200
    assert body_of(again)["seq"] is None


@pytest.mark.parametrize(
    "again",
    [
        {"data": {"n": 1}},
        {"timestamp": "2026-01-01T00:00:00Z"},
        {"timestamp": "2026-01-01T01:00:00.000+01:00"},
        {"timestamp": None},
        {"agent_id": None},
    ],
)
def test_an_equal_event_in_another_form_is_the_same_event(api: FlaskClient, again: dict[str, Any]) -> None:
    api.post("/api/events", json=EVENT | {"id": "mine", "timestamp": "2026-01-01T00:00:00Z"})
    assert api.post("/api/events", json=EVENT | {"id": "mine"} | again).status_code == 200


@pytest.mark.parametrize(
    "other",
    [
        {"data": {"n": 2}},
        {"data": {"n": 1.0}},
        {"data": {"n": True}},
        {"data": None},
        {"source": "other"},
        {"task_id": None},
        {"agent_id": "a"},
        {"event_type": "task.failed"},
        {"timestamp": "2020-01-01T00:00:00Z"},
    ],
)
def test_an_existing_id_with_other_content_is_a_conflict(api: FlaskClient, raw: sqlite3.Connection, other: Any) -> None:
    api.post("/api/events", json=EVENT | {"id": "mine"})
    assert_problem(api.post("/api/events", json=EVENT | {"id": "mine"} | other), 409, "mine")
    assert count(raw) == 1


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ([], 422, "at least one"),
        ([EVENT, 7], 422, "object"),
        ([EVENT, [EVENT]], 422, "object"),
        ("text", 422, "object"),
        (7, 422, "object"),
        ({}, 422, "event_type"),
        ({"source": "s"}, 422, "event_type"),
        ({"event_type": "a.b"}, 422, "source"),
        (EVENT | {"form": 1, "color": 2}, 422, "color"),
        (EVENT | {"connection": 1}, 422, "connection"),
        (EVENT | {"max_event_bytes": 10**9}, 422, "max_event_bytes"),
        (EVENT | {"event_type": "NOT a type"}, 422, "event_type"),
        (EVENT | {"event_type": 7}, 422, "event_type"),
        (EVENT | {"event_type": None}, 422, "event_type"),
        (EVENT | {"source": ""}, 422, "source"),
        (EVENT | {"source": ["s"]}, 422, "source"),
        (EVENT | {"source": "s" * 201}, 422, "200"),
        (EVENT | {"source": "a\0b"}, 422, "source"),
        (EVENT | {"task_id": 7}, 422, "task_id"),
        (EVENT | {"agent_id": {}}, 422, "agent_id"),
        (EVENT | {"id": ""}, 422, "id"),
        (EVENT | {"id": 7}, 422, "id"),
        (EVENT | {"timestamp": "yesterday"}, 422, "timestamp"),
        (EVENT | {"timestamp": 1700000000}, 422, "timestamp"),
        (EVENT | {"data": "x" * 1000}, 422, "1,000"),
    ],
)
def test_an_invalid_event_is_rejected_and_not_written(
    api: FlaskClient, raw: sqlite3.Connection, body: Any, status: int, said: str
) -> None:
    assert_problem(api.post("/api/events", json=body), status, said)
    assert count(raw) == 0


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"nonsense", b'{"event_type": "a.b", "source": "s", "data": NaN}',
        b'{"event_type": "a.b", "source": "s", "data": -Infinity}', b"\xff\xfe\x00", b"[" * 100_000,
        b'{"event_type": "a.b", "source": "s", "data": ' + b"1" * 5000 + b"}",
    ],
    ids=range(8),
)  # fmt: skip
def test_a_body_that_is_not_json_is_rejected(api: FlaskClient, raw: sqlite3.Connection, text: bytes) -> None:
    assert_problem(api.post("/api/events", data=text, content_type="application/json"), 400)
    assert count(raw) == 0


@pytest.mark.parametrize("data", ["1e999", '"\\ud800"', '{"\\udc00": 1}', "[" * 900 + "]" * 900])
def test_every_accepted_value_is_returned_as_strict_json(api: FlaskClient, raw: sqlite3.Connection, data: str) -> None:
    text = f'{{"event_type": "a.b", "source": "s", "data": {data}}}'
    answer = api.post("/api/events", data=text, content_type="application/json")
    if answer.status_code == 201:
        assert body_of(api.get(f"/api/events/{body_of(answer)['id']}"))
    else:
        assert answer.status_code in (400, 422)
        assert_problem(answer, answer.status_code)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_another_media_type_is_rejected(api: FlaskClient, content_type: str) -> None:
    assert_problem(api.post("/api/events", data=b"{}", content_type=content_type), 415, "application/json")


def test_json_media_types_with_a_parameter_or_suffix_are_accepted(api: FlaskClient) -> None:
    body = orjson.dumps(EVENT)
    for content_type in ("application/json; charset=utf-8", "application/vnd.outfeed+json"):
        assert api.post("/api/events", data=body, content_type=content_type).status_code == 201


def test_null_is_rejected_as_an_event(api: FlaskClient) -> None:
    assert_problem(api.post("/api/events", data=b"null", content_type="application/json"), 422, "object")


def test_a_body_above_eight_mebibytes_is_rejected(api: FlaskClient) -> None:
    body = b'{"data": "' + b"x" * 8 * 2**20 + b'"}'
    assert_problem(api.post("/api/events", data=body, content_type="application/json"), 413)


def test_a_locked_database_returns_503_with_retry_after(
    api: FlaskClient, raw: sqlite3.Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outfeed.store.database_file.BUSY_TIMEOUT_SECS", 0.05)
    database.close()
    raw.execute("BEGIN IMMEDIATE")
    answer = api.post("/api/events", json=EVENT)
    raw.execute("ROLLBACK")
    assert_problem(answer, 503, "try again")
    assert int(answer.headers["Retry-After"]) > 0
    assert api.post("/api/events", json=EVENT).status_code == 201


# --- GET /api/events --------------------------------------------------------------------------------------------------


def test_the_log_is_listed_newest_first_in_pages(api: FlaskClient, raw: sqlite3.Connection) -> None:
    write(raw, 7)
    first = body_of(api.get("/api/events?limit=3"))
    assert [event["id"] for event in first["events"]] == ["id-7", "id-6", "id-5"]
    write(raw, 1)
    second = body_of(api.get("/api/events", query_string={"limit": 3, "cursor": first["next"]}))
    assert [event["id"] for event in second["events"]] == ["id-4", "id-3", "id-2"]
    last = body_of(api.get("/api/events", query_string={"limit": 3, "cursor": second["next"]}))
    assert ([event["id"] for event in last["events"]], last["next"]) == (["id-1"], None)


def test_an_empty_log_is_an_empty_page(api: FlaskClient) -> None:
    assert body_of(api.get("/api/events")) == {"events": [], "next": None}


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"event_type": "a.b"}, ["id-3", "id-2", "id-1"]),
        ({"source": "other"}, ["id-5", "id-4"]),
        ({"source": "other", "event_type": "a.b"}, []),
        ({"task_id": "none"}, []),
        ({"agent_id": "none"}, []),
        ({"event_type": "a.*"}, ["id-3", "id-2", "id-1"]),
        ({"event_type": "a.b, x.*", "source": "s"}, ["id-3", "id-2", "id-1"]),
    ],
)
def test_each_filter_selects_its_events(
    api: FlaskClient, raw: sqlite3.Connection, query: dict[str, str], ids: list[str]
) -> None:
    write(raw, 3)
    write(raw, 2, "x.y", "other")
    assert [event["id"] for event in body_of(api.get("/api/events", query_string=query))["events"]] == ids


def test_an_event_has_the_documented_fields(api: FlaskClient, raw: sqlite3.Connection) -> None:
    write(raw, 1, data='{"n": [1, null]}')
    expected = {
        "id": "id-1", "event_type": "a.b", "source": "s", "task_id": None, "agent_id": None,
        "timestamp": "2026-01-01T00:00:00.000Z", "data": {"n": [1, None]},
    }  # fmt: skip
    assert body_of(api.get("/api/events/id-1")) == expected
    assert body_of(api.get("/api/events"))["events"] == [expected]


@pytest.mark.parametrize("event_id", ["a/b", "a b", "ü", "%", "a?b", "summary-of", "..", "a/"])
def test_every_id_is_found(api: FlaskClient, event_id: str) -> None:
    api.post("/api/events", json=EVENT | {"id": event_id})
    found = api.get(f"/api/events/{quote(event_id, safe='')}")
    assert body_of(found)["id"] == event_id


def test_an_unknown_id_is_not_found(api: FlaskClient) -> None:
    assert_problem(api.get("/api/events/nobody"), 404, "nobody")


@pytest.mark.parametrize("data", ["NaN", "[Infinity]", "1e999", '"\\ud800"', "[" * 900 + "]" * 900, "{oops"])
def test_odd_rows_become_json_that_every_parser_reads(api: FlaskClient, raw: sqlite3.Connection, data: str) -> None:
    write(raw, 1, data=data)
    assert body_of(api.get("/api/events"))["events"][0]["id"] == "id-1"
    assert body_of(api.get("/api/events/id-1"))["id"] == "id-1"
    assert body_of(api.get("/api/feed?after=0"))["events"][0]["id"] == "id-1"


def test_the_summary_counts_the_events_of_the_last_minutes(api: FlaskClient) -> None:
    for event_type in ("a.b", "x.y", "x.y"):
        api.post("/api/events", json={"event_type": event_type, "source": "s"})
    api.post("/api/events", json={"event_type": "old.one", "source": "s", "timestamp": "2020-01-01T00:00:00Z"})
    assert body_of(api.get("/api/events/summary")) == {"minutes": 60, "summary": {"x.y": 2, "a.b": 1}}
    assert body_of(api.get("/api/events/summary?minutes=0.5"))["minutes"] == 0.5


def test_the_summary_names_a_type_of_bytes_as_the_log_does(api: FlaskClient, raw: sqlite3.Connection) -> None:
    raw.execute(ROW.replace("'2026-01-01T00:00:00.000Z'", "datetime('now')"), ("b", b"\xff", "s", None))
    assert body_of(api.get("/api/events/summary"))["summary"] == {"FF": 1}
    assert body_of(api.get("/api/events"))["events"][0]["event_type"] == "FF"


BAD_QUERIES = [
    "/api/events?limit=0",
    "/api/events?limit=1001",
    "/api/events?limit=many",
    "/api/events?limit=",
    "/api/events?cursor=9223372036854775808",
    "/api/events?cursor=-9223372036854775809",
    "/api/events?cursor=99999999999999999999",
    "/api/events?cursor=x",
    "/api/events?unknown=1",
    "/api/events?offset=5",
    "/api/events/summary?minutes=0",
    "/api/events/summary?minutes=-1",
    "/api/events/summary?minutes=nan",
    "/api/events/summary?minutes=inf",
    "/api/events/summary?minutes=1e300",
    "/api/events/summary?hours=1",
    "/api/feed?after=-1",
    "/api/feed?after=x",
    "/api/feed?after=1.5",
    "/api/feed?after=99999999999999999999&epoch=e",
    "/api/feed?after=5",
    "/api/feed?epoch=&after=5",
    "/api/feed?limit=0",
    "/api/feed?limit=1001",
    "/api/feed?types=*",
    "/api/feed?types=a.b,,c.d",
    "/api/feed?source=",
    "/api/feed?last=0",
    "/api/feed?wait=-1",
    "/api/feed?wait=61",
    "/api/feed?unknown=1",
]


@pytest.mark.parametrize("path", BAD_QUERIES)
def test_an_invalid_query_gets_an_error_with_the_field(api: FlaskClient, path: str) -> None:
    answer = api.get(path)
    field = path.partition("?")[2].partition("=")[0]
    assert_problem(answer, 422, field)


# --- GET /api/feed ----------------------------------------------------------------------------------------------------


def feed(api: FlaskClient, **query: Any) -> Any:
    answer = api.get("/api/feed", query_string=query)
    assert answer.status_code == 200, answer.text
    page = body_of(answer)
    assert page.pop("principal")
    return page


def seqs(page: Any) -> list[int]:
    return [event["seq"] for event in page["events"]]


@pytest.fixture
def epoch(raw: sqlite3.Connection) -> str:
    return str(raw.execute("SELECT value FROM outfeed_meta WHERE key = 'epoch'").fetchone()[0])


def test_without_a_cursor_the_feed_begins_at_the_head(api: FlaskClient, raw: sqlite3.Connection, epoch: str) -> None:
    write(raw, 5)
    assert feed(api) == {"epoch": epoch, "verdict": "live", "events": [], "cursor": 5, "head": 5}


def test_the_feed_continues_after_the_cursor(api: FlaskClient, raw: sqlite3.Connection, epoch: str) -> None:
    write(raw, 5, data='{"n": 1}')
    page = feed(api, after=3, epoch=epoch)
    assert (page["verdict"], seqs(page), page["cursor"], page["head"]) == ("resumed", [4, 5], 5, 5)
    assert page["events"][0] == {
        "seq": 4, "id": "id-4", "event_type": "a.b", "source": "s", "task_id": None, "agent_id": None,
        "timestamp": "2026-01-01T00:00:00.000Z", "data": {"n": 1},
    }  # fmt: skip
    assert feed(api, after=5, epoch=epoch)["events"] == []


def test_a_cursor_of_0_needs_no_epoch(api: FlaskClient, raw: sqlite3.Connection) -> None:
    write(raw, 3)
    assert (feed(api, after=0)["verdict"], seqs(feed(api, after=0))) == ("resumed", [1, 2, 3])


def test_pruned_events_are_a_gap_with_its_range(api: FlaskClient, raw: sqlite3.Connection, epoch: str) -> None:
    write(raw, 9)
    raw.execute("DELETE FROM outbox WHERE seq <= 6")
    page = feed(api, after=2, epoch=epoch)
    assert (page["verdict"], page["missing"], seqs(page), page["cursor"]) == ("gap", {"from": 3, "to": 6}, [7, 8, 9], 9)


@pytest.mark.parametrize("query", [{"after": 50}, {"after": 2, "epoch": "other"}])
def test_a_cursor_of_another_history_is_a_reset(
    api: FlaskClient, raw: sqlite3.Connection, epoch: str, query: dict[str, Any]
) -> None:
    write(raw, 5)
    page = feed(api, **{"epoch": epoch, **query})
    assert page == {"epoch": epoch, "verdict": "reset", "events": [], "cursor": 5, "head": 5}


def test_the_limit_counts_matches_and_the_cursor_stops_at_the_last(
    api: FlaskClient, raw: sqlite3.Connection, epoch: str
) -> None:
    for _ in range(4):
        write(raw, 2)
        write(raw, 1, "x.y")
    page = feed(api, after=0, limit=2, types="x.*")
    assert (seqs(page), page["cursor"]) == ([3, 6], 6)
    page = feed(api, after=page["cursor"], epoch=epoch, limit=2, types="x.*")
    assert (seqs(page), page["cursor"]) == ([9, 12], 12)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("query", [{}, {"types": "x.*"}, {"types": "x.y,a.b"}, {"source": "other"}])
def test_consecutive_pages_are_the_whole_feed(
    api: FlaskClient, raw: sqlite3.Connection, epoch: str, limit: int, query: dict[str, str]
) -> None:
    for n in range(5):
        write(raw, 2)
        write(raw, 1, "x.y", "other" if n % 2 else "s")
    raw.execute("DELETE FROM outbox WHERE seq IN (5, 15)")  # holes
    found, cursor = [], 0
    while cursor < 15:
        page = feed(api, after=cursor, epoch=epoch, limit=limit, **query)
        assert page["cursor"] > cursor
        assert len(page["events"]) <= limit
        found += seqs(page)
        cursor = page["cursor"]
    every = {"types=x.*": [3, 6, 9, 12], "source=other": [6, 12]}
    expected = every.get("&".join(f"{key}={value}" for key, value in query.items()), [*range(1, 5), *range(6, 15)])
    assert found == expected


def test_several_types_are_separated_by_commas(api: FlaskClient, raw: sqlite3.Connection) -> None:
    for event_type in ("a.b", "c.d", "c.e", "x.y"):
        write(raw, 1, event_type)
    assert seqs(feed(api, after=0, types="a.b,c.*")) == [1, 2, 3]


def test_an_empty_page_after_the_scan_limit_moves_the_cursor(
    api: FlaskClient, raw: sqlite3.Connection, epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["outfeed.http.transports.feed"], "MAX_SCANNED_ROWS", 2500)
    write(raw, 6000)
    write(raw, 1, "x.y")
    cursors, page = [], feed(api, after=0, types="x.y")
    while not page["events"]:
        cursors.append(page["cursor"])
        page = feed(api, after=page["cursor"], epoch=epoch, types="x.y")
    assert cursors == [2500, 5000]
    assert (seqs(page), page["cursor"]) == ([6001], 6001)


@pytest.mark.parametrize(
    "payload", ["{}", " {}", '{\n"id": 1}', '{"seq": 99}', "[]", "", None, "nonsense", "[" * 1000 + "]" * 1000]
)
def test_a_row_of_another_writer_breaks_no_page(api: FlaskClient, raw: sqlite3.Connection, payload: str | None) -> None:
    write(raw, 1)
    raw.execute("INSERT INTO outbox (event_id, payload) VALUES ('x', ?)", (payload,))
    write(raw, 1)
    assert seqs(feed(api, after=0)) == [1, 2, 3]


def test_pruning_between_verdict_and_read_is_a_gap(
    api: FlaskClient, flask_app: Flask, raw: sqlite3.Connection, epoch: str
) -> None:
    write(raw, 10)
    outbox = flask_app.extensions["outfeed"].outbox
    read_after = outbox.read_after
    prunes = [lambda: raw.execute("DELETE FROM outbox WHERE seq <= 6")]

    def prune_then_read(seq: int, limit: int) -> Any:
        if prunes:
            prunes.pop()()
        return read_after(seq, limit)

    outbox.read_after = prune_then_read
    page = feed(api, after=2, epoch=epoch)
    assert (page["verdict"], page["missing"], seqs(page)) == ("gap", {"from": 3, "to": 6}, [7, 8, 9, 10])


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/nothing", 404),
        ("GET", "/api/", 404),
        ("GET", "/nothing", 404),
        ("DELETE", "/api/events", 405),
        ("PUT", "/api/events/id-1", 405),
        ("POST", "/api/feed", 405),
        ("POST", "/api/events/summary", 405),
    ],
)
def test_every_error_is_a_problem(api: FlaskClient, method: str, path: str, status: int) -> None:
    answer = api.open(path, method=method)
    assert_problem(answer, status)
    if status == 405:
        assert answer.headers["Allow"]


def test_a_missing_database_is_a_temporary_problem(api: FlaskClient, database: Database) -> None:
    away = database.path.with_name("away.db")
    database.close()
    database.path.rename(away)
    answer = api.get("/api/events")
    away.rename(database.path)
    assert answer.status_code in (401, 503)
    assert answer.content_type == "application/problem+json"
    assert api.get("/api/events").status_code == 200


def test_an_internal_error_reveals_no_details(
    api: FlaskClient, flask_app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("the inner workings")

    flask_app.extensions["outfeed"].outbox.window = fail
    answer = api.get("/api/feed")
    assert_problem(answer, 500)
    assert "inner workings" not in answer.text
    assert "inner workings" in caplog.text
