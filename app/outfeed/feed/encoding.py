"""Encodings: items as bytes on one transport.

`frames` has the encoding of WebSocket, `sse` that of server-sent events.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from outfeed.history import Item

# Well below the 1 MiB above which common client libraries refuse a message.
MAX_GROUP_BYTES = 512 * 1024


class Batch(NamedTuple):
    """Encoded items joined for one write, so that 1,000 events cost one.

    `ends[i]` is the offset in `data` at which the piece of the seq `seqs[i]` ends. A piece must arrive whole or not at
    all. *prev* is the seq that the first piece names as the previous one.
    """

    data: bytes
    ends: list[int]
    seqs: list[int]
    prev: int

    @classmethod
    def of(cls, pieces: list[bytes], seqs: list[int], prev: int) -> Batch:
        """Join *pieces*. `seqs[i]` is the last seq in `pieces[i]`."""
        ends, end = [], 0
        for piece in pieces:
            end += len(piece)
            ends.append(end)
        return cls(b"".join(pieces), ends, seqs, prev)

    def cut_at(self, sent: int) -> tuple[int | None, bytes]:
        """Return the last seq in the first *sent* bytes, and the cut rest.

        The seq is None if no byte was sent. The rest is the unsent end of a piece that was cut. A cut piece counts as
        sent, because its rest is stashed and is written before anything else.
        """
        if not sent:
            return None, b""
        cut = bisect_left(self.ends, sent)
        end = self.ends[cut] if self.ends else len(self.data)
        return (self.seqs[cut] if self.seqs else None), self.data[sent:end]

    @property
    def last(self) -> int:
        """Last seq that a client has after the whole batch."""
        return self.seqs[-1] if self.seqs else self.prev


class Counters(NamedTuple):
    """Numbers of erased events, and of changes of displays."""

    erasures: int = 0
    types: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counters that have moved, as a message has them."""
        return {name: count for name, count in self._asdict().items() if count}


class Encoding(Protocol):
    """The encoding of one transport.

    It is stateless: equal calls give equal bytes, so one result serves a whole cohort.
    """

    @property
    def transport(self) -> str:
        """Name of the transport in the counts of clients."""
        ...

    def singles(self, items: Sequence[Item], prev: int, epoch: str) -> Batch:
        """Return one piece for each item. The first names *prev* as previous."""
        ...

    def groups(self, items: Sequence[Item], prev: int, epoch: str) -> Batch:
        """Return as few pieces as MAX_GROUP_BYTES allows."""
        ...

    def subscribed(self, payload: dict[str, Any]) -> bytes:
        """Return the verdict."""
        ...

    def heartbeat(self, cursor: int, epoch: str, counters: Counters, origin_age: float | None = None) -> bytes:
        """Return a heartbeat: every event up to *cursor* has been written.

        *origin_age*, of a copy, is the seconds since its origin last confirmed what the copy holds.
        """
        ...

    def stale(self, reason: str | None, since: str | None) -> bytes:
        """Return the message that the source cannot be read.

        *reason* says why, and *since* is the time of the last read (None: the source was never read). Without a
        *reason*, the message says that the source can be read again.
        """
        ...

    def close_message(self, code: int, reason: str) -> bytes:
        """Return the last message of a connection.

        *code* is one of the close codes of WebSocket, on every transport.
        """
        ...


def grouped(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Split *items* into runs of at most MAX_GROUP_BYTES of JSON.

    A run has at least one item.
    """
    begin, size = 0, 0
    for index, item in enumerate(items):
        size += len(item.json)
        if size > MAX_GROUP_BYTES and index > begin:
            yield items[begin:index]
            begin, size = index, len(item.json)
    if begin < len(items):
        yield items[begin:]
