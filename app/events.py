"""Events: what one is, what it may hold, and how each kind looks. No I/O."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from app import clock
from app.config import settings
from app.errors import InvalidEvent

MAX_NAME_CHARS = 200
MAX_TYPE_CHARS = 64
# Of a UUIDv7: version and variant, and the bits besides that are random.
_UUID_FIXED = 0x7 << 76 | 0x2 << 62
_UUID_RANDOM = (1 << 80) - 1 & ~(0xF << 76 | 0x3 << 62)
# For ids: bits of the kernel's, many at a time. To ask for each gives up Python's lock, which another thread may keep
# for 5 ms. A forked child takes its own.
_drawn: list[int] = []
os.register_at_fork(after_in_child=_drawn.clear)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
TYPE_PATTERN = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")


class EventType(StrEnum):
    """The types that Outfeed itself knows: ADR 017's twelve and five more."""

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

    `event_type` equals `EventType.X` where it is one of ours. `timestamp` is the text in the row: ISO 8601 UTC with
    milliseconds where we wrote it, anything where a raw writer did. `data` is the parsed JSON, or the raw text where
    it doesn't parse; None with `omitted_bytes` set where it was too large to read.
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
        """Return the event as the API shows it; `omitted_bytes` only where data was left out."""
        fields = {name: getattr(self, name) for name in ("id", "event_type", "source", "task_id", "agent_id")}
        fields |= {"timestamp": self.timestamp, "data": self.data}
        return fields | ({"omitted_bytes": self.omitted_bytes} if self.omitted_bytes else {})


# --- making one -------------------------------------------------------------------------------------------------------


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
    """Return the checked and redacted event and its data as JSON text (None for no data).

    *moment* is now: who makes many asks the clock once. Raises InvalidEvent, which names the field, the value and the
    limit.
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
    """Return a UUIDv7 (RFC 9562 section 5.7): 48 bits of milliseconds, then random, so that ids sort by time."""
    milliseconds = (moment or clock.moment()).milliseconds & 0xFFFF_FFFF_FFFF
    text = f"{milliseconds << 80 | _draw() & _UUID_RANDOM | _UUID_FIXED:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _draw() -> int:
    """Return 80 random bits, not to be guessed from others."""
    while True:
        try:
            return _drawn.pop()
        except IndexError:
            bits = os.urandom(10 * 256)
            _drawn.extend(int.from_bytes(bits[start : start + 10], "big") for start in range(0, len(bits), 10))


def known_type(text: str) -> str:
    """Return the EventType of that name, or *text* itself where it is none of ours."""
    return EventType._value2member_map_.get(text, text)  # type: ignore[return-value]


def encode_data(data: Any, max_event_bytes: int) -> str | None:
    """Return *data* as compact JSON, strict: no NaN, no lone surrogates. Raises InvalidEvent."""
    if data is None:
        return None
    try:
        text = _ENCODER.encode(data)
        size = len(text.encode())
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise InvalidEvent("data", f"is not JSON-serialisable: {error}") from None
    except RecursionError:
        raise InvalidEvent("data", "is nested too deeply") from None
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
        raise InvalidEvent("event_type", f"must look like 'task.created' ({TYPE_PATTERN.pattern}), got {value!r:.80}")
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


# --- what never comes out ---------------------------------------------------------------------------------------------

REDACTED = "[redacted]"
MAX_REMEMBERED_KEYS = 10_000
MAX_REMEMBERED_SHAPES = 1_000

# Well-known credentials. Each begins where no word goes on, so that no text takes more than a few passes.
_CREDENTIALS = re.compile(
    r"""
      -----BEGIN\ [A-Z0-9 ]{0,40}PRIVATE\ KEY(?:\ BLOCK)?-----
        [\s\S]*?(?:-----END\ [A-Z0-9 ]{0,40}PRIVATE\ KEY(?:\ BLOCK)?-----|\Z)
    | (?<![\w-])eyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)*                                      # JWT, signed session cookies
    | (?<![\w-])(?ai:bearer)\ +(?:[\w.~+/=-]{16,}|(?=[a-zA-Z_.~+/=-]*[0-9])[\w.~+/=-]{6,})
    | (?<![\w-])(?ai:basic)\ +(?=[a-zA-Z+/]*[0-9=])[A-Za-z0-9+/]{8,}={0,2}(?![\w+/])
    | (?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])                            # AWS
    | (?<![\w-])AIza[\w-]{35}                                                            # Google
    | (?<![\w-])ya29\.[\w-]{16,}
    | (?<![\w-])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,})
    | (?<![\w-])xox[a-z]-[\w-]{10,}                                                      # Slack
    | (?<![\w-])[sr]k_(?:live|test)_[A-Za-z0-9]{10,}                                      # Stripe
    | (?<![\w-])sk-[\w-]{20,}                                                            # model providers
    | (?<![\w-])npm_[A-Za-z0-9]{30,}
    | (?<![\w-])outfeed_[\w-]{43}
    | (?<=://)[^/\s:@"']{0,200}:[^/\s@"']{1,200}(?=@)                                      # https://user:password@host
    """,
    re.VERBOSE,
)
# A superset of the above. A scan pays for each place where an alternative could begin: each begins with a letter that
# is rare, or whose neighbours decide at once; 3 us for 300 bytes. In JSON anything may hide behind a backslash.
_HINT = (
    r"J(?<=eyJ)|/(?<=://)(?=[^/\s]{0,1604}@)|A(?:KIA|SIA|Iza)|y(?=a29)"
    r"|B(?:[Ee][Aa][Rr][Ee][Rr] |[Aa][Ss][Ii][Cc] |EGIN )|b(?:[Ee][Aa][Rr][Ee][Rr] |[Aa][Ss][Ii][Cc] )"
    r"|g(?:h[pousr]_|ithub_pat_|lpat-)|k(?:_(?=live|test)|-(?<=\bsk-))|n(?=pm_)|x(?=ox[a-z]-)|f(?<=outf)(?=eed_)"
)
_TEXT_HINTS = re.compile(_HINT)
_HINTS = re.compile(rb"\\|'(?=[^'\"]{0,24}:)|" + _HINT.encode())
# A name and its value in text that is nearly JSON; in JSON inside JSON the quotes are escaped.
_PAIR = re.compile(
    r"""(?<!\\)(\\{0,7}["'])([\w .-]{1,100})\1(\s{0,8}:\s{0,8})(\\{0,7}["'])(?:\\.|[^\\])*?\4""", re.DOTALL
)


def redact(value: Any) -> Any:
    """Return *value*, parsed JSON, with `[redacted]` in the place of what must not be seen.

    That is a text, list or object under a key that OUTFEED_REDACT_KEYS names (or that ends in `_` and such a name, in
    any case, with `-`, `.` or spaces for `_`, or in camel case), and in texts and keys whatever is shaped like a
    well-known credential. *value* itself is not changed.
    """
    return _redactor().redact(value)


def may_hold_secrets(raw: bytes, value: Any) -> bool:
    """Return whether `redact` could find something in *value*, or raw could say more: a quick look at both.

    *raw* is its compact JSON. Where this is False, raw may go out as it is.
    """
    return _HINTS.search(raw) is not None or not _redactor().knows(raw, value)


def text_may_hold_secrets(text: str) -> bool:
    """Return whether `redact` could find something in *text*, or in one of the texts that were joined to it."""
    return _may_hold_pairs(text) or _TEXT_HINTS.search(text) is not None


def _may_hold_pairs(text: str) -> bool:
    return ":" in text and ('"' in text or "'" in text)


_CONTAINERS = {dict, list}
_SCALARS = {str, int, float, bool, type(None)}
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_JOINTS = str.maketrans("-. ", "___")


def _key_words(key: str) -> str:
    """Return `access_token` for Access-Token, access.token, ACCESS_TOKEN and accessToken."""
    return _HUMP.sub("_", key).translate(_JOINTS).lower()


class _Redactor:
    """Redacts by one list of names. Remembers what is harmless, so that a known event costs a microsecond.

    That is keys, and shapes: all keys that an event, or its data, has down to the second level, in their order.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._names = frozenset(map(_key_words, names))
        self._ends = tuple(f"_{name}" for name in self._names)
        self._harmless: set[str] = set()
        self._harmless_shapes: set[tuple[Any, ...]] = set()

    def knows(self, raw: bytes, value: Any) -> bool:
        """Return whether all keys are harmless, and as many in *value* as in *raw*: of two equal ones one is lost."""
        count = raw.count(b'":')
        if value.__class__ is not dict:
            return self._has_harmless_keys(value, count)
        data = value.get("data")
        shape = (*value, *data) if data.__class__ is dict else (*value,)
        if len(shape) == count and shape in self._harmless_shapes:
            return True
        if not self._has_harmless_keys(value, count):
            return False
        if len(shape) == count:  # there are no others further down
            if len(self._harmless_shapes) > MAX_REMEMBERED_SHAPES:
                self._harmless_shapes.clear()
            self._harmless_shapes.add(shape)
        return True

    def _has_harmless_keys(self, value: Any, wanted: int) -> bool:
        """Return whether *value* has *wanted* keys, all of them harmless."""
        count, todo = 0, [value]
        for node in todo:
            if node.__class__ is dict:
                if not (node.keys() <= self._harmless or self._are_harmless(node)):
                    return False
                count += len(node)
                todo += [child for child in node.values() if child.__class__ in _CONTAINERS]
            elif node.__class__ is list:
                todo += [child for child in node if child.__class__ in _CONTAINERS]
            elif node.__class__ not in _SCALARS:
                return False
        return count == wanted

    def _are_harmless(self, keys: dict[Any, Any]) -> bool:
        return all(isinstance(key, str) and not self.is_secret(key) for key in keys)

    def is_secret(self, key: str) -> bool:
        """Return whether what stands under *key* is hidden."""
        if key in self._harmless:
            return False
        words = _key_words(key)
        if words in self._names or words.endswith(self._ends):
            return True
        if len(self._harmless) > MAX_REMEMBERED_KEYS:
            self._harmless.clear()
        self._harmless.add(key)
        return False

    def redact(self, value: Any) -> Any:
        """Without recursion: data may be nested as deep as a parser goes."""
        if isinstance(value, str):
            return self._redact_text(value)
        holder = [value]
        todo: list[Any] = [holder]
        for node in todo:
            pairs = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
            if isinstance(node, dict):
                node.clear()  # a redacted key is another key
            for key, child in pairs:
                shown = self._shown(key, child)
                node[self._redact_text(key) if isinstance(key, str) else key] = shown
                if isinstance(shown, dict | list):
                    todo.append(shown)
        return holder[0]

    def _shown(self, key: str | int, child: Any) -> Any:
        """Return what stands in the place of *child*; of a container a copy, whose own children are still to do."""
        if not isinstance(child, str | list | dict):
            return child
        if isinstance(key, str) and self.is_secret(key):
            return REDACTED
        return self._redact_text(child) if isinstance(child, str) else child.copy()

    def _redact_text(self, text: str) -> str:
        if _may_hold_pairs(text):
            text = _PAIR.sub(self._redact_pair, self._redact_json(text))
        return _CREDENTIALS.sub(REDACTED, text) if _TEXT_HINTS.search(text) else text

    def _redact_json(self, text: str) -> str:
        """Look into a text that is itself JSON."""
        if not text.lstrip().startswith(("{", "[")):
            return text
        try:
            value = json.loads(text)
            found = self.redact(value)
            return text if found == value else json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        except (ValueError, RecursionError):
            return text

    def _redact_pair(self, match: re.Match[str]) -> str:
        quote, key, colon, value_quote = match.groups()
        hidden = f"{quote}{key}{quote}{colon}{value_quote}{REDACTED}{value_quote}"
        return hidden if self.is_secret(key) else match[0]


_last_redactor = _Redactor(())


def _redactor() -> _Redactor:
    """Return the one for the settings as they are; by identity, since this is asked for every event."""
    global _last_redactor
    names = settings().redact_keys
    if _last_redactor.names is not names:
        _last_redactor = _Redactor(names)
    return _last_redactor


# --- how each kind looks ----------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """A place in a sentence: the first of *keys* that is filled, in `data` and then in the event, else *fallback*."""

    keys: tuple[str, ...]
    fallback: str


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


def _display(kind: str, icon: str, label: str, sentence: str, *, is_error: bool = False) -> Display:
    """Parse *sentence*: `{a|b|nothing}` is a Field with the keys a and b and the fallback `nothing`."""
    parts: list[str | Field] = []
    for index, part in enumerate(re.split(r"\{([^}]+)\}", sentence)):
        if index % 2:
            *keys, fallback = part.split("|")
            parts.append(Field(tuple(keys), fallback))
        elif part:
            parts.append(part)
    return Display(icon, label, tuple(parts), kind, is_error)


# Icons and sentences of the first eight as ADR 022 has them; a name, where it is missing, falls back on the id.
DISPLAY: dict[str, Display] = {
    EventType.TASK_CREATED: _display("task", "📝", "Task created", "New task: {description|task_id|no description}"),
    EventType.TASK_ASSIGNED: _display("task", "👤", "Task assigned", "Task assigned to {name|agent_id|an agent}"),
    EventType.TASK_COMPLETED: _display("task", "✅", "Task completed", "Task completed"),
    EventType.AGENT_JOINED: _display("agent", "🟢", "Agent joined", "Agent {name|agent_id|unknown} joined"),
    EventType.AGENT_LEFT: _display("agent", "🔴", "Agent left", "Agent {name|agent_id|unknown} left"),
    EventType.BID_SUBMITTED: _display("bid", "💰", "Bid", "Bid: {bid_sats|?} sats from {name|agent_id|an agent}"),
    EventType.TOOL_CALLED: _display("tool", "🔧", "Tool called", "Tool: {tool_name|unnamed}"),
    EventType.SYSTEM_ERROR: _display("system", "⚠️", "Error", "Error: {message|reason|no message}", is_error=True),
    EventType.TASK_BIDDING: _display("task", "📣", "Open for bids", "Open for bids: {description|task_id|a task}"),
    EventType.TASK_STARTED: _display("task", "▶️", "Task started", "{name|agent_id|An agent} started work"),
    EventType.TASK_FAILED: _display(
        "task", "❌", "Task failed", "Task failed: {reason|message|no reason given}", is_error=True
    ),
    EventType.AGENT_STATUS_CHANGED: _display(
        "agent", "🔄", "Agent status", "Agent {name|agent_id|unknown} is now {status|in another state}"
    ),
    EventType.AUCTION_CLOSED: _display("bid", "🔨", "Auction closed", "Auction closed at {bid_sats|no} sats"),
    EventType.TOOL_COMPLETED: _display("tool", "🧰", "Tool completed", "Tool completed: {tool_name|unnamed}"),
    EventType.TOOL_FAILED: _display(
        "tool", "💥", "Tool failed", "Tool failed: {tool_name|unnamed}: {reason|message|no reason given}", is_error=True
    ),
    EventType.SYSTEM_WARNING: _display("system", "🔶", "Warning", "Warning: {message|reason|no message}"),
    EventType.SYSTEM_INFO: _display("system", "ℹ️", "Info", "{message|reason|No message}"),
    "system.pruned": _display("system", "🧹", "Pruned", "{message|Pruned}, by {by|somebody}"),
    "system.restored": _display("system", "💾", "Restored", "{message|Restored from a backup}, by {by|somebody}"),
    "access.signed_in": _display("system", "🔑", "Signed in", "{name|Somebody} signed in by {how|some way}"),
    "access.sign_in_refused": _display("system", "🚫", "Sign-in refused", "Sign-in refused to {name|a stranger}"),
    "access.user_added": _display("system", "🪪", "User added", "{by|Somebody} added {name|a user} as {role|a user}"),
    "access.role_changed": _display("system", "🪪", "Role changed", "{by|Somebody} made {name|a user} {role|another}"),
    "access.password_changed": _display("system", "🔒", "Password changed", "Password of {name|a user} changed"),
    "access.user_disabled": _display("system", "⛔", "User disabled", "{by|Somebody} disabled {name|a user}"),
    "access.user_enabled": _display("system", "🪪", "User enabled", "{by|Somebody} enabled {name|a user}"),
    "access.token_created": _display("system", "🎫", "Token made", "{by|Somebody} made the token {name|unnamed}"),
    "access.token_revoked": _display("system", "✂️", "Token revoked", "{by|Somebody} revoked the token {name|unnamed}"),
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
    return [
        (part, False) if isinstance(part, str) else (_fill(part, event), True)
        for part in display_of(event.event_type).sentence
    ]


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
