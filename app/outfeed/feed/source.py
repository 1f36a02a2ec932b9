"""Interfaces of the core's storage: `Source` and `CheckpointStore`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from outfeed.history import Claim, Page, Window
from outfeed.principal import Principal, Wanted

# Number of events that the relay and replays read at once.
PAGE_EVENTS = 1000


class Source(Protocol):
    """A history of events in seq order.

    Any thread may call any method. Each method answers from one consistent read.
    Every method raises SourceError if the history cannot be read now.
    """

    @property
    def origin_age(self) -> float | None:
        """Seconds since the origin last confirmed this copy.

        It is None if the source is the history itself.
        """
        ...

    def window(self) -> Window:
        """Return the epoch and the first and last seq, read now."""
        ...

    def read_after(self, seq: int, limit: int) -> Page:
        """Return up to *limit* items above *seq*, oldest first.

        The page has the window of the same read.
        """
        ...

    def read_before(self, seq: int, limit: int) -> Page:
        """Return up to *limit* items below *seq*, newest first."""
        ...

    def newest(self, wanted: Wanted, limit: int, *, after: int, up_to: int) -> list[int]:
        """Return the seqs of the newest *limit* matching events.

        The seqs are above *after*, at most *up_to*, newest first. The cost is at most one check for each event of the
        range. An event that the trigger did not write may be missing.
        """
        ...

    def renew_epoch(self, epoch: str) -> None:
        """Replace *epoch* by a new one before its seqs are used again.

        If the epoch has already been replaced, the call has no effect. It is never called for a copy.
        """
        ...


class CheckpointStore(Protocol):
    """The checkpoints of durable consumers.

    Any thread may call any method. Every answer is durable on disk.
    """

    def claim(self, name: str, by: Principal, *, may_create: bool = True) -> Claim:
        """Make the caller the active connection of the consumer.

        With *may_create*, a new name begins at the head. Raises ForbiddenConsumer, UnknownName without *may_create*,
        InvalidRequest above the limit of its owner.
        """
        ...

    def read(self, name: str, by: Principal) -> Claim:
        """Return where the consumer stands. Raises ForbiddenConsumer, UnknownName."""
        ...

    def require(self, name: str, by: Principal) -> None:
        """Raise ForbiddenConsumer or UnknownName unless *by* may use the consumer."""
        ...

    def move(self, name: str, epoch: str, seq: int, by: Principal, generation: int | None = None) -> None:
        """Acknowledge up to *seq*, never backwards within an epoch.

        Raises Superseded if a newer connection than *generation* exists or the consumer was removed, ForbiddenConsumer,
        InvalidRequest for a seq that was never given out.
        """
        ...

    def generations(self, names: Collection[str]) -> dict[str, int]:
        """Return the newest connection's generation for each of *names*.

        Names of consumers that do not exist are left out.
        """
        ...
