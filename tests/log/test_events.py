"""Writes over HTTP: one event, a batch and NDJSON, each once.

A batch is written completely or not at all.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from outfeed.store import database_file
from outfeed.store.database import Database
from tests.app_fixtures import Api

EVENT = {"event_type": "build.done", "source": "ci"}


def named(id_: str, **more: Any) -> dict[str, Any]:
    return {**EVENT, "id": id_, **more}


def lines(*events: Any) -> str:
    return "\n".join(json.dumps(event) for event in events)


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection


def written(raw: sqlite3.Connection) -> list[str]:
    return [row[0] for row in raw.execute("SELECT id FROM event_log ORDER BY rowid")]


class TestWriting:
    def test_the_response_to_one_event_has_its_position(self, api: Api, raw: sqlite3.Connection) -> None:
        answer = api.post("/api/events", json=named("a", data={"n": 1}))
        (epoch,) = raw.execute("SELECT value FROM outfeed_meta WHERE key = 'epoch'").fetchone()

        assert (answer.status_code, answer.json) == (201, {"id": "a", "seq": 1, "epoch": epoch})
        assert raw.execute("SELECT data FROM event_log").fetchall() == [('{"n":1}',)]

    @pytest.mark.parametrize("content_type", ["application/ndjson", "application/jsonl", "application/x-ndjson"])
    def test_each_media_type_of_ndjson_is_accepted(self, api: Api, raw: sqlite3.Connection, content_type: str) -> None:
        answer = api.post("/api/events", data=lines(named("a"), named("b")), content_type=content_type)

        assert answer.status_code == 201
        assert written(raw) == ["a", "b"]

    @pytest.mark.parametrize("form", ["json", "ndjson"])
    def test_the_response_to_a_batch_has_the_same_order(self, api: Api, raw: sqlite3.Connection, form: str) -> None:
        events = [named("c"), EVENT, named("a"), named("b")]
        answer = post_batch(api, events, form)

        assert answer.status_code == 201
        assert [one["seq"] for one in answer.json] == [1, 2, 3, 4]
        assert [one["id"] for one in answer.json] == written(raw)

    def test_ndjson_may_have_blank_lines_and_one_line_is_a_batch(self, api: Api) -> None:
        answer = api.post("/api/events", data=f"\n{lines(EVENT)}\r\n\n", content_type="application/x-ndjson")
        assert (answer.status_code, len(answer.json)) == (201, 1)

    @pytest.mark.parametrize("form", ["json", "ndjson"])
    def test_a_repeated_call_gets_the_same_response_and_writes_nothing(
        self, api: Api, raw: sqlite3.Connection, form: str
    ) -> None:
        events = [named(f"e{n}", data={"n": n}) for n in range(1000)]
        first, again = post_batch(api, events, form), post_batch(api, events, form)

        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json == again.json
        assert len(written(raw)) == 1000

    def test_a_batch_may_contain_existing_and_new_events(self, api: Api, raw: sqlite3.Connection) -> None:
        api.post("/api/events", json=[named("a"), named("b")])
        answer = api.post("/api/events", json=[named("b"), named("new"), named("a")])

        assert answer.status_code == 201
        assert [one["seq"] for one in answer.json] == [2, 3, 1]
        assert written(raw) == ["a", "b", "new"]

    def test_a_duplicate_in_a_batch_is_written_once_and_has_two_receipts(
        self, api: Api, raw: sqlite3.Connection
    ) -> None:
        answer = api.post("/api/events", json=[named("a"), named("b"), named("a")])
        assert [one["seq"] for one in answer.json] == [1, 2, 1]
        assert written(raw) == ["a", "b"]

    def test_the_seq_is_null_once_the_outbox_row_is_pruned(self, api: Api, raw: sqlite3.Connection) -> None:
        api.post("/api/events", json=named("a"))
        raw.execute("DELETE FROM outbox")
        assert api.post("/api/events", json=named("a")).json["seq"] is None
        assert api.post("/api/events", json=named("b")).json["seq"] == 2

    def test_a_repeat_without_a_timestamp_is_the_same_event(self, api: Api) -> None:
        api.post("/api/events", json=named("a", timestamp="2026-01-01T00:00:00Z"))
        assert api.post("/api/events", json=named("a")).status_code == 200
        assert api.post("/api/events", json=named("a", timestamp="2026-01-01T01:00:00+01:00")).status_code == 200
        assert api.post("/api/events", json=named("a", timestamp="2026-01-01T00:00:01Z")).status_code == 409

    @pytest.mark.parametrize("data", ['{"b": 1, "a": 2}', "1.0", "1", "true", "null", '"\\u00e9"', "[]"])
    def test_data_is_compared_as_json(self, api: Api, data: str) -> None:
        body = f'{{"id": "a", "event_type": "a.b", "source": "s", "data": {data}}}'
        assert api.post("/api/events", data=body, content_type="application/json").status_code == 201
        other = body.replace('"b": 1, "a": 2', '"a": 2, "b": 1').replace("\\u00e9", "é")
        assert api.post("/api/events", data=other.encode(), content_type="application/json").status_code == 200
        for changed in ("1", "1.0", "true", "2"):
            answer = api.post("/api/events", json=named("a", data=json.loads(changed)) | {"event_type": "a.b"})
            assert answer.status_code == 409 or changed == data


def post_batch(api: Api, events: list[dict[str, Any]], form: str) -> Any:
    if form == "json":
        return api.post("/api/events", json=events)
    return api.post("/api/events", data=lines(*events), content_type="application/x-ndjson")


JSON, NDJSON = "application/json", "application/x-ndjson"
BAD = {
    "nothing": ("", JSON, 400, {}, "not JSON"),
    "no JSON": ("{", JSON, 400, {}, "not JSON"),
    "a constant": ('[{"event_type": "a.b", "source": "s", "data": NaN}]', JSON, 400, {}, "NaN"),
    "deep": ("[" * 100_000, JSON, 400, {}, "not JSON"),
    "deep, and whole": ("[" * 99_999 + "]" * 99_999, JSON, 422, {"code": "invalid_json"}, "nested too deeply"),
    "null": ("null", JSON, 422, {"code": "invalid_event"}, "JSON object"),
    "text": ('"event"', JSON, 422, {"code": "invalid_event"}, "JSON object"),
    "an empty batch": ("[]", JSON, 422, {"code": "invalid_event"}, "at least one"),
    "too many": (json.dumps([EVENT] * 1001), JSON, 422, {"code": "invalid_event"}, "at most 1,000"),
    "text in a batch": (json.dumps([EVENT, "x"]), JSON, 422, {}, "event 1"),
    "a batch in a batch": (json.dumps([EVENT, [EVENT]]), JSON, 422, {}, "event 1"),
    "an unknown field": (json.dumps({**EVENT, "seq": 7}), JSON, 422, {"field": "seq"}, "unknown field"),
    "an unknown field in a batch": (
        json.dumps([EVENT, {**EVENT, "x": 1}]), JSON, 422, {"index": 1, "field": "x"}, "event 1: x: is an unknown field"
    ),
    "a misspelt field": (json.dumps({"type": "x.y"}), JSON, 422, {"field": "type"}, "did you mean event_type?"),
    "a misspelt field beside a missing one": (
        json.dumps([{"source": "s"}, {**EVENT, "agent": "a"}]), JSON, 422, {"field": "event_type"}, "missing"
    ),
    "a field by a near name": (json.dumps({**EVENT, "Timestmp": 1}), JSON, 422, {}, "did you mean timestamp?"),
    "a missing field": (json.dumps([{"source": "s"}]), JSON, 422, {"index": 0, "field": "event_type"}, "missing"),
    "a field of another kind": (json.dumps([{**EVENT, "source": 7}]), JSON, 422, {"field": "source"}, "must be text"),
    "a bad type": (
        json.dumps([EVENT, {**EVENT, "event_type": "Bad"}]), JSON, 422, {"index": 1, "field": "event_type"}, "joined by"
    ),
    "a long id": (json.dumps([named("x" * 201)]), JSON, 422, {"index": 0, "field": "id"}, "1 to 200"),
    "a naive time": (json.dumps([{**EVENT, "timestamp": "2026-01-01"}]), JSON, 422, {"field": "timestamp"}, "zone"),
    "too much data": (json.dumps([EVENT, {**EVENT, "data": "x" * 70_000}]), JSON, 422, {"index": 1}, "at most 65,536"),
    "half a surrogate": ('[{"event_type": "a.b", "source": "\\ud800"}]', JSON, 422, {"field": "source"}, "storable"),
    "the same id with other content": (json.dumps([named("a"), named("a", data=1)]), JSON, 409, {"index": 1}, "'a'"),
    "a known id with other content": (json.dumps([EVENT, named("known", data=1)]), JSON, 409, {"index": 1}, "known"),
    "no lines": ("\n\n", NDJSON, 422, {"code": "invalid_event"}, "at least one"),
    "a bad line": (f"{lines(EVENT)}\n\n{{", NDJSON, 400, {}, "line 3 is not JSON"),
    "a line too many": (lines(*[EVENT] * 1001), NDJSON, 422, {}, "at most 1,000"),
    "millions of blank lines": ("\n" * (8 * 2**20 - 1), NDJSON, 422, {}, "at most 10,000 lines"),
    "bad lines after one too many": (lines(*[EVENT] * 1001) + "\n{" * 9, NDJSON, 422, {}, "at most 1,000"),
    "a form": ("event_type=a.b", "application/x-www-form-urlencoded", 415, {}, "application/x-ndjson"),
    "too large": ("[" + " " * (8 * 2**20) + "]", JSON, 413, {}, "limit of 8 MiB"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "content_type", "status", "members", "detail"), BAD.values(), ids=BAD)
def test_an_invalid_body_is_rejected_with_the_position_and_not_written(
    api: Api, raw: sqlite3.Connection, body: str, content_type: str, status: int, members: dict[str, Any], detail: str
) -> None:
    api.post("/api/events", json=named("known"))
    answer = api.post("/api/events", data=body, content_type=content_type)

    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    assert members.items() <= answer.json.items()
    assert detail in answer.json["detail"]
    assert written(raw) == ["known"]


class TestCompressedBodies:
    def post(self, api: Api, body: bytes, encoding: str = "gzip", content_type: str = JSON) -> Any:
        headers = {**api.headers, "Content-Encoding": encoding}
        return api.client.post("/api/events", data=body, content_type=content_type, headers=headers)

    @pytest.mark.parametrize("content_type", [JSON, NDJSON])
    def test_a_gzip_body_may_have_several_members(self, api: Api, raw: sqlite3.Connection, content_type: str) -> None:
        text = (
            lines(named("a"), named("b")) if content_type == NDJSON else json.dumps([named("a"), named("b")])
        ).encode()
        packed = gzip.compress(text[:9]) + gzip.compress(text[9:])

        assert self.post(api, packed, content_type=content_type).status_code == 201
        assert written(raw) == ["a", "b"]

    @pytest.mark.parametrize(
        ("body", "encoding", "status", "detail"),
        [
            (gzip.compress(b"[" + b" " * (8 * 2**20) + b"]"), "gzip", 413, "after decompression"),
            (gzip.compress(b" " * (4 * 2**20)) * 3, "gzip", 413, "after decompression"),
            (gzip.compress(json.dumps(EVENT).encode())[:-9], "gzip", 400, "ends early"),
            (gzip.compress(b" ") * 17, "gzip", 400, "more than 16 members"),
            (b"", "gzip", 400, "ends early"),
            (b"{}", "gzip", 400, "not gzip"),
            (b"{}", "br", 415, "must be gzip or none, got 'br'"),
        ],
        ids=["too large", "too large in parts", "cut", "many members", "nothing", "not packed", "another"],
    )
    def test_an_invalid_or_too_large_gzip_body_is_rejected(
        self, api: Api, raw: sqlite3.Connection, body: bytes, encoding: str, status: int, detail: str
    ) -> None:
        answer = self.post(api, body, encoding)

        assert answer.status_code == status
        assert detail in answer.json["detail"]
        assert written(raw) == []


@pytest.mark.parametrize("path", ["/api/consumers", "/api/swarm/agents"])
def test_every_json_body_may_be_compressed(api: Api, path: str) -> None:
    def post(body: bytes, encoding: str) -> Any:
        headers = {**api.headers, "Content-Encoding": encoding}
        return api.client.post(path, data=body, content_type=JSON, headers=headers)

    assert post(gzip.compress(b'{"name": "forge"}'), "gzip").status_code == 201
    assert post(gzip.compress(b"{name"), "gzip").json["detail"] == "the body is not JSON"
    assert post(b"{}", "br").status_code == 415
    assert "did you mean name?" in post(b'{"nme": "forge"}', "identity").json["detail"]


@pytest.mark.parametrize("path", ["/api/consumers/x/ack", "/api/swarm/agents"])
def test_each_route_rejects_a_deeply_nested_json_body(api: Api, path: str) -> None:
    answer = api.post(path, data='{"seq": ' + "[" * 100_000, content_type=JSON)

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_json")


@pytest.mark.parametrize("depth", [65, 70, 970, 5000])
@pytest.mark.parametrize("form", ["one", "batch", "lines"])
def test_data_nested_too_deeply_is_rejected(api: Api, raw: sqlite3.Connection, depth: int, form: str) -> None:
    event = '{"event_type":"a.b","source":"s","data":' + "[" * depth + "]" * depth + "}"
    body, content_type = {"one": (event, JSON), "batch": (f"[{event}]", JSON), "lines": (event, NDJSON)}[form]
    answer = api.post("/api/events", data=body, content_type=content_type)

    assert answer.status_code == 422
    assert "nested too deeply" in answer.json["detail"]
    assert written(raw) == []


@pytest.mark.parametrize("form", ["one", "batch", "lines"])
def test_data_of_64_levels_is_written(api: Api, form: str) -> None:
    event = '{"event_type":"a.b","source":"s","data":' + "[" * 64 + "]" * 64 + "}"
    body, content_type = {"one": (event, JSON), "batch": (f"[{event}]", JSON), "lines": (event, NDJSON)}[form]

    assert api.post("/api/events", data=body, content_type=content_type).status_code == 201


class TestDatabaseFailures:
    def test_a_busy_database_returns_503_with_retry_after(
        self, api: Api, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.1)
        api.services.database.close()  # open connections have a longer busy timeout
        raw.execute("BEGIN IMMEDIATE")
        answer = api.post("/api/events", json=[named("a"), named("b")])
        raw.execute("ROLLBACK")

        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert api.post("/api/events", json=[named("a"), named("b")]).status_code == 201

    def test_a_full_disk_writes_no_event_of_a_batch(self, api: Api, raw: sqlite3.Connection) -> None:
        batch = [named(f"e{n}", data="x" * 4000) for n in range(200)]
        with api.services.database.connection() as connection:  # the next request gets the same one
            connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0] + 50}")
        answer = api.post("/api/events", json=batch)

        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
        assert written(raw) == []
        assert raw.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
        with api.services.database.connection() as connection:
            connection.execute("PRAGMA max_page_count = 1073741823")
        assert api.post("/api/events", json=batch).status_code == 201

    def test_concurrent_batches_are_all_written(self, api: Api, raw: sqlite3.Connection) -> None:
        from concurrent.futures import ThreadPoolExecutor

        def post(batch: int) -> int:
            client = api.app.test_client()
            events = [named(f"{batch}-{n}") for n in range(20)]
            return client.post("/api/events", json=events, headers=api.headers).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(post, range(40))) == {201}
        assert len(set(written(raw))) == 800
