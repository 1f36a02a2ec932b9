"""What a caller gets: events with their place, receipts, where a reader stands, and what it can't have any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from outfeed.events import Event, known_type

_EVENT_FIELDS = ("seq", "id", "event_type", "source", "task_id", "agent_id", "data", "timestamp")


class Receipt(NamedTuple):
    """Where a published event went. *seq* is None once its outbox row is pruned."""

    id: str
    seq: int | None
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEvent(Event):
    """An event with its place in the feed. A field that a raw writer left out is None.

    *is_flattened*: a value, as a rule `data`, is the JSON text of what was nested deeper than 64 levels.
    """

    seq: int
    is_flattened: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the event as the feed sends it."""
        return {"seq": self.seq, **Event.as_dict(self), **({"flattened": True} if self.is_flattened else {})}

    @classmethod
    def of(cls, fields: dict[str, Any]) -> FeedEvent:
        """Return the event that a frame's *fields* are."""
        known: dict[str, Any] = {name: fields.get(name) for name in _EVENT_FIELDS}
        if isinstance(known["event_type"], str):
            known["event_type"] = known_type(known["event_type"])
        return cls(**known, omitted_bytes=fields.get("omitted_bytes", 0), is_flattened="flattened" in fields)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader stands: the last seq it has handled, of which epoch. Without a seq it has not begun."""

    seq: int | None = None
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """These events were pruned before they could be read; the feed goes on behind them."""

    first_seq: int
    last_seq: int

    def __str__(self) -> str:
        return f"events {self.first_seq} to {self.last_seq} were pruned before they could be read"


@dataclass(frozen=True, slots=True)
class Reset:
    """The feed has another history now: another database, or a backup put back. It goes on from its head."""

    epoch: str
    after: int

    def __str__(self) -> str:
        return f"the feed has another history now; what it holds up to seq {self.after} is not read"
