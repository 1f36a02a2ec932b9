"""The values that the sender of alerts and the targets exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from outfeed.display import Level


class NoticeKind(StrEnum):
    """The reason of a notice."""

    RAISED = "raised"
    CLEARED = "cleared"
    UNCERTAIN = "uncertain"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one target.

    *event_id* is the id of the `alert.*` event. It is the same in each retry, so that a target can drop a repeated
    notice. *title* is one line, *text* several. *matched* is the newest matching event, redacted, or None. *count* is
    the number of matching events.
    """

    event_id: str
    kind: NoticeKind
    rule: str
    title: str
    text: str
    level: Level
    url: str | None
    occurred_at: str
    count: int = 0
    matched: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AlertTarget:
    """A place to send notices to.

    The repr omits the settings, which may be secrets.
    """

    name: str
    kind: str
    settings: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt.

    *error* is for people and has no secrets. After an error that *is_final*, the notice is not sent again.
    *retry_after_secs* is the pause that the target asked for.
    """

    is_delivered: bool
    error: str | None = None
    is_final: bool = False
    retry_after_secs: float | None = None


class Targets(Protocol):
    """The targets of one database. Any thread may call any method."""

    def find(self, name: str) -> AlertTarget | None:
        """Return the target, or None if there is none. Raises DatabaseError."""
        ...

    def send(self, target: AlertTarget, notice: Notice) -> Outcome:
        """Send the notice, in 30 seconds at most.

        Never raises for a failure of the target.
        """
        ...

    def cancel(self) -> None:
        """Make every send in progress end soon, and reject every later one."""
        ...
