"""Events: their types, their validation, and how each type is shown.

No I/O.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

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


# --- how each kind looks ----------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """A place in a sentence: the first of *keys* that is filled, in `data` and then in the event, else *fallback*.

    *before* and *after* are the text around it. A field without value and fallback adds nothing, not even those.
    """

    keys: tuple[str, ...]
    fallback: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Display:
    """How a type looks: icon, short label, one sentence in parts, kind (task, agent, bid, tool, system, other)."""

    icon: str
    label: str
    sentence: tuple[str | Field, ...]
    kind: str
    is_error: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return what `<event-feed>` builds its rows from; a Field becomes `{"keys": […], "fallback": "…"}`."""
        sentence = [part if isinstance(part, str) else part._asdict() for part in self.sentence]
        return {"icon": self.icon, "label": self.label, "kind": self.kind, "error": self.is_error, "sentence": sentence}


_SENTENCE_PART = re.compile(r"([^{\[]+)|\{([^}]+)\}|\[([^{]*)\{([^}]+)\}([^\]]*)\]")


def _display(kind: str, icon: str, label: str, sentence: str, *, is_error: bool = False) -> Display:
    """Parse *sentence*: `{a|b|nothing}` is a Field with the keys a and b and the fallback `nothing`.

    `[ ({a|b} sats)]` is a Field with text around it, which is left out if neither a nor b is filled.
    """
    parts: list[str | Field] = []
    for text, keys, before, optional_keys, after in _SENTENCE_PART.findall(sentence):
        if text:
            parts.append(text)
        elif keys:
            *names, fallback = keys.split("|")
            parts.append(Field(tuple(names), fallback))
        else:
            parts.append(Field(tuple(optional_keys.split("|")), "", before, after))
    return Display(icon, label, tuple(parts), kind, is_error)


# Icons and sentences of the first eight as ADR 022 has them, and its names for agents and sats as alternative keys. A
# missing name falls back on the id.
DISPLAY: dict[str, Display] = {
    EventType.TASK_CREATED: _display("task", "📝", "Task created", "New task: {description|task_id|no description}"),
    EventType.TASK_ASSIGNED: _display(
        "task", "👤", "Task assigned", "Task assigned to {name|agent|agent_id|an agent}[ ({bid_sats|amount} sats)]"
    ),
    EventType.TASK_COMPLETED: _display("task", "✅", "Task completed", "Task completed"),
    EventType.AGENT_JOINED: _display(
        "agent", "🟢", "Agent joined", "Agent {name|agent|agent_id|unknown} joined[ ({persona})]"
    ),
    EventType.AGENT_LEFT: _display("agent", "🔴", "Agent left", "Agent {name|agent|agent_id|unknown} left"),
    EventType.BID_SUBMITTED: _display(
        "bid", "💰", "Bid", "Bid: {bid_sats|amount|?} sats from {name|agent|agent_id|an agent}"
    ),
    EventType.TOOL_CALLED: _display("tool", "🔧", "Tool called", "Tool: {tool_name|unnamed}"),
    EventType.SYSTEM_ERROR: _display(
        "system", "⚠️", "Error", "Error: {message|description|reason|no message}", is_error=True
    ),
    EventType.TASK_BIDDING: _display("task", "📣", "Open for bids", "Open for bids: {description|task_id|a task}"),
    EventType.TASK_STARTED: _display("task", "▶️", "Task started", "{name|agent|agent_id|An agent} started work"),
    EventType.TASK_FAILED: _display(
        "task", "❌", "Task failed", "Task failed: {reason|message|no reason given}", is_error=True
    ),
    EventType.AGENT_STATUS_CHANGED: _display(
        "agent", "🔄", "Agent status", "Agent {name|agent|agent_id|unknown} is now {status|in another state}"
    ),
    EventType.AUCTION_CLOSED: _display("bid", "🔨", "Auction closed", "Auction closed[ at {bid_sats|amount} sats]"),
    EventType.TOOL_COMPLETED: _display("tool", "🧰", "Tool completed", "Tool completed: {tool_name|unnamed}"),
    EventType.TOOL_FAILED: _display(
        "tool", "💥", "Tool failed", "Tool failed: {tool_name|unnamed}: {reason|message|no reason given}", is_error=True
    ),
    EventType.SYSTEM_WARNING: _display("system", "🔶", "Warning", "Warning: {message|description|reason|no message}"),
    EventType.SYSTEM_INFO: _display("system", "ℹ️", "Info", "{message|description|reason|No message}"),
    "system.pruned": _display("system", "🧹", "Pruned", "{message|Pruned}, by {by|someone}"),
    "system.restored": _display("system", "💾", "Restored", "{message|Restored from a backup}, by {by|someone}"),
    "access.signed_in": _display("system", "🔑", "Signed in", "{name|Someone} signed in[ by {how}]"),
    "access.sign_in_refused": _display("system", "🚫", "Sign-in refused", "Sign-in refused to {name|an unknown user}"),
    "access.user_added": _display("system", "🪪", "User added", "{by|Someone} added {name|a user} as {role|a user}"),
    "access.role_changed": _display("system", "🪪", "Role changed", "{by|Someone} made {name|a user} {role|another}"),
    "access.password_changed": _display("system", "🔒", "Password changed", "Password of {name|a user} changed"),
    "access.user_disabled": _display("system", "⛔", "User disabled", "{by|Someone} disabled {name|a user}"),
    "access.user_enabled": _display("system", "🪪", "User enabled", "{by|Someone} enabled {name|a user}"),
    "access.token_created": _display("system", "🎫", "Token created", "{by|Someone} created the token {name|unnamed}"),
    "access.consumer_claimed": _display(
        "system", "📌", "Consumer claimed", "{owner|Someone} claimed the consumer {name|unnamed}"
    ),
    "access.consumer_owned": _display(
        "system", "📌", "Consumer owned", "{by|Someone} gave the consumer {name|unnamed} to {owner|someone}"
    ),
    "access.token_revoked": _display("system", "✂️", "Token revoked", "{by|Someone} revoked the token {name|unnamed}"),
    "access.webhook_skipped": _display(
        "system",
        "⏭️",
        "Webhook skipped",
        "{by|Someone} skipped seq {first_seq|?} to {last_seq|?} of webhook {name|unnamed}",
    ),
}
OTHER = "other"
KINDS = ("task", "agent", "bid", "tool", "system", OTHER)


def display_of(event_type: str) -> Display:
    """Return how *event_type* looks. A type nobody listed is named by itself, with what its data says of it."""
    if found := DISPLAY.get(event_type):
        return found
    prefix, _, rest = event_type.partition(".")
    label = (rest or prefix).replace("_", " ").replace(".", " ").capitalize() or "Event"
    kind = prefix if prefix in KINDS else OTHER
    return Display("•", label, (f"{event_type}: ", Field(("message", "description", "name", "reason"), label)), kind)


def sentence_parts(event: Event) -> list[tuple[str, bool]]:
    """Return the event's sentence as (text, is a name from the event) parts, in order."""
    return [found for part in display_of(event.event_type).sentence for found in _filled(part, event)]


def _filled(part: str | Field, event: Event) -> list[tuple[str, bool]]:
    if isinstance(part, str):
        return [(part, False)]
    text = _fill(part, event)
    around = [(part.before, False), (text, True), (part.after, False)] if text else []
    return [found for found in around if found[0]]


def sentence(event: Event) -> str:
    """Return the event's sentence as plain text, on one line."""
    return "".join(text for text, _ in sentence_parts(event))


def _fill(field: Field, event: Event) -> str:
    data = event.data if isinstance(event.data, dict) else {}
    for key in field.keys:
        value = data.get(key)
        if value is None:
            value = getattr(event, key, None)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a browser can't tell 1.0 from 1
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return " ".join(str(value).split())
    return field.fallback
