"""OpenTelemetry logs over HTTP: each log record becomes an event.

Errors are a `google.rpc.Status`, and answers have the encoding of their request, as the protocol's specification says:
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from flask import Response, current_app, request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from outfeed.gateways import intake
from outfeed.gateways.otlp import json_encoding
from outfeed.gateways.otlp.agents import is_part_of_stream
from outfeed.gateways.otlp.event import events_of
from outfeed.gateways.otlp.record import RecordGroup, context_of
from outfeed.http import bodies, identity
from outfeed.http.api.operation import JSON, json_answer
from outfeed.principal import Principal

PROTOBUF = "application/x-protobuf"
PROTOBUFS = {PROTOBUF, "application/protobuf"}
MAX_REASONS = 10  # of rejected records, in an answer
# Each event has the attributes of its resource. A request may grow by them up to this many times the largest body.
MAX_GROWTH = 4
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 413: 8, 415: 3, 422: 3, 429: 8, 503: 14}  # of google.rpc.Code
_INTERNAL = 13


def receive() -> Response:
    """Write the records of a request; say which ones were rejected."""
    principal = identity.principal()
    groups = _read()
    _check_growth(groups)
    rejected = _record(principal, list(events_of(groups, principal.name)))
    message = _message(rejected)
    if request.mimetype in PROTOBUFS:
        return _in_protobuf(_protobuf().response(len(rejected), message))
    found = {"rejectedLogRecords": str(len(rejected)), "errorMessage": message}
    return json_answer({"partialSuccess": found} if rejected else {})


def _record(principal: Principal, events: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Append *events*; return the reason of each rejected one, by its place."""
    places = [place for place, event in enumerate(events) if not is_part_of_stream(event)]
    rejected = intake.record_each(principal, [events[place] for place in places])
    return {places[index]: reason for index, reason in rejected.items()}


def discard() -> Response:
    """Accept a request whose signal is not stored, without reading it."""
    return _in_protobuf(b"") if request.mimetype in PROTOBUFS else json_answer({})


def _in_protobuf(message: bytes) -> Response:
    return Response(message, content_type=PROTOBUF)


def _read() -> Sequence[RecordGroup]:
    """Return the records of the body.

    Raises 400, 413 and 415 as HTTPException, and InvalidRequest.
    """
    if request.is_json:
        return json_encoding.read(bodies.read())
    if request.mimetype not in PROTOBUFS:
        raise UnsupportedMediaType(f"the body must be {JSON} or {PROTOBUF}, got {request.mimetype!r:.80}")
    found: Sequence[RecordGroup] = _protobuf().read(bodies.read())
    return found


def _protobuf() -> ModuleType:
    """Return the module of the encoding. Raises 415 without the extra."""
    try:
        from outfeed.gateways.otlp import protobuf_encoding
    except ImportError:
        raise UnsupportedMediaType(
            f"{PROTOBUF} needs the extra outfeed[otel] on this server: pip install 'outfeed[otel]'. Without it, set"
            " the exporter's protocol to http/json"
        ) from None
    return protobuf_encoding


def _check_growth(groups: Sequence[RecordGroup]) -> None:
    most = MAX_GROWTH * current_app.config["MAX_CONTENT_LENGTH"]
    size = sum(len(context_of(group)) * len(group.records) for group in groups)
    if size > most:
        raise RequestEntityTooLarge(
            f"each event has the attributes of its resource and scope, which makes {size:,} bytes; at most {most:,} are"
            " allowed, so send fewer records in a request"
        )


def _message(rejected: Mapping[int, str]) -> str:
    reasons = [f"record {index}: {reason}" for index, reason in list(rejected.items())[:MAX_REASONS]]
    if len(rejected) > MAX_REASONS:
        reasons.append(f"and {len(rejected) - MAX_REASONS:,} more")
    return "; ".join(reasons)


# --- errors -----------------------------------------------------------------------------------------------------------


def as_status(response: Response) -> Response:
    """Return an error's *response* as a google.rpc.Status.

    Its status is one that exporters know. Headers such as Retry-After stay.
    """
    problem = response.get_json(silent=True) if response.is_json else None
    message = problem["detail"] if isinstance(problem, dict) and "detail" in problem else response.status
    code = _CODES.get(response.status_code, _INTERNAL)
    if response.status_code == 422:
        response.status_code = 400
    if request.mimetype in PROTOBUFS:
        response.set_data(_status_message(code, message))
        response.content_type = PROTOBUF
    else:
        response.set_data(json.dumps({"code": code, "message": message}))
        response.content_type = JSON
    return response


def _status_message(code: int, message: str) -> bytes:
    """Return a google.rpc.Status in protobuf, also without the extra."""
    text = message.encode("utf-8", "replace")
    return bytes([1 << 3, code, 2 << 3 | 2]) + _varint(len(text)) + text


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(found) + bytes([number])
