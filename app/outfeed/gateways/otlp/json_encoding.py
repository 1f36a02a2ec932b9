"""The JSON encoding of OpenTelemetry's logs.

The names of fields are in lowerCamelCase, and ids of traces are hexadecimal. Unknown fields are ignored.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from outfeed.errors import InvalidRequest
from outfeed.gateways.otlp.record import (
    MAX_RECORDS,
    MAX_VALUE_DEPTH,
    Attributes,
    InstrumentationScope,
    KeyValues,
    LogRecord,
    RecordGroup,
)

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){0,32}")
_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_UNSIGNED_32, _UNSIGNED_64 = range(2**32), range(2**64)
_SIGNED_32, _SIGNED_64 = range(-(2**31), 2**31), range(-(2**63), 2**63)


def read(body: bytes) -> list[RecordGroup]:
    """Return the records of a request. Raises InvalidRequest."""
    request = _object(_parsed(body), "the body")
    if request and "resourceLogs" not in request:
        raise _wrong(f"{next(iter(request))!r:.80}", "is unknown; logs stand under resourceLogs")
    resources = [_object(each, "resourceLogs") for each in _list(request, "resourceLogs")]
    scopes = [(one, [_object(each, "scopeLogs") for each in _list(one, "scopeLogs")]) for one in resources]
    counts = [len(_list(scope, "logRecords")) for _, found in scopes for scope in found]
    check_count(len(resources) + len(counts) + sum(counts))
    return list(_groups(scopes))


def check_count(number: int) -> None:
    """Raise InvalidRequest if a request has too many records."""
    if number > MAX_RECORDS:
        raise InvalidRequest(
            "invalid_event", f"a request has at most {MAX_RECORDS:,} records, with its resources and scopes"
        )


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidRequest("invalid_json", "the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidRequest("invalid_json", f"the body is not JSON: {error}") from None


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _groups(resources: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> Iterator[RecordGroup]:
    number = 0
    for one, scopes in resources:
        resource = _attributes(_member(one, "resource"))
        for each in scopes:
            records = []
            for record in _list(each, "logRecords"):
                try:
                    records.append(_record(_object(record, "logRecords")))
                except InvalidRequest as error:
                    raise InvalidRequest(error.code, f"record {number}: {error}") from None
                number += 1
            yield RecordGroup(resource, _scope(_member(each, "scope")), records)


def _scope(scope: dict[str, Any]) -> InstrumentationScope:
    return InstrumentationScope(_text(scope, "name"), _text(scope, "version"), _attributes(scope))


def _record(record: dict[str, Any]) -> LogRecord:
    return LogRecord(
        _integer(record, "timeUnixNano", _UNSIGNED_64),
        _integer(record, "observedTimeUnixNano", _UNSIGNED_64),
        _integer(record, "severityNumber", _SIGNED_32),
        _text(record, "severityText"),
        _value(record.get("body"), 0),
        _attributes(record),
        _hex(record, "traceId"),
        _hex(record, "spanId"),
        _text(record, "eventName"),
        _integer(record, "flags", _UNSIGNED_32),
        _integer(record, "droppedAttributesCount", _UNSIGNED_32),
    )


# --- values -----------------------------------------------------------------------------------------------------------


def _attributes(holder: dict[str, Any], name: str = "attributes", depth: int = 0) -> Attributes:
    pairs = []
    for each in _list(holder, name):
        pair = _object(each, name)
        pairs.append((_text(pair, "key"), _value(pair.get("value"), depth)))
    return pairs


def _value(given: Any, depth: int) -> Any:
    if given is None:
        return None
    if depth > MAX_VALUE_DEPTH:
        raise _wrong("value", f"is nested too deeply; at most {MAX_VALUE_DEPTH} levels are allowed")
    found = [(kind, value) for kind, value in _object(given, "value").items() if kind in _KINDS and value is not None]
    if len(found) > 1:
        raise _wrong("value", f"must have one kind, got {found[0][0]} and {found[1][0]}")
    return _KINDS[found[0][0]](given, found[0][0], depth) if found else None


def _boolean(holder: dict[str, Any], name: str, _: int) -> bool:
    if not isinstance(holder[name], bool):
        raise _wrong(name, f"must be true or false, got {holder[name]!r:.80}")
    return bool(holder[name])


def _double(holder: dict[str, Any], name: str, _: int) -> float:
    value = holder[name]
    if isinstance(value, str) and value in _FLOATS:
        return _FLOATS[value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass  # an integer beyond the range of numbers
    raise _wrong(name, f'must be a number, "NaN", "Infinity" or "-Infinity", got {value!r:.80}')


def _bytes(holder: dict[str, Any], name: str, _: int) -> bytes:
    text = _text(holder, name).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(name, f"must be base64, got {holder[name]!r:.80}") from None


def _array(holder: dict[str, Any], name: str, depth: int) -> list[Any]:
    return [_value(each, depth + 1) for each in _list(_object(holder[name], name), "values")]


def _key_values(holder: dict[str, Any], name: str, depth: int) -> KeyValues:
    return KeyValues(_attributes(_object(holder[name], name), "values", depth + 1))


_KINDS: dict[str, Callable[[dict[str, Any], str, int], Any]] = {
    "stringValue": lambda holder, name, _: _text(holder, name),
    "boolValue": _boolean,
    "intValue": lambda holder, name, _: _integer(holder, name, _SIGNED_64),
    "doubleValue": _double,
    "bytesValue": _bytes,
    "arrayValue": _array,
    "kvlistValue": _key_values,
}


# --- fields -----------------------------------------------------------------------------------------------------------


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, f"must be an object, got {value!r:.80}")
    return value


def _member(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return {} if value is None else _object(value, name)


def _list(holder: dict[str, Any], name: str) -> list[Any]:
    value = holder.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(name, f"must be an array, got {value!r:.80}")
    return value


def _text(holder: dict[str, Any], name: str) -> str:
    value = holder.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(name, f"must be text, got {value!r:.80}")
    return value


def _integer(holder: dict[str, Any], name: str, allowed: range) -> int:
    """Return an integer, which may be text: JavaScript has no 64 bits."""
    value = holder.get(name)
    if value is None:
        return 0
    is_text = isinstance(value, str) and _INTEGER.fullmatch(value)
    if is_text or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise _wrong(name, f"must be an integer of at most {(allowed.stop - 1).bit_length()} bits, got {value!r:.80}")
    return value


def _hex(holder: dict[str, Any], name: str) -> str:
    value = _text(holder, name)
    if not _HEX.fullmatch(value):
        raise _wrong(name, f"must be hexadecimal, got {value!r:.80}")
    return value.lower()


def _wrong(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest("invalid_event", f"{name}: {problem}")
