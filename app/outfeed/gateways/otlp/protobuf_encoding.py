"""The protobuf encoding of OpenTelemetry's logs, with the extra `otel`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from outfeed.errors import InvalidRequest
from outfeed.gateways.otlp.json_encoding import check_count
from outfeed.gateways.otlp.record import (
    MAX_RECORDS,
    MAX_VALUE_DEPTH,
    Attributes,
    InstrumentationScope,
    KeyValues,
    LogRecord,
    RecordGroup,
)

_PATH = (1, 2, 2)  # the numbers of the fields: resource_logs, scope_logs, log_records
MAX_FIELDS = 3 * MAX_RECORDS  # on this path: a resource and a scope have two more
_BYTES, _SIZES = 2, {1: 8, 5: 4}  # types of the wire, and the sizes of those with a fixed one


def read(body: bytes) -> list[RecordGroup]:
    """Return the records of a request. Raises InvalidRequest."""
    _check_fields(body)
    try:
        request = ExportLogsServiceRequest.FromString(body)
    except DecodeError as error:
        raise InvalidRequest(
            "invalid_event",
            f"the body is not an ExportLogsServiceRequest in protobuf, or is nested too deeply: {error}",
        ) from None
    scopes = [scope for one in request.resource_logs for scope in one.scope_logs]
    check_count(len(request.resource_logs) + len(scopes) + sum(len(scope.log_records) for scope in scopes))
    return list(_groups(request))


def response(rejected: int, message: str) -> bytes:
    """Return an ExportLogsServiceResponse."""
    answer = ExportLogsServiceResponse()
    if rejected:
        answer.partial_success.rejected_log_records = rejected
        answer.partial_success.error_message = message
    encoded: bytes = answer.SerializeToString()
    return encoded


def _groups(request: Any) -> Iterator[RecordGroup]:
    for one in request.resource_logs:
        resource = _attributes(one.resource.attributes)
        for each in one.scope_logs:
            scope = InstrumentationScope(each.scope.name, each.scope.version, _attributes(each.scope.attributes))
            yield RecordGroup(resource, scope, list(map(_record, each.log_records)))


def _record(record: Any) -> LogRecord:
    return LogRecord(
        record.time_unix_nano,
        record.observed_time_unix_nano,
        record.severity_number,
        record.severity_text,
        _value(record.body, 0),
        _attributes(record.attributes),
        record.trace_id.hex(),
        record.span_id.hex(),
        record.event_name,
        record.flags,
        record.dropped_attributes_count,
    )


def _attributes(pairs: Any, depth: int = 0) -> Attributes:
    return [(pair.key, _value(pair.value, depth)) for pair in pairs]


def _value(value: Any, depth: int) -> Any:
    if depth > MAX_VALUE_DEPTH:
        raise InvalidRequest(
            "invalid_event", f"a value is nested too deeply; at most {MAX_VALUE_DEPTH} levels are allowed"
        )
    match value.WhichOneof("value"):
        case "array_value":
            return [_value(each, depth + 1) for each in value.array_value.values]
        case "kvlist_value":
            return KeyValues(_attributes(value.kvlist_value.values, depth + 1))
        case None:
            return None
        case kind:
            return getattr(value, kind)


# --- the number of records, before they are read ----------------------------------------------------------------------


def _check_fields(body: bytes) -> None:
    """Raise InvalidRequest if the *body* has too many fields.

    An empty record takes two bytes of the body, and a hundred of memory. The count ends at the limit.
    """
    found = _fields(memoryview(body), _PATH)
    if next(itertools.islice(found, MAX_FIELDS, None), None) is not None:
        check_count(MAX_RECORDS + 1)


def _fields(view: memoryview, path: tuple[int, ...]) -> Iterator[int]:
    """Yield the number of each field, and of those of messages on *path*."""
    place = 0
    while place < len(view):
        tag, place = _varint(view, place)
        yield tag >> 3
        size = _SIZES.get(tag & 7)
        if size is None:
            number, place = _varint(view, place)
            size = number if tag & 7 == _BYTES else 0
        if tag == path[0] << 3 | _BYTES and path[1:]:
            yield from _fields(view[place : place + size], path[1:])
        place += size


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    """Return the number at *place*, and the place after it."""
    number = 0
    for index, byte in enumerate(view[place : place + 10]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, place + index + 1
    return number, len(view)
