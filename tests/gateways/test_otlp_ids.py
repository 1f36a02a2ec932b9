"""Ids of records: equal in both encodings, other for other records."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.json.common._log_encoder import encode_logs as encode_json
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as encode_protobuf
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from outfeed.gateways.otlp import json_encoding, protobuf_encoding
from outfeed.gateways.otlp.event import events_of
from outfeed.gateways.otlp.record import RecordGroup
from tests.gateways.otlp_samples import protobuf, record, request

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.binary(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.dictionaries(TEXT, VALUES, max_size=4)
RECORDS = st.builds(
    record,
    st.none() | VALUES,
    MEMBERS,
    severityNumber=st.integers(0, 24),
    severityText=TEXT,
    eventName=TEXT,
    observedTimeUnixNano=st.integers(0, 2**64 - 1).map(str),
    traceId=st.binary(min_size=16, max_size=16).map(bytes.hex),
    spanId=st.binary(min_size=8, max_size=8).map(bytes.hex),
    flags=st.integers(0, 255),
    droppedAttributesCount=st.integers(0, 9),
)


def events(groups: list[RecordGroup]) -> list[dict[str, Any]]:
    return list(events_of(groups, "tests"))


def of_json(body: Any) -> list[dict[str, Any]]:
    return events(json_encoding.read(json.dumps(body).encode()))


@settings(max_examples=100, deadline=None)
@given(st.lists(RECORDS, max_size=3), MEMBERS)
def test_both_encodings_of_a_request_make_equal_events(records: list[dict[str, Any]], resource: dict[str, Any]) -> None:
    body = request(*records, resource=resource)
    assert of_json(body) == events(protobuf_encoding.read(protobuf(body)))


def test_the_official_encoders_of_both_encodings_make_equal_events() -> None:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(Resource({"service.name": "shop", "ports": [80, 443]}), shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    values = {
        "text": "é", "true": True, "int": -(2**63), "double": 1.0, "nan": math.nan, "inf": -math.inf,
        "bytes": b"\xff\x00", "list": ["a", "b"], "mixed": [1, "a", None, [2.5]], "empty": "",
        "map": {"b": 1, "a": {"c": b"\x01"}},
    }  # fmt: skip
    logger = provider.get_logger("shop.orders", "1.2")
    for body in (None, "text", {"a": [1]}, b"\x00"):
        logger.emit(
            LogRecord(
                timestamp=1_769_860_800_123_456_789,
                observed_timestamp=1,
                severity_number=SeverityNumber.WARN2,
                severity_text="WARN",
                body=body,
                attributes=values,
                event_name="order.paid",
            )
        )
    batch = exporter.get_finished_logs()
    encoded = encode_json(batch)

    by_json = events(json_encoding.read(json.dumps(encoded.to_dict()).encode()))

    assert by_json == events(protobuf_encoding.read(encode_protobuf(batch).SerializeToString()))
    assert len({event["id"] for event in by_json}) == 4
    assert by_json[0]["data"]["mixed"] == [1, "a", None, [2.5]]


@pytest.mark.parametrize(
    "change",
    [
        {"timeUnixNano": "1"}, {"observedTimeUnixNano": "1"}, {"severityNumber": 1}, {"severityText": "x"},
        {"body": {"intValue": "1"}}, {"body": {"stringValue": "1"}}, {"body": {"boolValue": True}},
        {"body": {"doubleValue": 1}}, {"body": {"bytesValue": "MQ=="}}, {"body": {"doubleValue": "NaN"}},
        {"body": {"stringValue": "NaN"}}, {"body": {"arrayValue": {}}}, {"body": {"kvlistValue": {}}},
        {"body": {"stringValue": ""}}, {"traceId": "01" * 16}, {"spanId": "01" * 8}, {"eventName": "x"}, {"flags": 1},
        {"droppedAttributesCount": 1}, {"attributes": []}, {"attributes": [{"key": "a", "value": {"intValue": 2}}]},
        {"attributes": [{"key": "a", "value": {"intValue": 1}}] * 2}, {"attributes": [{"key": "a"}]},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_another_field_makes_another_id(change: dict[str, Any]) -> None:
    first = record("text", {"a": 1})
    ids = [event["id"] for event in of_json(request(first, {**first, **change}))]
    assert not ids[1].startswith(ids[0])


def test_values_of_different_kinds_make_different_ids() -> None:
    bodies: list[Any] = [
        None, "31", b"1", 31, 31.0, True, "true", [], {}, "", [31], ["31"], {"bytes": "31"}, {"pairs": []}, [["a", 1]],
        {"a": 1}, {"a": {}}, {"a": None}, [None], "NaN", math.nan, -0.0, 0.0, 0, False,
    ]  # fmt: skip
    ids = [event["id"] for event in of_json(request(*map(record, bodies)))]
    assert [id_ for id_ in ids if id_.count("-") > 1] == []


def test_another_resource_or_scope_makes_another_id() -> None:
    body = request(record("text"))
    others = [copy.deepcopy(body) for _ in range(4)]
    others[0]["resourceLogs"][0]["resource"]["attributes"][0]["value"] = {"stringValue": "other"}
    for other, fields in zip(
        others[1:], ({"name": "x"}, {"version": "1"}, {"attributes": [{"key": "a"}]}), strict=True
    ):
        other["resourceLogs"][0]["scopeLogs"][0]["scope"].update(fields)
    assert len({of_json(each)[0]["id"] for each in (body, *others)}) == 5


def test_the_order_of_attributes_and_groups_and_the_form_of_numbers_make_no_other_id() -> None:
    first = request(record("a", {"a": 1, "b": {"x": 1, "y": 2}}), record("b"))
    second = request(
        record("a", {"b": {"y": 2, "x": 1}, "a": 1}, timeUnixNano=1_769_860_800_123_456_789, traceId="", flags=None)
    )
    ids = [event["id"] for event in of_json(first)]
    second["resourceLogs"] += request(record("b"))["resourceLogs"]
    assert [event["id"] for event in of_json(second)] == ids
    assert [event["id"] for event in of_json(request(record("c"), *[record("a"), record("c")]))][2].endswith("-1")
