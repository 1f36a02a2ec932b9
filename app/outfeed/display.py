"""Displays: how an event of each type reads. No I/O.

That is its icon, sentence, level and kind.

`static/event-feed/sentences.js` does the same in a browser, and tests/looks.json holds both to one table of cases.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from outfeed.errors import InvalidDisplay
from outfeed.events import MAX_TYPE_CHARS, TYPE_PATTERN, Event, EventType
from outfeed.principal import is_audit

MAX_ICON_CHARS = 16
MAX_LABEL_CHARS = 200
MAX_PLACES = 20
MAX_VALUE_CHARS = 80
MAX_CUT_CHARS = 200  # what `{a:N}` may ask for
MAX_PAIRS = 4  # of a type without a label
MISSING = "–"
OTHER = "other"
KINDS = ("task", "agent", "bid", "tool", "system", OTHER)  # those with a colour of their own
COLOURS = 12  # for all other kinds
EVENT_FIELDS = ("id", "event_type", "source", "task_id", "agent_id", "timestamp")
SAID = ("message", "description", "name", "title", "reason", "error")

_PLACE = re.compile(r"\{([^{}]*)\}")
_CUT = re.compile(r"(.*):([0-9]{1,3})", re.DOTALL)
_KIND = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FAILURE = re.compile(r"(?:.*[._])?(?:failed|error|captured)", re.DOTALL)
_OWN_PART = re.compile(r"([^{\[]+)|\{([^}]+)\}|\[([^{]*)\{([^}]+)\}([^\]]*)\]")
_ZERO_WIDTH_JOINER = "\u200d"  # in emoji of several characters


class Level(StrEnum):
    """The level of an event. A warning and an error colour their row."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


ICONS = {Level.INFO: "", Level.WARNING: "🔶", Level.ERROR: "❌"}  # of a type that has no icon


class Fragment(NamedTuple):
    """A part of a sentence.

    *role*: `text` of the label, a `name` from the event, or the `type` that stands first.
    """

    text: str
    role: str = "text"


class Slot(NamedTuple):
    """A place in a label, for a value of the event.

    The value is the first of *names* that is filled, else *fallback*. *before* and *after* are the text around it. If
    there is neither a value nor a fallback, they are omitted too.
    """

    names: tuple[str, ...]
    fallback: str = MISSING
    before: str = ""
    after: str = ""
    chars: int = MAX_VALUE_CHARS


@dataclass(frozen=True, slots=True)
class Display:
    """How a type was set to read.

    Without an icon it has that of its level. Without a label it reads like a type without a display. Without a level,
    which only a display of a feature may lack, the data and the type decide.
    """

    icon: str | None = None
    label: str | None = None
    level: Level | None = Level.INFO

    @classmethod
    def checked(cls, name: str, *, icon: Any = None, label: Any = None, level: Any = Level.INFO) -> Display:
        """Return the display of the type *name*.

        Raises InvalidDisplay, which names the field.
        """
        _check_name(name)
        if icon is not None:
            _check_text(name, "icon", icon, MAX_ICON_CHARS)
        if label is not None:
            _check_text(name, "label", label, MAX_LABEL_CHARS)
            _check_places(name, label)
        if level not in list(Level):
            raise InvalidDisplay(f"{name}: level: must be info, warning or error (got {level!r:.80})")
        return cls(icon, label, Level(level))

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Display:
        """Return the display that `as_dict` gave *fields* of, without a check."""
        level = fields.get("level")
        return cls(fields.get("icon"), fields.get("label"), None if level is None else Level(level))

    def as_dict(self) -> dict[str, str]:
        """Return what is set, as the API and files have it."""
        fields = {"icon": self.icon, "label": self.label, "level": self.level and self.level.value}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class OwnDisplay:
    """How a type of Outfeed's own reads. *title* is its short name."""

    kind: str
    icon: str
    title: str
    parts: tuple[str | Slot, ...]
    level: Level

    def as_dict(self) -> dict[str, Any]:
        """Return what `<event-feed>` makes rows from; a Slot becomes an object."""
        parts = [part if isinstance(part, str) else part._asdict() for part in self.parts]
        return {"icon": self.icon, "kind": self.kind, "level": self.level.value, "parts": parts}


@dataclass(frozen=True, slots=True)
class Look:
    """How one event reads."""

    kind: str
    icon: str
    level: Level
    parts: tuple[Fragment, ...]

    @property
    def text(self) -> str:
        """The sentence as plain text on one line."""
        return "".join(part.text for part in self.parts)

    @property
    def is_error(self) -> bool:
        """Whether the event counts as an error."""
        return self.level is Level.ERROR

    @property
    def colour(self) -> str:
        """The name of the kind's colour."""
        return colour_of(self.kind)


# --- limits -----------------------------------------------------------------------------------------------------------


def _check_name(name: str) -> None:
    if not isinstance(name, str) or len(name) > MAX_TYPE_CHARS or not TYPE_PATTERN.fullmatch(name):
        raise InvalidDisplay(f"{name!r:.80}: must be a type like order.paid, with at most {MAX_TYPE_CHARS} characters")
    if name in OWN or is_audit(name):
        raise InvalidDisplay(f"{name}: Outfeed defines this type, and its display cannot be changed")


def _check_text(name: str, field: str, text: Any, most: int) -> None:
    if not isinstance(text, str):
        raise InvalidDisplay(f"{name}: {field}: must be text (got {text!r:.80})")
    if not text.strip() or len(text) > most:
        raise InvalidDisplay(f"{name}: {field}: must have 1 to {most} characters, got {len(text)}")
    if not text.replace(_ZERO_WIDTH_JOINER, "").isprintable():
        raise InvalidDisplay(f"{name}: {field}: must be one line without control characters (got {text!r:.80})")


def _check_places(name: str, label: str) -> None:
    places = _PLACE.findall(label)
    if len(places) > MAX_PLACES:
        raise InvalidDisplay(f"{name}: label: must have at most {MAX_PLACES} places, got {len(places)}")
    if set("{}") & set(_PLACE.sub("", label)):
        raise InvalidDisplay(f"{name}: label: has a brace without its partner; a place is like {{amount}}")
    for place in map(_place, places):
        if not all(each and each == each.strip() and each != "was." for each in place.names):
            raise InvalidDisplay(f"{name}: label: a place names one or more values, like {{amount}} or {{name|id}}")
        if not 1 <= place.chars <= MAX_CUT_CHARS:
            raise InvalidDisplay(f"{name}: label: a value may have 1 to {MAX_CUT_CHARS} characters, got {place.chars}")


def names_in(label: str) -> list[str]:
    """Return the names of the values that *label* shows."""
    return [name for part in _parsed(label) if isinstance(part, Slot) for name in part.names]


@functools.lru_cache(maxsize=4096)
def _parsed(label: str) -> tuple[str | Slot, ...]:
    split = _PLACE.split(label)
    parts = [_place(text) if index % 2 else text for index, text in enumerate(split)]
    return tuple(part for part in parts if part)


def _place(text: str) -> Slot:
    if cut := _CUT.fullmatch(text):
        return Slot(tuple(cut[1].split("|")), chars=int(cut[2]))
    return Slot(tuple(text.split("|")))


# --- the look of an event ---------------------------------------------------------------------------------------------


def look_of(event: Event, displays: Mapping[str, Display]) -> Look:
    """Return how *event*, which is redacted, reads with *displays*."""
    event_type = _type_of(event)
    if own := OWN.get(event_type):
        return Look(own.kind, own.icon, own.level, tuple(_filled(own.parts, event)))
    display = displays.get(event_type)
    level = level_of(event_type, _data_of(event).get("level"), displays)
    icon = (display and display.icon) or ICONS[level]
    parts = _filled(_parsed(display.label), event) if display and display.label else _plain(event)
    return Look(kind_of(event_type), icon, level, tuple(parts))


def title_of(event_type: str) -> str:
    """Return the short name of a type of Outfeed's own, else the type."""
    own = OWN.get(event_type)
    return own.title if own else event_type


def kind_of(event_type: str) -> str:
    """Return the kind of an event: the first word of its type.

    Types of Outfeed's own have the kind that their display says.
    """
    if own := OWN.get(event_type):
        return own.kind
    word = event_type.partition(".")[0]
    return word if _KIND.fullmatch(word) else OTHER


def colour_of(kind: str) -> str:
    """Return the name of the kind's colour: its own, or one of twelve.

    `data-colour` in the pages holds that name.
    """
    if kind in KINDS:
        return kind
    number = 2166136261  # FNV-1a of 32 bits
    for char in kind:
        number = (number ^ ord(char)) * 16777619 & 0xFFFFFFFF
    return f"kind-{number % COLOURS}"


def level_of(event_type: str, said: object, displays: Mapping[str, Display]) -> Level:
    """Return the level of an event of that type; *said* is `data.level`.

    The type's display decides, then the data, then the end of the type.
    """
    if (found := OWN.get(event_type) or displays.get(event_type)) and found.level:
        return found.level
    if isinstance(said, str) and said.lower() in list(Level):
        return Level(said.lower())
    return Level.ERROR if _FAILURE.fullmatch(event_type) else Level.INFO


def _type_of(event: Event) -> str:
    """Return the event's type, which a raw writer may have left out."""
    return event.event_type if isinstance(event.event_type, str) else ""


def _filled(parts: tuple[str | Slot, ...], event: Event) -> Iterator[Fragment]:
    for part in parts:
        if isinstance(part, str):
            yield Fragment(part)
            continue
        text = next(filter(None, (_value(name, event) for name in part.names)), part.fallback)
        if text:
            around = Fragment(part.before), Fragment(cut(text, part.chars), "name"), Fragment(part.after)
            yield from filter(lambda each: each.text, around)


def _value(name: str, event: Event) -> str:
    """Return the value of *name* in the event as text, or empty text.

    It is the first filled one of `data.name`, `data.row.name` and the event's own field.
    """
    data = _data_of(event)
    if name.startswith("was."):
        return _text(_members(data.get("was")).get(name.removeprefix("was.")))
    found = [data.get(name), _members(data.get("row")).get(name)]
    found += [getattr(event, name)] if name in EVENT_FIELDS else []
    return next(filter(None, map(_text, found)), "")


def _data_of(event: Event) -> dict[str, Any]:
    return _members(event.data)


def _members(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """Return a scalar as text on one line; empty text for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    return " ".join(str(value).split()) if isinstance(value, str | int) else ""


def _number(value: float) -> str:
    """Return *value* as a browser writes it: `1`, `0.000001`, `1e-7`, `1e+21`.

    A browser cannot distinguish 1.0 from 1.
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if not value:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa}e{int(exponent):+d}"


def cut(text: str, chars: int) -> str:
    """Return *text*, or its beginning and `…`, in at most *chars* characters."""
    return text if len(text) <= chars else text[: chars - 1] + "…"


# --- a type without a label -------------------------------------------------------------------------------------------


def _plain(event: Event) -> Iterator[Fragment]:
    """Yield the type, then what the data says.

    That is its sentence, or the change of a row, or its first scalars.
    """
    yield Fragment(cut(_text(_type_of(event)) or MISSING, MAX_VALUE_CHARS), "type")
    data = _data_of(event)
    said = next(filter(None, (_text(data.get(name)) for name in SAID)), "") or _text(event.data)
    if said:
        yield Fragment(" ")
        yield Fragment(cut(said, MAX_VALUE_CHARS), "name")
    elif not all(name in data for name in ("op", "table", "key")):
        yield from _pairs(data)
    elif data["op"] == "update" and data.get("was"):
        yield from _pairs(_members(data["key"]))
        yield from _changes(_members(data["was"]), _members(data.get("row")))
    else:
        yield from _pairs(_members(data.get("row")) or _members(data["key"]) or data)


def _pairs(members: dict[str, Any]) -> Iterator[Fragment]:
    """Yield the first scalars as `name=value`."""
    texts = ((name, _text(value)) for name, value in members.items())
    filled = [(name, text) for name, text in texts if text]
    for name, text in filled[:MAX_PAIRS]:
        yield Fragment(f" {_key(name)}=")
        yield Fragment(cut(text, MAX_VALUE_CHARS), "name")


def _changes(was: dict[str, Any], row: dict[str, Any]) -> Iterator[Fragment]:
    """Yield the first changed columns as `name=old → new`."""
    for name, old in list(was.items())[:MAX_PAIRS]:
        yield Fragment(f" {_key(name)}=")
        yield Fragment(cut(_text(old) or MISSING, MAX_VALUE_CHARS), "name")
        yield Fragment(" → ")
        yield Fragment(cut(_text(row.get(name)) or MISSING, MAX_VALUE_CHARS), "name")


def _key(name: str) -> str:
    return cut(" ".join(name.split()), MAX_VALUE_CHARS)


# --- Outfeed's own types ----------------------------------------------------------------------------------------------


def _own(kind: str, icon: str, title: str, label: str, level: Level = Level.INFO) -> OwnDisplay:
    """Return the display of one of Outfeed's own types.

    In *label*, `{a|b|nothing}` is a Slot with the names a and b and the fallback `nothing`.
    `[ ({a|b} sats)]` is a Slot with text around it, which is omitted if neither a nor b is filled.
    """
    parts: list[str | Slot] = []
    for text, names, before, optional_names, after in _OWN_PART.findall(label):
        if text:
            parts.append(text)
        elif names:
            *keys, fallback = names.split("|")
            parts.append(Slot(tuple(keys), fallback, chars=MAX_CUT_CHARS))
        else:
            parts.append(Slot(tuple(optional_names.split("|")), "", before, after, MAX_CUT_CHARS))
    return OwnDisplay(kind, icon, title, tuple(parts), level)


_SUBJECT = "[ · {description|title}]"  # the task that an event is about

# Icons and sentences of the first eight as ADR 022 has them, and its names for agents and sats as alternative names. A
# missing name falls back on the id.
OWN: dict[str, OwnDisplay] = {
    EventType.TASK_CREATED: _own("task", "📝", "Task created", "New task: {description|task_id|no description}"),
    EventType.TASK_ASSIGNED: _own(
        "task",
        "👤",
        "Task assigned",
        "Task assigned to {name|agent|agent_id|an agent}[ ({bid_sats|amount} sats)]" + _SUBJECT,
    ),
    EventType.TASK_COMPLETED: _own("task", "✅", "Task completed", "Task completed" + _SUBJECT),
    EventType.AGENT_JOINED: _own(
        "agent", "🟢", "Agent joined", "Agent {name|agent|agent_id|unknown} joined[ ({persona})]"
    ),
    EventType.AGENT_LEFT: _own("agent", "🔴", "Agent left", "Agent {name|agent|agent_id|unknown} left"),
    EventType.BID_SUBMITTED: _own(
        "bid", "💰", "Bid", "Bid: {bid_sats|amount|?} sats from {name|agent|agent_id|an agent}" + _SUBJECT
    ),
    EventType.TOOL_CALLED: _own("tool", "🔧", "Tool called", "Tool: {tool_name|unnamed}" + _SUBJECT),
    EventType.SYSTEM_ERROR: _own("system", "⚠️", "Error", "Error: {message|description|reason|no message}", Level.ERROR),
    EventType.TASK_BIDDING: _own("task", "📣", "Open for bids", "Open for bids: {description|task_id|a task}"),
    EventType.TASK_STARTED: _own("task", "▶️", "Task started", "{name|agent|agent_id|An agent} started work" + _SUBJECT),
    EventType.TASK_FAILED: _own(
        "task", "❌", "Task failed", "Task failed: {reason|message|no reason given}" + _SUBJECT, Level.ERROR
    ),
    EventType.AGENT_STATUS_CHANGED: _own(
        "agent", "🔄", "Agent status", "Agent {name|agent|agent_id|unknown} is now {status|in another state}" + _SUBJECT
    ),
    EventType.AUCTION_CLOSED: _own(
        "bid", "🔨", "Auction closed", "Auction closed[ at {bid_sats|amount} sats]" + _SUBJECT
    ),
    EventType.TOOL_COMPLETED: _own("tool", "🧰", "Tool completed", "Tool completed: {tool_name|unnamed}" + _SUBJECT),
    EventType.TOOL_FAILED: _own(
        "tool",
        "💥",
        "Tool failed",
        "Tool failed: {tool_name|unnamed}: {reason|message|no reason given}" + _SUBJECT,
        Level.ERROR,
    ),
    EventType.SYSTEM_WARNING: _own(
        "system", "🔶", "Warning", "Warning: {message|description|reason|no message}", Level.WARNING
    ),
    EventType.SYSTEM_INFO: _own("system", "ℹ️", "Info", "{message|description|reason|No message}"),
    "alert.raised": _own("system", "🚨", "Alert raised", "Alert {message|rule|raised}", Level.ERROR),
    "alert.cleared": _own("system", "🔕", "Alert cleared", "Alert {message|rule|cleared}"),
    "alert.uncertain": _own("system", "❔", "Alert uncertain", "Alert {message|rule|uncertain}", Level.WARNING),
    "system.pruned": _own("system", "🧹", "Pruned", "{message|Pruned}, by {by|someone}"),
    "system.restored": _own("system", "💾", "Restored", "{message|Restored from a backup}, by {by|someone}"),
    "system.backed_up": _own("system", "💾", "Backed up", "{message|Backed up}, by {by|someone}"),
    "access.signed_in": _own("system", "🔑", "Signed in", "{name|Someone} signed in[ by {how}]"),
    "access.sign_in_refused": _own("system", "🚫", "Sign-in refused", "Sign-in refused to {name|an unknown user}"),
    "access.user_added": _own("system", "🪪", "User added", "{by|Someone} added {name|a user} as {role|a user}"),
    "access.role_changed": _own("system", "🪪", "Role changed", "{by|Someone} made {name|a user} {role|another}"),
    "access.password_changed": _own("system", "🔒", "Password changed", "Password of {name|a user} changed"),
    "access.user_disabled": _own("system", "⛔", "User disabled", "{by|Someone} disabled {name|a user}"),
    "access.user_enabled": _own("system", "🪪", "User enabled", "{by|Someone} enabled {name|a user}"),
    "access.sessions_ended": _own("system", "🚪", "Sessions ended", "{by|Someone} signed {name|a user} out everywhere"),
    "access.link_created": _own("system", "🔗", "Link created", "{by|Someone} made a sign-in link for {name|a user}"),
    "access.token_created": _own("system", "🎫", "Token created", "{by|Someone} created the token {name|unnamed}"),
    "access.consumer_claimed": _own(
        "system", "📌", "Consumer claimed", "{owner|Someone} claimed the consumer {name|unnamed}"
    ),
    "access.consumer_owned": _own(
        "system", "📌", "Consumer owned", "{by|Someone} gave the consumer {name|unnamed} to {owner|someone}"
    ),
    "access.consumer_reset": _own(
        "system", "⏮️", "Consumer reset", "{by|Someone} moved the consumer {name|unnamed} to seq {seq|?}"
    ),
    "access.consumer_removed": _own(
        "system", "✂️", "Consumer removed", "{by|Someone} removed the consumer {name|unnamed}"
    ),
    "access.token_revoked": _own("system", "✂️", "Token revoked", "{by|Someone} revoked the token {name|unnamed}"),
    "access.token_rotated": _own(
        "system", "🎫", "Token rotated", "{by|Someone} gave the token {name|unnamed} a new secret"
    ),
    "access.address_added": _own(
        "system", "📮", "Address added", "{by|Someone} added the write-only address {name|unnamed}"
    ),
    "access.address_revoked": _own(
        "system", "✂️", "Address revoked", "{by|Someone} revoked the write-only address {name|unnamed}"
    ),
    "access.alert_added": _own("system", "🔔", "Alert added", "{by|Someone} added the alert {name|unnamed}"),
    "access.alert_changed": _own("system", "🔔", "Alert changed", "{by|Someone} changed the alert {name|unnamed}"),
    "access.alert_removed": _own("system", "✂️", "Alert removed", "{by|Someone} removed the alert {name|unnamed}"),
    "access.alert_paused": _own("system", "⏸️", "Alert paused", "{by|Someone} paused the alert {name|unnamed}"),
    "access.alert_resumed": _own("system", "🔔", "Alert resumed", "{by|Someone} resumed the alert {name|unnamed}"),
    "access.backup_downloaded": _own(
        "system", "📥", "Backup downloaded", "{by|Someone} downloaded the backup {backup|unnamed}"
    ),
    "access.display_set": _own("system", "🎨", "Display set", "{by|Someone} set the display of {name|a type}"),
    "access.display_removed": _own(
        "system", "🎨", "Display removed", "{by|Someone} removed the display of {name|a type}"
    ),
    "access.displays_imported": _own(
        "system", "🎨", "Displays imported", "{by|Someone} imported displays of types: {count|?}"
    ),
    "access.webhook_added": _own("system", "🪝", "Webhook added", "{by|Someone} added the webhook {name|unnamed}"),
    "access.webhook_changed": _own(
        "system", "🪝", "Webhook changed", "{by|Someone} changed the webhook {name|unnamed}"
    ),
    "access.webhook_paused": _own("system", "⏸️", "Webhook paused", "{by|Someone} paused the webhook {name|unnamed}"),
    "access.webhook_resumed": _own("system", "▶️", "Webhook resumed", "{by|Someone} resumed the webhook {name|unnamed}"),
    "access.webhook_rotated": _own(
        "system", "🎫", "Webhook rotated", "{by|Someone} gave the webhook {name|unnamed} a new secret"
    ),
    "access.webhook_removed": _own("system", "✂️", "Webhook removed", "{by|Someone} removed the webhook {name|unnamed}"),
    "access.webhook_tested": _own(
        "system", "🪝", "Webhook tested", "{by|Someone} tested the webhook {name|unnamed}[, which answered {status}]"
    ),
    "access.webhook_sent_again": _own(
        "system", "🔁", "Webhook sent again", "{by|Someone} sent seq {first_seq|?} to webhook {name|unnamed} again"
    ),
    "access.webhook_skipped": _own(
        "system",
        "⏭️",
        "Webhook skipped",
        "{by|Someone} skipped seq {first_seq|?} to {last_seq|?} of webhook {name|unnamed}",
    ),
    "access.target_added": _own("system", "📣", "Target added", "{by|Someone} added the target {name|unnamed}"),
    "access.target_changed": _own("system", "📣", "Target changed", "{by|Someone} changed the target {name|unnamed}"),
    "access.target_removed": _own("system", "✂️", "Target removed", "{by|Someone} removed the target {name|unnamed}"),
}
