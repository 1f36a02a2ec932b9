"""Events: their types and their validation. No I/O."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from outfeed import clock
from outfeed.errors import InvalidEvent
from outfeed.nesting import MAX_DEPTH, is_deep, may_be_deep
from outfeed.redaction import may_hold_secrets, redact, text_may_hold_secrets

MAX_NAME_CHARS = 200
MAX_TYPE_CHARS = 64
# The fixed bits of a UUIDv7, which are version and variant, and the random bits.
_UUID_FIXED = 0x7 << 76 | 0x2 << 62
_UUID_RANDOM = (1 << 80) - 1 & ~(0xF << 76 | 0x3 << 62)
# Random bits for ids, read from the kernel in blocks. A read for each id would release Python's lock, which another
# thread may then hold for 5 ms. A forked child reads its own block.
_random_pool: list[int] = []
os.register_at_fork(after_in_child=_random_pool.clear)
_TOO_DEEP = f"is nested too deeply; at most {MAX_DEPTH} levels are allowed"
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
TYPE_PATTERN = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")


class EventType(StrEnum):
    """The types that Outfeed knows: the twelve of ADR 017 and five more."""

    TASK_CREATED = "task.created"
    TASK_BIDDING = "task.bidding"
    TASK_ASSIGNED = "task.assigned"
    TASK_STARTED = "task.started"
    TASK_COMPLETED = "task.completed"
    TASK_FAILED = "task.failed"
    AGENT_JOINED = "agent.joined"
    AGENT_LEFT = "agent.left"
    AGENT_STATUS_CHANGED = "agent.status_changed"
    BID_SUBMITTED = "bid.submitted"
    AUCTION_CLOSED = "auction.closed"
    TOOL_CALLED = "tool.called"
    TOOL_COMPLETED = "tool.completed"
    TOOL_FAILED = "tool.failed"
    SYSTEM_ERROR = "system.error"
    SYSTEM_WARNING = "system.warning"
    SYSTEM_INFO = "system.info"


@dataclass(frozen=True, slots=True)
class Event:
    """One row of `event_log`.

    `event_type` equals `EventType.X` if it is a known type. `timestamp` is the text in the row: ISO 8601 UTC with
    milliseconds if Outfeed wrote it, and any text if a raw writer did. `data` is the parsed JSON, or the raw text if it
    does not parse. It is None with `omitted_bytes` set if it was too large to read.
    """

    id: str
    event_type: str
    source: str
    task_id: str | None
    agent_id: str | None
    data: Any
    timestamp: str
    omitted_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the event as the API shows it.

        `omitted_bytes` is present only if data was left out.
        """
        fields = {name: getattr(self, name) for name in ("id", "event_type", "source", "task_id", "agent_id")}
        fields |= {"timestamp": self.timestamp, "data": self.data}
        return fields | ({"omitted_bytes": self.omitted_bytes} if self.omitted_bytes else {})


# --- validation -------------------------------------------------------------------------------------------------------


def make_event(
    event_type: str,
    source: str,
    task_id: str | None = None,
    agent_id: str | None = None,
    data: Any = None,
    *,
    id: str | None = None,
    timestamp: str | datetime | None = None,
    max_event_bytes: int,
    moment: clock.Moment | None = None,
) -> tuple[Event, str | None]:
    """Return the checked and redacted event and its data as JSON text.

    The text is None without data. *moment* is the current time: a caller that creates many events reads the clock once.
    Raises InvalidEvent, which names the field, the value and the limit.
    """
    encoded = encode_data(data, max_event_bytes)
    if encoded is not None and may_hold_secrets(encoded.encode(), data):
        data = redact(json.loads(encoded))
        encoded = encode_data(data, max_event_bytes)
    names: list[Any] = [
        _name("source", source),
        None if task_id is None else _name("task_id", task_id),
        None if agent_id is None else _name("agent_id", agent_id),
    ]
    if text_may_hold_secrets("\n".join(filter(None, names))):
        names = redact(names)
    source, task_id, agent_id = names
    moment = moment or clock.moment()
    event = Event(
        new_id(moment) if id is None else _id(id),
        _type(event_type),
        source,
        task_id,
        agent_id,
        data,
        moment.text if timestamp is None else _timestamp(timestamp),
    )
    return event, encoded


def new_id(moment: clock.Moment | None = None) -> str:
    """Return a UUIDv7 (RFC 9562 section 5.7).

    It has 48 bits of milliseconds, then random bits, so that ids sort by time.
    """
    milliseconds = (moment or clock.moment()).milliseconds & 0xFFFF_FFFF_FFFF
    text = f"{milliseconds << 80 | _random_bits() & _UUID_RANDOM | _UUID_FIXED:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _random_bits() -> int:
    """Return 80 random bits that cannot be predicted from others."""
    while True:
        try:
            return _random_pool.pop()
        except IndexError:
            bits = os.urandom(10 * 256)
            _random_pool.extend(int.from_bytes(bits[start : start + 10], "big") for start in range(0, len(bits), 10))


def known_type(text: str) -> str:
    """Return the EventType of that name, or *text* if there is none."""
    return EventType._value2member_map_.get(text, text)  # type: ignore[return-value]


def encode_data(data: Any, max_event_bytes: int) -> str | None:
    """Return *data* as compact, strict JSON.

    It has no NaN, no lone surrogates, and no deep nesting. Raises InvalidEvent.
    """
    if data is None:
        return None
    try:
        text = _ENCODER.encode(data)
        size = len(text.encode())
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise InvalidEvent("data", f"is not JSON-serialisable: {error}") from None
    except RecursionError:
        raise InvalidEvent("data", _TOO_DEEP) from None
    if may_be_deep(text) and is_deep(data):
        raise InvalidEvent("data", _TOO_DEEP)
    if size > max_event_bytes:
        raise InvalidEvent("data", f"is {size:,} bytes as JSON; at most {max_event_bytes:,} are allowed")
    return text


def _name(field: str, value: str) -> str:
    if not isinstance(value, str):
        raise InvalidEvent(field, f"must be text, got {value!r:.80}")
    if not 1 <= len(value) <= MAX_NAME_CHARS:
        shown = f"{value[:40]!r}… ({len(value):,} characters)" if value else "nothing"
        raise InvalidEvent(field, f"must have 1 to {MAX_NAME_CHARS} characters, got {shown}")
    if "\0" in value or (not value.isprintable() and _has_surrogate(value)):
        raise InvalidEvent(field, f"must be storable text without NUL, got {value!r:.80}")
    return value


def _id(value: str) -> str:
    if redact(_name("id", value)) != value:
        raise InvalidEvent("id", "looks like a credential; it would be shown to everyone who sees the event")
    return value


def _has_surrogate(value: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in value)


def _type(value: str) -> str:
    if isinstance(value, EventType):
        return value
    if not isinstance(value, str):
        raise InvalidEvent("event_type", f"must be text, got {value!r:.80}")
    if (known := known_type(value)) is not value:
        return known
    if len(value) > MAX_TYPE_CHARS:
        raise InvalidEvent("event_type", f"must have at most {MAX_TYPE_CHARS} characters, got {len(value):,}")
    if not TYPE_PATTERN.fullmatch(value):
        raise InvalidEvent(
            "event_type", f"must be lower-case words joined by dots, like task.created, got {value!r:.80}"
        )
    return value


def _timestamp(value: str | datetime) -> str:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if moment.tzinfo is None:
            raise InvalidEvent("timestamp", f"needs a timezone, such as a Z at the end, got {str(value)!r:.80}")
        return clock.isoformat(moment)
    except (ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, InvalidEvent):
            raise
        raise InvalidEvent("timestamp", f"must be ISO 8601, got {value!r:.80}") from None
