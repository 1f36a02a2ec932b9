"""Cohorts: the live subscribers that share one filter and one position, so that each event is framed once for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from app.feed import frames
from app.feed.frames import Batch
from app.feed.subscription import Filter
from app.history import Item

if TYPE_CHECKING:
    from app.feed.subscriber import Subscriber


class Delivery(NamedTuple):
    """One batch on its way to those who were members when it was made. *start* is the hub's position before it."""

    cohort: Cohort
    batch: Batch
    start: int
    members: list[Subscriber]


class Cohort:
    """Who is live with one filter. The hub's lock guards it.

    *prev* is the last matching seq, or, until one matched, the lowest cursor that a member was told: what the next
    frame says of the seq before it, right for every member.
    """

    def __init__(self, filter_: Filter, prev: int) -> None:
        self.filter = filter_
        self.prev = prev
        self.members: dict[Subscriber, None] = {}

    def admit(self, subscriber: Subscriber, prev: int) -> None:
        """Take in a subscriber that has everything up to the hub's position and was last told *prev*."""
        self.members[subscriber] = None
        self.prev = min(self.prev, prev)

    def deliver(self, items: list[Item], start: int) -> Delivery | None:
        """Frame what matches of *items*; None where nothing does."""
        matching = self.filter.matching(items)
        if not matching:
            return None
        batch = frames.join(matching, self.prev)
        self.prev = batch.last
        return Delivery(self, batch, start, list(self.members))
