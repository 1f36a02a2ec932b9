"""Source: anything the relay and replays can read. CheckpointStore: where durable consumers stand."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from outfeed.history import Claim, Page, Window
from outfeed.principal import Principal, Wanted

# What the relay and replays read at once.
PAGE_EVENTS = 1000


class Source(Protocol):
    """A history of events in seq order. Any thread may call any method; each answers from one consistent read."""

    def window(self) -> Window:
        """Return the epoch and the first and last seq, fresh."""
        ...

    def read_after(self, seq: int, limit: int) -> Page:
        """Return up to *limit* items above *seq*, oldest first, with the window they were read in."""
        ...

    def read_before(self, seq: int, limit: int) -> Page:
        """Return up to *limit* items below *seq*, newest first."""
        ...

    def newest(self, wanted: Wanted, limit: int, *, after: int, up_to: int) -> list[int]:
        """Return the seqs of the newest *limit* events in that range that match, newest first.

        Never costs more than a look at each event of the range. An event that the trigger did not write may be missing.
        """
        ...

    def renew_epoch(self, epoch: str) -> None:
        """Replace *epoch* by a new one unless that has happened: its seqs are about to be used again."""
        ...


class CheckpointStore(Protocol):
    """Where durable consumers stand. Any thread may call any method; what is answered is on the disk."""

    def claim(self, name: str, by: Principal, *, may_create: bool = True) -> Claim:
        """Become the active connection of the consumer. With *may_create*, a new name begins at the head.

        Raises ForbiddenConsumer, UnknownName without *may_create*, InvalidRequest above the limit of its owner.
        """
        ...

    def move(self, name: str, epoch: str, seq: int, by: Principal, generation: int | None = None) -> None:
        """Acknowledge up to *seq*, never backwards within an epoch.

        Raises Superseded if a newer connection than *generation* exists or the consumer was removed, ForbiddenConsumer,
        InvalidRequest for a seq that was never given out.
        """
        ...

    def generations(self, names: Collection[str]) -> dict[str, int]:
        """Return the generation of the newest connection of each consumer of *names* that exists."""
        ...
