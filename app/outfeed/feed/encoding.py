"""Encodings: how items become bytes on one transport. `frames` has WebSocket's, `sse` that of server-sent events."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from outfeed.history import Item

# Well below the 1 MiB above which common client libraries refuse a message.
MAX_GROUP_BYTES = 512 * 1024


class Batch(NamedTuple):
    """Encoded items joined for one write, so that a thousand events cost one.

    `ends[i]` is where the piece that ends with the seq `seqs[i]` ends in `data`. A piece must arrive whole or not at
    all; *prev* is the seq that the first of them names as the one before it.
    """

    data: bytes
    ends: list[int]
    seqs: list[int]
    prev: int

    @classmethod
    def of(cls, pieces: list[bytes], seqs: list[int], prev: int) -> Batch:
        """Join *pieces*; each ends with the seq at its place in *seqs*."""
        ends, end = [], 0
        for piece in pieces:
            end += len(piece)
            ends.append(end)
        return cls(b"".join(pieces), ends, seqs, prev)

    def cut_at(self, sent: int) -> tuple[int | None, bytes]:
        """Return the last seq in the first *sent* bytes, or None, and the unsent end of a cut piece.

        A piece that is cut in the middle counts as sent: its rest is stashed, and goes out before anything else.
        """
        if not sent:
            return None, b""
        cut = bisect_left(self.ends, sent)
        end = self.ends[cut] if self.ends else len(self.data)
        return (self.seqs[cut] if self.seqs else None), self.data[sent:end]

    @property
    def last(self) -> int:
        """The seq a client has after the whole batch."""
        return self.seqs[-1] if self.seqs else self.prev


class Encoding(Protocol):
    """Bytes for one transport. Stateless: equal calls give equal bytes, so one result serves a whole cohort."""

    @property
    def transport(self) -> str:
        """How the transport is called where clients are counted."""
        ...

    def singles(self, items: Sequence[Item], prev: int, epoch: str) -> Batch:
        """Return one piece for each item, after the seq *prev*."""
        ...

    def groups(self, items: Sequence[Item], prev: int, epoch: str) -> Batch:
        """Return as few pieces as MAX_GROUP_BYTES allows."""
        ...

    def subscribed(self, payload: dict[str, Any]) -> bytes:
        """Return the verdict."""
        ...

    def heartbeat(self, cursor: int, epoch: str, erasures: int = 0) -> bytes:
        """Return the news that everything up to *cursor* has been written, and how many erasures there have been."""
        ...

    def stale(self, reason: str | None, since: str | None) -> bytes:
        """Return the news that the source can't be read, why, and since when (None: never was); no *reason*: it can."""
        ...

    def goodbye(self, code: int, reason: str) -> bytes:
        """Return the last that is written, with one of WebSocket's close codes."""
        ...


def grouped(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Split *items* into runs of at most MAX_GROUP_BYTES of JSON, of one item at least."""
    begin, size = 0, 0
    for index, item in enumerate(items):
        size += len(item.json)
        if size > MAX_GROUP_BYTES and index > begin:
            yield items[begin:index]
            begin, size = index, len(item.json)
    if begin < len(items):
        yield items[begin:]
