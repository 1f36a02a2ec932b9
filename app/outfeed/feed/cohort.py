"""Cohorts: the live subscribers that share one subscription and one position, so that each event is encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from outfeed.feed.encoding import Batch
from outfeed.feed.pace import next_due
from outfeed.feed.subscription import Subscription
from outfeed.history import Item

if TYPE_CHECKING:
    from outfeed.feed.subscriber import Subscriber


class Delivery(NamedTuple):
    """One batch on its way to those who were members when it was made. *start* is the cohort's position before it."""

    cohort: Cohort
    batch: Batch
    start: int
    members: list[Subscriber]


class Cohort:
    """Who is live with one subscription at one position. The hub's lock guards it.

    *position*: every member has been sent, or is being sent, all that matches up to there. An unpaced cohort is always
    at the hub's position; a paced one follows it at its beat, *due* being the next.
    *prev* is the last matching seq, or, until one matched, the lowest cursor that a member was told: what the next
    frame says of the seq before it, right for every member.
    """

    def __init__(self, subscription: Subscription, position: int, *, prev: int, due: float = 0.0) -> None:
        self.subscription = subscription
        self.position = position
        self.prev = prev
        self.due = due
        self.members: dict[Subscriber, None] = {}

    def admit(self, subscriber: Subscriber, prev: int) -> None:
        """Take in a subscriber that has everything up to this position and was last told *prev*."""
        self.members[subscriber] = None
        self.prev = min(self.prev, prev)

    def absorb(self, other: Cohort) -> None:
        """Take over the members of *other*, which is at the same position and may send at the same moment."""
        for subscriber in other.members:
            if subscriber.change_cohort(other, self):
                self.members[subscriber] = None
        self.prev = min(self.prev, other.prev)
        other.members = {}

    def deliver(self, items: list[Item], head: int, epoch: str, now: float) -> Delivery | None:
        """Encode what may go now of *items*, all from the position to *head*; None where nothing matches."""
        start = self.position
        chunk, is_all = self.subscription.next_chunk(items)
        self.position = head if is_all else chunk[-1].seq
        if not chunk:
            return None
        batch = self.subscription.encode(chunk, self.prev, epoch)
        self.prev = batch.last
        if self.subscription.rate:
            self.due = next_due(self.due, now, self.subscription.rate)
        return Delivery(self, batch, start, list(self.members))
