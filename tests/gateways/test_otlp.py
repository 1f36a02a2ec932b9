"""OpenTelemetry logs: mapping, rights, limits, errors and bad input."""

from __future__ import annotations

import gzip
import json
import sqlite3
import sys
from contextlib import closing
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from outfeed import config, list_events
from outfeed.access.store import account
from outfeed.store import database_file
from outfeed.store.database import Database
from tests.app_fixtures import Api
from tests.gateways.otlp_samples import PROTOBUF, TIME, protobuf, record, request

JSON = "application/json"


def post(api: Api, body: Any, media_type: str = JSON, **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body)
    return api.client.post("/v1/logs", data=data, content_type=media_type, headers={**api.headers, **headers})


def stored(api: Api, *records: dict[str, Any], **more: Any) -> Any:
    """Post the records; return the event of the last one."""
    answer = post(api, request(*records, **more))
    assert (answer.status_code, answer.json) == (200, {})
    return list_events(limit=1)[0]


def logged() -> list[Any]:
    return list_events("shop.*", limit=-1)


class TestEvents:
    def test_a_record_becomes_an_event(self, api: Api) -> None:
        members = {
            "session.id": "s-1", "gen_ai.agent.id": "a-1", "count": 3, "ratio": 0.5, "paid": True, "raw": b"\x00\xff",
            "tags": ["a", 1, None], "nested": {"deep": {"er": 1}}, "nan": float("nan"), "large": 2**60,
        }  # fmt: skip
        ids = {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174"}

        event = stored(
            api,
            record("Paid 5 EUR", members, eventName="Shop.order-paid", severityNumber=9, severityText="Info", **ids),
            resource={"service.name": "till", "host.name": "h1"},
        )

        assert (event.event_type, event.source) == ("shop.order_paid", "till")
        assert (event.task_id, event.agent_id, event.timestamp) == ("s-1", "a-1", "2026-01-31T12:00:00.123Z")
        assert event.data == {
            "message": "Paid 5 EUR", "severity": "Info", "event.name": "Shop.order-paid",
            "trace_id": ids["traceId"].lower(), "span_id": ids["spanId"],
            **members, "raw": "AP8=", "nan": "NaN",
            "resource": {"service.name": "till", "host.name": "h1"}, "scope": "shop.orders",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("fields", "event_type"),
        [
            ({"eventName": "order.paid"}, "order.paid"),
            ({"eventName": "paid"}, "otel.paid"),
            ({"eventName": "event src/main.rs:42"}, "log.unspecified"),
            ({"eventName": "other.name", "members": {"event.name": "order.paid"}}, "order.paid"),
            ({"eventName": "order.paid", "members": {"event.name": 7}}, "order.paid"),
            ({"body": "shop.paid", "members": {"event.name": "paid"}}, "shop.paid"),
            ({"body": "It is not.paid", "members": {"event.name": "paid"}}, "otel.paid"),
            ({"severityNumber": 1}, "log.trace"),
            ({"severityNumber": 8}, "log.debug"),
            ({"severityNumber": 13, "severityText": "error"}, "log.warn"),
            ({"severityNumber": 24}, "log.fatal"),
            ({"severityNumber": 99}, "log.unspecified"),
            ({"severityText": "CRITICAL"}, "log.fatal"),
            ({"severityText": "loud"}, "log.unspecified"),
        ],
    )
    def test_the_type_is_the_name_else_the_severity(self, api: Api, fields: Any, event_type: str) -> None:
        assert (
            stored(api, record(fields.pop("body", None), fields.pop("members", None), **fields)).event_type
            == event_type
        )

    @pytest.mark.parametrize(
        ("number", "level"), [(12, None), (13, "warning"), (16, "warning"), (17, "error"), (24, "error")]
    )
    def test_the_severity_sets_the_level(self, api: Api, number: int, level: str | None) -> None:
        assert stored(api, record("x", severityNumber=number)).data.get("level") == level

    @pytest.mark.parametrize(
        ("members", "resource", "task_id", "agent_id"),
        [
            ({"conversation.id": "c"}, {}, "c", None),
            ({"gen_ai.conversation.id": "g", "agent.id": 7}, {}, "g", "7"),
            ({"session.id": "s", "conversation.id": "c", "gen_ai.agent.id": "x", "agent.id": "y"}, {}, "s", "x"),
            ({}, {"session.id": "r", "agent.id": "ra"}, "r", "ra"),
            ({"conversation.id": "c"}, {"session.id": "r"}, "c", None),
            ({"agent_id": "u"}, {}, None, "u"),
            ({"session.id": "", "conversation.id": ["no"]}, {}, None, None),
        ],
    )
    def test_task_and_agent_are_those_of_the_record_else_of_the_resource(
        self, api: Api, members: Any, resource: Any, task_id: str | None, agent_id: str | None
    ) -> None:
        event = stored(api, record("x", members), resource=resource)
        assert (event.task_id, event.agent_id, event.source) == (task_id, agent_id, "tests")

    def test_the_time_is_that_of_the_event_else_of_its_observation_else_now(self, api: Api) -> None:
        def time_of(**fields: Any) -> str:
            return str(stored(api, record("x", **fields)).timestamp)

        assert time_of(timeUnixNano=1, observedTimeUnixNano=TIME) == "1970-01-01T00:00:00.000Z"
        assert time_of(timeUnixNano="0", observedTimeUnixNano=TIME) == "2026-01-31T12:00:00.123Z"
        assert time_of(timeUnixNano=None) > "2026-01-31T12:00:00.123Z"
        assert time_of(timeUnixNano=2**64 - 1) == "2554-07-21T23:34:33.709Z"

    def test_a_body_with_members_stays_whole_and_the_last_of_equal_keys_counts(self, api: Api) -> None:
        twice = {"attributes": [{"key": "a", "value": {"intValue": n}} for n in (1, 2)]}
        data = stored(api, record({"a": [1]}, **twice)).data
        assert (data["body"], data["a"], "message" in data) == ({"a": [1]}, 2, False)

    def test_an_id_of_zeros_is_no_id(self, api: Api) -> None:
        event = stored(api, record("x", traceId="0" * 32, spanId=""))
        assert event.data.keys() & {"trace_id", "span_id"} == set()

    def test_missing_fields_and_unknown_ones_are_no_error(self, api: Api) -> None:
        body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"later": 1, "body": {"laterValue": 2}}, {}]}]}]}
        assert post(api, body).json == {}
        assert [event.data for event in list_events("log.*")] == [{}, {}]
        for empty in ({}, {"resourceLogs": []}, {"resourceLogs": [{"scopeLogs": None}]}):
            assert (post(api, empty).status_code, post(api, empty).json) == (200, {})


class TestRetries:
    def test_a_repeated_request_writes_nothing_and_is_accepted(self, api: Api) -> None:
        body = request(record("a", eventName="shop.a"), record("b", eventName="shop.b"))
        for media_type, data in ((JSON, body), (JSON, body), (PROTOBUF, protobuf(body))):
            answer = post(api, data, media_type)
            assert answer.status_code == 200
        assert sorted(event.event_type for event in logged()) == ["shop.a", "shop.b"]

    def test_equal_records_of_one_request_are_different_events(self, api: Api) -> None:
        same = record("again", eventName="shop.again")
        post(api, request(same, same, same))
        post(api, request(same, same, same))
        assert len({event.id for event in logged()}) == len(logged()) == 3

    def test_a_known_id_is_accepted_also_if_the_event_would_differ_now(self, api: Api, database: Database) -> None:
        body = request(record("a", eventName="shop.a"), resource={})
        other = {"Authorization": f"Bearer {account.create_token(database, 'other', ['write'])}"}
        assert [post(api, body, **headers).json for headers in ({}, other)] == [{}, {}]
        assert [event.source for event in logged()] == ["tests"]

    def test_the_id_is_of_the_record_before_redaction(self, api: Api) -> None:
        for secret in ("one", "two"):
            post(api, request(record("x", {"password": secret}, eventName="shop.login")))
        assert [event.data["password"] for event in logged()] == ["[redacted]"] * 2


class TestProtobuf:
    def test_an_answer_has_the_encoding_of_the_request(self, api: Api) -> None:
        for body in (protobuf(request(record("a", eventName="shop.a"))), b""):
            answer = post(api, body, PROTOBUF)
            assert (answer.status_code, answer.content_type, answer.data) == (200, PROTOBUF, b"")

        answer = post(api, protobuf(request(record("a", eventName="access.a"))), PROTOBUF)
        found = ExportLogsServiceResponse.FromString(answer.data).partial_success
        assert (answer.status_code, found.rejected_log_records) == (200, 1)
        assert found.error_message.startswith("record 0: only Outfeed itself writes")

    @pytest.mark.parametrize(
        "body",
        [b"\xff", b"\x0a\x02\x12", b"{}", protobuf(request(record("a")))[:-3], b"\x0a" + b"\xff" * 9 + b"\x01"],
    )
    def test_a_body_that_is_not_protobuf_is_an_error_in_protobuf(self, api: Api, body: bytes) -> None:
        answer = post(api, body, PROTOBUF)
        status = Status.FromString(answer.data)
        assert (answer.status_code, answer.content_type, status.code) == (400, PROTOBUF, 3)
        assert "is not an ExportLogsServiceRequest" in status.message

    def test_text_that_is_not_utf_8_and_deep_values_are_errors(self, api: Api) -> None:
        encoded = protobuf(request(record("abcdefgh", eventName="shop.a"), record("b", eventName="shop.b")))
        deep: Any = "x"
        for _ in range(90):
            deep = [deep]
        for body in (encoded.replace(b"abcdefgh", b"abc\xffefgh"), wrapped(deep)):
            assert post(api, body, PROTOBUF).status_code == 400
        assert logged() == []

    def test_without_the_extra_the_error_names_it(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "outfeed.gateways.otlp.protobuf_encoding", raising=False)
        monkeypatch.delattr("outfeed.gateways.otlp.protobuf_encoding", raising=False)
        monkeypatch.setitem(sys.modules, "google.protobuf.message", None)

        answer = post(api, b"", PROTOBUF)

        assert answer.status_code == 415
        assert "needs the extra outfeed[otel]" in Status.FromString(answer.data).message
        assert post(api, request(record("a", eventName="shop.a"))).status_code == 200


def wrapped(value: Any) -> bytes:
    """Return a request in protobuf with *value* as the body of a record."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    found = ExportLogsServiceRequest()
    place = found.resource_logs.add().scope_logs.add().log_records.add().body
    while isinstance(value, list):
        place, value = place.array_value.values.add(), value[0]
    place.string_value = value
    encoded: bytes = found.SerializeToString()
    return encoded


class TestRejectedRecords:
    def test_the_valid_records_are_stored_and_each_other_has_its_reason(self, api: Api) -> None:
        answer = post(
            api,
            request(
                record("0", eventName="shop.first"),
                record("1", eventName="access.granted"),
                record("2", eventName="system.pruned"),
                record("3", {"session.id": "x" * 201}, eventName="shop.long"),
                record("x" * 70_000, eventName="shop.large"),
                record("5", eventName="9.lives"),
                record("\ud800", eventName="shop.surrogate"),
                record("7", {"a": nested(64)}, eventName="shop.deep"),
                record("8", eventName="shop.last"),
            ),
        )

        assert (answer.status_code, answer.json["partialSuccess"]["rejectedLogRecords"]) == (200, "7")
        reasons = answer.json["partialSuccess"]["errorMessage"].split("; record ")
        for number, part in enumerate(
            ("'access.granted'", "'system.pruned'", "task_id: must have 1 to 200", "data: is 70,",
             "event_type: must be lower", "data: is not JSON-serialisable", "data: is nested too deeply"), 1
        ):  # fmt: skip
            assert f"{number}: " in reasons[number - 1]
            assert part in reasons[number - 1]
        assert sorted(event.event_type for event in logged()) == ["shop.first", "shop.last"]

    def test_many_reasons_are_counted(self, api: Api) -> None:
        answer = post(api, request(*[record(str(n), eventName="access.x") for n in range(12)]))
        found = answer.json["partialSuccess"]
        assert found["rejectedLogRecords"] == "12"
        assert (found["errorMessage"].count("record "), found["errorMessage"][-12:]) == (10, "; and 2 more")

    def test_records_of_other_types_than_the_tokens_are_rejected(self, api: Api, database: Database) -> None:
        secret = account.create_token(database, "limited", ["write"], types=["shop.*"])
        body = request(record("a", eventName="shop.a"), record("b", eventName="other.b"))
        answer = post(api, body, Authorization=f"Bearer {secret}")
        assert "limited may not write events of the type 'other.b'" in answer.json["partialSuccess"]["errorMessage"]
        assert [event.event_type for event in list_events(limit=-1) if event.source == "shop"] == ["shop.a"]
        refusals = api.services.metrics.registry.get_sample_value("outfeed_refusals_total", {"reason": "forbidden"})
        assert refusals == 1

    def test_more_than_a_thousand_records_are_written_a_thousand_at_a_time(self, api: Api) -> None:
        records = [record(str(n), eventName="shop.a") for n in range(2_101)]
        records[1_500]["eventName"] = "access.a"
        answer = post(api, request(*records))
        assert answer.json["partialSuccess"]["errorMessage"].startswith("record 1500: ")
        assert len(logged()) == 2_100


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def one(**fields: Any) -> dict[str, Any]:
    return request({**record("x", eventName="shop.a"), **fields})


BAD = {
    "no object": ([], "the body: must be an object"),
    "another signal": ({"resourceSpans": []}, "'resourceSpans': is unknown; logs stand under resourceLogs"),
    "snake case": ({"resource_logs": []}, "'resource_logs': is unknown"),
    "no array": ({"resourceLogs": {}}, "resourceLogs: must be an array"),
    "a text as resource": ({"resourceLogs": ["x"]}, "resourceLogs: must be an object"),
    "a text as record": (request("x"), "record 0: logRecords: must be an object"),  # type: ignore[arg-type]
    "a text as attributes": (one(attributes="x"), "record 0: attributes: must be an array"),
    "a key that is no text": (one(attributes=[{"key": 1}]), "key: must be text"),
    "a time that is no number": (one(timeUnixNano="today"), "timeUnixNano: must be an integer of at most 64 bits"),
    "a negative time": (one(timeUnixNano=-1), "timeUnixNano: must be an integer"),
    "a time of 65 bits": (one(timeUnixNano=str(2**64)), "timeUnixNano: must be an integer"),
    "a time with a fraction": (one(timeUnixNano=1.5), "timeUnixNano: must be an integer"),
    "true as a time": (one(timeUnixNano=True), "timeUnixNano: must be an integer"),
    "a severity by name": (
        one(severityNumber="SEVERITY_NUMBER_INFO"),
        "severityNumber: must be an integer of at most 31",
    ),
    "an id in base64": (one(traceId="W47/95gDgQPSabYzgT/GDA=="), "traceId: must be hexadecimal"),
    "a name that is no text": (one(eventName=1), "eventName: must be text"),
    "a value without its kind": (one(body="x"), "value: must be an object"),
    "a value of two kinds": (one(body={"stringValue": "a", "intValue": 1}), "value: must have one kind"),
    "a boolean as text": (one(body={"boolValue": "true"}), "boolValue: must be true or false"),
    "an integer of 65 bits": (one(body={"intValue": str(2**63)}), "intValue: must be an integer of at most 63 bits"),
    "a number as text": (one(body={"doubleValue": "1.5"}), "doubleValue: must be a number"),
    "a number without end": (one(body={"doubleValue": 10**400}), "doubleValue: must be a number"),
    "bytes that are not base64": (one(body={"bytesValue": "§"}), "bytesValue: must be base64"),
    "an array that is none": (one(body={"arrayValue": [1]}), "arrayValue: must be an object"),
    "a deep value": (one(body={"arrayValue": {"values": [record(nested(70))["body"]]}}), "value: is nested too deeply"),
}


class TestBadRequests:
    @pytest.mark.parametrize("case", BAD)
    def test_a_malformed_request_is_rejected_as_a_whole(self, api: Api, case: str) -> None:
        body, message = BAD[case]
        if isinstance(body, dict) and body.get("resourceLogs") and isinstance(body["resourceLogs"], list):
            body = {
                "resourceLogs": [*request(record("good", eventName="shop.good"))["resourceLogs"], *body["resourceLogs"]]
            }
            message = message.replace("record 0", "record 1")

        answer = post(api, body)

        assert (answer.status_code, answer.content_type, answer.json["code"]) == (400, JSON, 3)
        assert message in answer.json["message"]
        assert logged() == []

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"nope", b'{"resourceLogs": NaN}', b"\xff\xfe\xff", b"[" * 100_000, b'{"a":' * 5_000]
    )
    def test_a_body_that_is_not_json_is_rejected(self, api: Api, body: bytes) -> None:
        answer = post(api, body)
        assert (answer.status_code, answer.json["code"]) == (400, 3)

    def test_texts_in_errors_are_cut(self, api: Api) -> None:
        assert len(post(api, one(timeUnixNano="9" * 60_000)).json["message"]) < 300
        assert len(post(api, {"x" * 60_000: 1}).json["message"]) < 300

    @pytest.mark.parametrize("media_type", ["text/plain", "application/x-ndjson", ""])
    def test_another_media_type_is_rejected(self, api: Api, media_type: str) -> None:
        answer = post(api, b"{}", media_type)
        assert (answer.status_code, answer.content_type) == (415, JSON)
        assert "must be application/json or application/x-protobuf" in answer.json["message"]

    def test_too_many_records_are_rejected_before_they_are_read(self, api: Api) -> None:
        many = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{}] * 10_000}]}]}
        records, scopes = protobuf(many), b"\x0a\x82\x80\xfa\x03" + b"\x12\x00" * 4_128_769
        for body in (many, records, b"\x0a\x00" * 4_000_000, b"\x10\x00" * 4_000_000, scopes[: 8 * 2**20]):
            answer = post(api, body, PROTOBUF if isinstance(body, bytes) else JSON)
            assert answer.status_code == 400
            assert b"at most 10,000 records" in answer.data

    def test_a_resource_that_makes_the_events_too_large_is_rejected(self, api: Api) -> None:
        body = request(*[{}] * 900, resource={"large": "x" * 50_000})
        answer = post(api, body)
        assert (answer.status_code, answer.json["code"]) == (413, 8)
        assert "send fewer records in a request" in answer.json["message"]


class TestOtherSignals:
    """Gemini CLI prints each refusal of metrics and traces to its user."""

    @pytest.mark.parametrize("signal", ["metrics", "traces"])
    @pytest.mark.parametrize(("media_type", "answer"), [(JSON, b"{}"), (PROTOBUF, b"")])
    def test_metrics_and_traces_are_accepted_and_not_stored(
        self, api: Api, signal: str, media_type: str, answer: bytes
    ) -> None:
        sent = api.client.post(f"/v1/{signal}", data=b"any", content_type=media_type, headers=api.headers)

        assert (sent.status_code, sent.content_type, sent.data) == (200, media_type, answer)
        assert list_events(limit=-1) == []

    def test_their_sender_needs_a_token_that_may_write(self, api: Api, database: Database) -> None:
        secret = account.create_token(database, "reader", ["read"])
        sent = api.client.post("/v1/traces", json={}, headers={"Authorization": f"Bearer {secret}"})

        assert (sent.status_code, sent.json["code"]) == (403, 7)


class TestLimitsAndRights:
    def test_gzip_is_bounded_after_decompression(self, api: Api) -> None:
        body = json.dumps(request(record("a", eventName="shop.a"))).encode()
        bomb = gzip.compress(b" " * (9 * 2**20) + body)
        assert post(api, gzip.compress(body), **{"Content-Encoding": "gzip"}).status_code == 200
        for data, encoding, status in (
            (bomb, "gzip", 413), (body, "gzip", 400), (gzip.compress(body)[:-9], "gzip", 400), (body, "deflate", 415),
        ):  # fmt: skip
            answer = post(api, data, **{"Content-Encoding": encoding})
            assert (answer.status_code, answer.content_type) == (status, JSON)
            assert answer.json["message"]
        assert len(logged()) == 1

    def test_a_body_beyond_the_limit_is_rejected(self, api: Api) -> None:
        answer = post(api, b" " * (8 * 2**20 + 1))
        assert (answer.status_code, answer.json["code"]) == (413, 8)

    @pytest.mark.parametrize(("scopes", "status", "code"), [([], 401, 16), (["read"], 403, 7)])
    @pytest.mark.parametrize("media_type", [JSON, PROTOBUF])
    def test_a_sender_needs_a_token_that_may_write(
        self, api: Api, database: Database, scopes: list[str], status: int, code: int, media_type: str
    ) -> None:
        secret = account.create_token(database, "other", scopes) if scopes else "outfeed_none"
        answer = post(api, b"", media_type, Authorization=f"Bearer {secret}")
        found = Status.FromString(answer.data).code if media_type == PROTOBUF else answer.json["code"]
        assert (answer.status_code, answer.content_type, found) == (status, media_type, code)

    def test_too_many_requests_get_429_with_retry_after(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OUTFEED_REQUESTS_PER_MINUTE", "1")
        config.settings.cache_clear()
        api = Api(database)
        answers = [post(api, request(), PROTOBUF) for _ in range(2)]
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert "requests per minute" in Status.FromString(answers[-1].data).message

    def test_a_busy_database_returns_503_with_retry_after(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database_file, "BUSY_TIMEOUT_SECS", 0.1)
        api.services.database.close()  # open connections have a longer busy timeout
        body = request(record("a", eventName="shop.a"))
        with closing(sqlite3.connect(api.services.database.path, isolation_level=None)) as raw:
            raw.execute("BEGIN IMMEDIATE")
            answer = post(api, body)
            raw.execute("ROLLBACK")
        assert (answer.status_code, answer.json["code"]) == (503, 14)
        assert int(answer.headers["Retry-After"]) >= 1
        assert post(api, body).json == {}

    def test_the_token_of_a_request_is_in_no_answer(self, api: Api) -> None:
        secret = api.headers["Authorization"].removeprefix("Bearer ")
        event = stored(api, record(f"my token is {secret}", {"authorization": secret}))
        assert secret not in json.dumps(event.data)
