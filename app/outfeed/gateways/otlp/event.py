"""Events from OpenTelemetry's log records. No I/O."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from outfeed.gateways.incoming.topic import word_of_type
from outfeed.gateways.otlp import agents
from outfeed.gateways.otlp.record import Attributes, Identifier, KeyValues, LogRecord, RecordGroup

TASK_NAMES = ("session.id", "conversation.id", "gen_ai.conversation.id")
AGENT_NAMES = ("gen_ai.agent.id", "agent.id", "agent_id")
SEVERITIES = ("trace", "debug", "info", "warn", "error", "fatal")
UNSPECIFIED = "unspecified"
_WARN, _ERROR = 13, 17  # the lowest numbers of these severities
_SEVERITY_OF_TEXT = {name: name for name in SEVERITIES} | {
    "warning": "warn", "information": "info", "critical": "fatal",
}  # fmt: skip
# A name is one word or several with dots. Some libraries put the place of the call in the source code there.
_NAME = re.compile(r"[\w.-]+", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def events_of(groups: Iterable[RecordGroup], source: str) -> Iterator[dict[str, Any]]:
    """Yield the event of each record, with the names of `log_event`.

    The *source* is for resources without a `service.name`.
    """
    identifier = Identifier()
    for group in groups:
        resource = _Resource.of(group, source)
        for record, id_ in zip(group.records, identifier.ids(group), strict=True):
            yield _event(record, resource) | {"id": id_}


class _Resource(NamedTuple):
    """The parts that all events of a group have."""

    attributes: Mapping[str, Any]
    source: str
    data: Mapping[str, Any]

    @classmethod
    def of(cls, group: RecordGroup, source: str) -> _Resource:
        attributes = _members(group.resource)
        found = {"resource": attributes, "scope": group.scope.name}
        data = {name: value for name, value in found.items() if value}
        return cls(attributes, _first(("service.name",), attributes) or source, data)


def _event(record: LogRecord, resource: _Resource) -> dict[str, Any]:
    attributes = _members(record.attributes)
    name = _name(record, attributes)
    event_type = _type(name, record)
    data = {**_own_data(record, name), **attributes, **resource.data}
    event: dict[str, Any] = {
        "event_type": event_type,
        "source": resource.source,
        "data": agents.detailed(event_type, data),
    }
    for field, names in (("task_id", TASK_NAMES), ("agent_id", AGENT_NAMES)):
        if found := _first(names, attributes) or _first(names, resource.attributes):
            event[field] = found
    if nanoseconds := record.time or record.observed_time:
        event["timestamp"] = _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    return event


def _own_data(record: LogRecord, name: str) -> dict[str, Any]:
    """Return what the fields of the record add to its attributes."""
    data: dict[str, Any] = {}
    if isinstance(record.body, str):
        if record.body and record.body != name:
            data["message"] = record.body
    elif record.body is not None:
        data["body"] = _data(record.body)
    if record.severity or record.severity_text:
        data["severity"] = record.severity_text or severity_of(record).upper()
    if record.severity >= _WARN:
        data["level"] = "error" if record.severity >= _ERROR else "warning"
    if record.event_name:
        data["event.name"] = record.event_name
    found = {"trace_id": record.trace_id, "span_id": record.span_id}
    return data | {key: value for key, value in found.items() if value.strip("0")}


def _first(names: Iterable[str], members: Mapping[str, Any]) -> str:
    """Return the first filled one of *names* as text, or empty text."""
    found = (members.get(name) for name in names)
    return next((str(value) for value in found if isinstance(value, str | int) and value != ""), "")


# --- types ------------------------------------------------------------------------------------------------------------


def _name(record: LogRecord, attributes: Mapping[str, Any]) -> str:
    """Return the name of the event, or empty text.

    A body that ends in the name after a dot is the whole name.
    """
    for name in (attributes.get("event.name"), record.event_name):
        if isinstance(name, str) and _NAME.fullmatch(name):
            is_whole = (
                isinstance(record.body, str) and record.body.endswith(f".{name}") and _NAME.fullmatch(record.body)
            )
            return str(record.body) if is_whole else name
    return ""


def _type(name: str, record: LogRecord) -> str:
    if not name:
        return f"log.{severity_of(record)}"
    word = word_of_type(name)
    return word if "." in word else f"otel.{word}"


def severity_of(record: LogRecord) -> str:
    """Return the severity as one of six words, or UNSPECIFIED."""
    if 1 <= record.severity <= 24:
        return SEVERITIES[(record.severity - 1) // 4]
    return _SEVERITY_OF_TEXT.get(record.severity_text.lower(), UNSPECIFIED)


# --- data -------------------------------------------------------------------------------------------------------------


def _members(attributes: Attributes) -> dict[str, Any]:
    """Return *attributes* as an object. The last of equal keys counts."""
    return {key: value if value.__class__ in (str, int, bool) else _data(value) for key, value in attributes}


def _data(value: Any) -> Any:
    """Return *value* as JSON has it.

    Bytes become base64, and numbers that JSON does not have become texts.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, KeyValues):
        return _members(value.pairs)
    return list(map(_data, value)) if isinstance(value, list) else value
