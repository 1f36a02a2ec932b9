"""Text of notices: made when a notice is sent.

It shows the matching event as it reads then. The queue has no copy of an event, so that a notice sent after an erasure
shows nothing of it.
"""

from __future__ import annotations

from outfeed.alerts.store.notices import QueuedNotice
from outfeed.alerts.targets import Notice, NoticeKind
from outfeed.display import Level, cut, look_of
from outfeed.events import Event
from outfeed.log.store.reading import get_event
from outfeed.store.database import Database
from outfeed.store.displays import Displays

MAX_TITLE_CHARS, MAX_TEXT_CHARS = 200, 4000
# An event with longer data would make a notice that few targets accept.
MAX_MATCHED_CHARS = 16_384


def notice_of(queued: QueuedNotice, database: Database, displays: Displays, url: str | None) -> Notice:
    """Return the notice of a row of the queue.

    *url* is the address of this server, or None. Raises DatabaseError.
    """
    matched = get_event(queued.matched_id, database) if queued.matched_id else None
    return Notice(
        queued.event_id,
        queued.kind,
        queued.rule,
        cut(queued.title, MAX_TITLE_CHARS),
        cut(_text(queued, matched, displays), MAX_TEXT_CHARS),
        _level(queued, matched, displays),
        f"{url}/admin/alerts/rule/{queued.rule}" if url else None,
        queued.occurred_at,
        queued.matches,
        _shown(matched),
    )


def _text(queued: QueuedNotice, matched: Event | None, displays: Displays) -> str:
    lines = [f"{queued.title}."]
    if matched is not None:
        look = look_of(matched, displays.by_type)
        lines += [
            f"{look.icon} {look.text}".strip(),
            f"{matched.event_type} from {matched.source}, {matched.timestamp}",
        ]
    return "\n".join(lines)


def _level(queued: QueuedNotice, matched: Event | None, displays: Displays) -> Level:
    if queued.kind is NoticeKind.CLEARED:
        return Level.INFO
    is_error = matched is not None and look_of(matched, displays.by_type).is_error
    return Level.ERROR if is_error else Level.WARNING


def _shown(matched: Event | None) -> dict[str, object] | None:
    if matched is None:
        return None
    found = matched.as_dict()
    is_long = len(str(found["data"])) > MAX_MATCHED_CHARS
    return {**found, "data": None, "omitted_bytes": len(str(found["data"]))} if is_long else found
