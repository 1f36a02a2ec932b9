"""Log records of OpenTelemetry, in one form for both encodings. No I/O.

Values are str, bool, int, float, bytes, None, a list of values, or KeyValues.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

MAX_RECORDS = 10_000  # of a request, with its resources and scopes
MAX_VALUE_DEPTH = 64
ID_PREFIX = "otel-"
_SCALARS = {str, bool, int, float, type(None)}
_BY_KEY = itemgetter(0)

Attributes = Sequence[tuple[str, Any]]


class KeyValues(NamedTuple):
    """A value that is a list of keys and values."""

    pairs: Attributes


class LogRecord(NamedTuple):
    """One record. Times are nanoseconds, and ids are hexadecimal.

    A missing number is 0, and a missing text is empty.
    """

    time: int
    observed_time: int
    severity: int
    severity_text: str
    body: Any
    attributes: Attributes
    trace_id: str
    span_id: str
    event_name: str
    flags: int
    dropped_attributes: int


class InstrumentationScope(NamedTuple):
    """The part of a program that made records."""

    name: str = ""
    version: str = ""
    attributes: Attributes = ()


class RecordGroup(NamedTuple):
    """Records of one resource and one scope."""

    resource: Attributes
    scope: InstrumentationScope
    records: Sequence[LogRecord]


class Identifier:
    """Gives each record of a request its id.

    The id is a hash of resource, scope, record and the number of equal records before it in the request. The encoding
    of the request and the order of attributes do not change it. So a repeated request has the same ids.
    """

    def __init__(self) -> None:
        self._seen = Counter[str]()

    def ids(self, group: RecordGroup) -> Iterable[str]:
        """Yield the id of each record."""
        origin = hashlib.sha256(context_of(group))
        for record in group.records:
            found = origin.copy()
            found.update(_text([*record[:4], _plain(record.body), _sorted(record.attributes), *record[6:]]))
            digest = found.hexdigest()[:32]
            number = self._seen[digest]
            self._seen[digest] = number + 1
            yield f"{ID_PREFIX}{digest}-{number}" if number else f"{ID_PREFIX}{digest}"


def context_of(group: RecordGroup) -> bytes:
    """Return resource and scope as bytes, in a form of their own."""
    name, version, attributes = group.scope
    return _text([_sorted(group.resource), name, version, _sorted(attributes)])


def _text(value: list[Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _sorted(attributes: Attributes) -> list[list[Any]]:
    return [
        [key, value if value.__class__ in _SCALARS else _plain(value)] for key, value in sorted(attributes, key=_BY_KEY)
    ]


def _plain(value: Any) -> Any:
    """Return *value* for JSON. Values of different kinds stay different."""
    if value.__class__ is list:
        return list(map(_plain, value))
    if value.__class__ is bytes:
        return {"bytes": value.hex()}
    return {"pairs": _sorted(value.pairs)} if value.__class__ is KeyValues else value
