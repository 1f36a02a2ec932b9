"""Values of the client: events, receipts, cursors and missing ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from outfeed.events import Event, known_type

_EVENT_FIELDS = ("seq", "id", "event_type", "source", "task_id", "agent_id", "data", "timestamp")


class Receipt(NamedTuple):
    """The id and position of a published event.

    *seq* is None if its outbox row is pruned.
    """

    id: str
    seq: int | None
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEvent(Event):
    """An event with its seq in the feed.

    A field that a raw writer left out is None. *is_flattened*: a value, usually `data`, is the JSON text of a value
    that was nested deeper than 64 levels.
    """

    seq: int
    is_flattened: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the event as the feed sends it."""
        return {"seq": self.seq, **Event.as_dict(self), **({"flattened": True} if self.is_flattened else {})}

    @classmethod
    def of(cls, fields: dict[str, Any]) -> FeedEvent:
        """Return the event with the *fields* of a frame."""
        known: dict[str, Any] = {name: fields.get(name) for name in _EVENT_FIELDS}
        if isinstance(known["event_type"], str):
            known["event_type"] = known_type(known["event_type"])
        return cls(**known, omitted_bytes=fields.get("omitted_bytes", 0), is_flattened="flattened" in fields)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position of a reader: the last seq that it has handled.

    Without a seq the reader has not begun.
    """

    seq: int | None = None
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that were pruned before they could be read.

    The feed continues after them.
    """

    first_seq: int
    last_seq: int

    def __str__(self) -> str:
        return f"events {self.first_seq} to {self.last_seq} were pruned before they could be read"


@dataclass(frozen=True, slots=True)
class Reset:
    """The feed has another history now.

    It is another database, or one restored from a backup. The feed continues from its head.
    """

    epoch: str
    after: int

    def __str__(self) -> str:
        return f"the feed has another history now, like after a restore; its events up to seq {self.after} are skipped"
