"""Source: anything the relay and replays can read. Checkpoints: where durable consumers stand."""

from __future__ import annotations

from typing import Protocol

from outfeed.history import Claim, Page, Window


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

    def renew_epoch(self, epoch: str) -> None:
        """Replace *epoch* by a new one unless that has happened: its seqs are about to be used again."""
        ...


class Checkpoints(Protocol):
    """Where durable consumers stand. Any thread may call any method; what is answered is on the disk."""

    def claim(self, name: str) -> Claim:
        """Become the active connection of the consumer; a new name begins at the head."""
        ...

    def move(self, name: str, epoch: str, seq: int, generation: int | None = None) -> None:
        """Acknowledge up to *seq*. Raises Superseded where *generation* is no longer the newest."""
        ...

    def generations(self) -> dict[str, int]:
        """Return the generation of each consumer's newest connection."""
        ...
