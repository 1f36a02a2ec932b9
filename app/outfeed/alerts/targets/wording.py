"""Wording: the parts of a notice as plain text within a target's limits.

Values of events come from any program. So all text loses its control characters and direction marks here, and each kind
of target escapes its own markup.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from outfeed.alerts.targets.notice import Notice, NoticeKind
from outfeed.display import Level
from outfeed.text import escaped

MAX_FIELD_CHARS = 200
MARKS = {
    NoticeKind.RAISED: "🔔", NoticeKind.CLEARED: "✅", NoticeKind.UNCERTAIN: "❔", NoticeKind.TEST: "🧪",
}  # fmt: skip
COLOURS = {Level.INFO: 0x2E7D32, Level.WARNING: 0xB26A00, Level.ERROR: 0xC62828}
_FIELDS = {"event_type": "Type", "source": "Source", "task_id": "Task", "agent_id": "Agent", "id": "Event"}
_PLAIN_ID = re.compile(r"[-_A-Za-z0-9]{1,64}")
_JOINERS = dict.fromkeys((0x200D, 0xFE0F))  # they are part of emoji, and harmless alone


def plain_id(event_id: str) -> str:
    """Return the event's id, or a hash of one with other signs.

    It has 1 to 64 letters, digits, dashes and underscores, so that it fits headers.
    """
    if _PLAIN_ID.fullmatch(event_id):
        return event_id
    return hashlib.sha256(event_id.encode("utf-8", "surrogatepass")).hexdigest()


def title(notice: Notice) -> str:
    """Return the title with a mark of its kind, on one line."""
    return f"{MARKS[notice.kind]} {line(notice.title)}"


def line(text: str) -> str:
    """Return *text* on one line without control characters and marks."""
    joined = " ".join(text.split())
    return joined if joined.translate(_JOINERS).isprintable() else escaped(joined)


def text(notice: Notice) -> str:
    """Return the text. Each of its lines has no control characters."""
    return "\n".join(map(line, notice.text.strip().splitlines()))


def fields(notice: Notice) -> Iterator[tuple[str, str]]:
    """Yield the facts beside the text, as name and value."""
    if notice.rule:
        yield "Rule", line(notice.rule)
    if notice.count:
        yield "Events", f"{notice.count:,}"
    for name, label in _FIELDS.items():
        value = _value(notice, name)
        if value:
            yield label, value
    yield "Time", line(notice.occurred_at)


def _value(notice: Notice, name: str) -> str:
    value: Any = (notice.matched or {}).get(name)
    return within(line(value), MAX_FIELD_CHARS) if isinstance(value, str) else ""


def plain(notice: Notice) -> str:
    """Return text and facts as plain text, without the title."""
    facts = "\n".join(f"{name}: {value}" for name, value in fields(notice))
    link = f"\n{notice.url}" if notice.url else ""
    return "\n\n".join(filter(None, (text(notice), facts + link)))


def within(text: str, limit: int, escape: Callable[[str], str] = str, size: Callable[[str], int] | None = None) -> str:
    """Return the escaped text, cut so that it has at most *limit* units.

    *escape* changes characters one by one, so that no escape is cut. *size* is the length in units, by default UTF-16
    code units, which most services count.
    """
    size = size or utf16_size
    if size(whole := escape(text)) <= limit:
        return whole
    kept, left = [], limit - size("…")
    for char in text:
        made = escape(char)
        left -= size(made)
        if left < 0:
            break
        kept.append(made)
    return "".join(kept) + "…"


def utf16_size(text: str) -> int:
    """Return the number of UTF-16 code units of *text*."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def utf8_size(text: str) -> int:
    """Return the number of bytes of *text* in UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))
