"""Cohorts: live subscribers with one subscription and one position.

The subscribers of a cohort share it so that each event is encoded once.
"""

from __future__ import annotations

from typing import NamedTuple

from outfeed.feed.client import ConnectedClient
from outfeed.feed.encoding import Batch
from outfeed.feed.pace import next_due
from outfeed.feed.subscription import Subscription
from outfeed.history import Item


class Place(NamedTuple):
    """The position of a subscriber in the feed.

    Every matching event up to the seq *cursor* is written. *prev* is the last seq that the client was told. The
    client's next frame may be sent from *due* on.
    """

    cursor: int = 0
    prev: int = 0
    due: float = 0.0


class Membership:
    """The membership of one client in the cohorts.

    `Cohorts` alone changes it, with its lock held.

    While *cohort* is set, the client has the cohort's position. After that, *place* is the position at which the client
    left, and the membership never changes again. A client that joins again gets a new membership.
    """

    __slots__ = ("client", "cohort", "place")

    def __init__(self, client: ConnectedClient, place: Place) -> None:
        self.client = client
        self.cohort: Cohort | None = None
        self.place = place

    @property
    def is_live(self) -> bool:
        """Whether the client is still in a cohort."""
        return self.cohort is not None

    @property
    def position(self) -> int:
        """Seq up to which every matching event is sent or being sent."""
        cohort = self.cohort  # `place` is set before this becomes None
        return self.place.cursor if cohort is None else cohort.position


class CohortBatch(NamedTuple):
    """A batch for the members that the cohort had when it was encoded.

    *start* is the cohort's position before the batch. *items* are its events.
    """

    cohort: Cohort
    batch: Batch
    start: int
    members: list[Membership]
    items: list[Item] = []  # noqa: RUF012 - never changed


class Cohort:
    """The live subscribers with one subscription at one position.

    The lock of `Cohorts` guards it.

    *position*: every matching event up to this seq has been sent, or is being sent, to every member. An unpaced cohort
    is always at the feed's position. A paced cohort follows at its pace: its next frame may be sent from *due* on.
    *prev* is at most the seq that each member was last told. The next frame names it as the previous seq.
    """

    def __init__(self, subscription: Subscription, position: int, due: float) -> None:
        self.subscription = subscription
        self.position = position
        self.prev = position
        self.due = due
        self.members: dict[Membership, None] = {}

    @property
    def place(self) -> Place:
        """Place of the cohort's members."""
        return Place(self.position, self.prev, self.due)

    def add_member(self, member: Membership, prev: int) -> None:
        """Add *member*, which is at this position and was last told *prev*."""
        member.cohort = self
        self.members[member] = None
        self.prev = min(self.prev, prev)

    def remove_member(self, member: Membership, place: Place) -> None:
        """Remove *member* and record *place* as its position."""
        member.place, member.cohort = place, None
        del self.members[member]

    def merge(self, other: Cohort) -> None:
        """Move the members of *other* into this cohort.

        Both cohorts have the same position, and both may send from the same time on.
        """
        for member in other.members:
            self.add_member(member, other.prev)
        other.members = {}

    def next_batch(self, items: list[Item], head: int, epoch: str, now: float) -> CohortBatch | None:
        """Encode the part of *items* that may be sent now.

        *items* are all events from the position to *head*. Returns None if no item matches.
        """
        start = self.position
        chunk, is_all = self.subscription.next_chunk(items)
        self.position = head if is_all else chunk[-1].seq
        if not chunk:
            return None
        batch = self.subscription.encode(chunk, self.prev, epoch)
        self.prev = batch.last
        if self.subscription.rate:
            self.due = next_due(self.due, now, self.subscription.rate)
        return CohortBatch(self, batch, start, list(self.members), chunk)
