"""Cohorts: the live subscribers that share one subscription and one position, so that each event is encoded once."""

from __future__ import annotations

from typing import NamedTuple

from outfeed.feed.client import ConnectedClient
from outfeed.feed.encoding import Batch
from outfeed.feed.pace import next_due
from outfeed.feed.subscription import Subscription
from outfeed.history import Item


class Place(NamedTuple):
    """The place of a subscriber: every event that matches, up to the seq *cursor*, is written.

    *prev* is the last seq that the client was told. *due* is when its next frame may go.
    """

    cursor: int = 0
    prev: int = 0
    due: float = 0.0


class Membership:
    """One stay of a client in the cohorts. `Cohorts` alone changes it, with its lock held.

    While *cohort* is set, the client stands where the cohort does. After that, *place* says where it left, and the
    membership never changes again: a client that joins again gets another one.
    """

    __slots__ = ("client", "cohort", "place")

    def __init__(self, client: ConnectedClient, place: Place) -> None:
        self.client = client
        self.cohort: Cohort | None = None
        self.place = place

    @property
    def is_live(self) -> bool:
        """Whether the stay goes on."""
        return self.cohort is not None

    @property
    def position(self) -> int:
        """The seq up to which the client has been sent, or is being sent, everything that matches."""
        cohort = self.cohort  # `place` is set before this becomes None
        return self.place.cursor if cohort is None else cohort.position


class CohortBatch(NamedTuple):
    """One batch for those who were members when it was encoded. *start* is the cohort's position before it."""

    cohort: Cohort
    batch: Batch
    start: int
    members: list[Membership]


class Cohort:
    """The live subscribers with one subscription at one position. The lock of `Cohorts` guards it.

    *position*: every member has been sent, or is being sent, all that matches up to there. An unpaced cohort is always
    at the feed's position. A paced one follows at its pace: its next frame may go at *due*.
    *prev* is at most the seq that each member was last told. The next frame names it as the seq before.
    """

    def __init__(self, subscription: Subscription, position: int, due: float) -> None:
        self.subscription = subscription
        self.position = position
        self.prev = position
        self.due = due
        self.members: dict[Membership, None] = {}

    @property
    def place(self) -> Place:
        """The place of its members."""
        return Place(self.position, self.prev, self.due)

    def admit(self, member: Membership, prev: int) -> None:
        """Add *member*, which has everything up to this position and was last told *prev*."""
        member.cohort = self
        self.members[member] = None
        self.prev = min(self.prev, prev)

    def dismiss(self, member: Membership, place: Place) -> None:
        """End *member*'s stay at *place*."""
        member.place, member.cohort = place, None
        del self.members[member]

    def absorb(self, other: Cohort) -> None:
        """Take over the members of *other*, which is at the same position and may send at the same moment."""
        for member in other.members:
            self.admit(member, other.prev)
        other.members = {}

    def next_batch(self, items: list[Item], head: int, epoch: str, now: float) -> CohortBatch | None:
        """Encode what may go now of *items*, all from the position to *head*. None if nothing matches."""
        start = self.position
        chunk, is_all = self.subscription.next_chunk(items)
        self.position = head if is_all else chunk[-1].seq
        if not chunk:
            return None
        batch = self.subscription.encode(chunk, self.prev, epoch)
        self.prev = batch.last
        if self.subscription.rate:
            self.due = next_due(self.due, now, self.subscription.rate)
        return CohortBatch(self, batch, start, list(self.members))
