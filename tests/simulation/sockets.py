"""Simulated sockets: bytes from a server to a client, and messages back."""

from __future__ import annotations

import select
from bisect import bisect_left
from typing import Any

from tests.simulation.actors import Actors


class Socket:
    """The server's end of a connection. Before and after each write is a seam.

    It accepts *room* more bytes, any number if that is None, and at most *most* with one call. After *life* more bytes
    the connection breaks: the client gets none of the bytes that follow, and the next write fails. `was_stalled`: it
    has accepted a limited number once.
    """

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self.room: int | None = None
        self.most: int | None = None
        self.life: int | None = None
        self.is_broken = False
        self.sent = bytearray()
        self.was_stalled = False
        self._arrivals: list[tuple[int, float]] = []

    def stall(self, room: int | None, most: int | None = None) -> None:
        """Accept *room* more bytes and *most* with one call, or any number."""
        self.room, self.most = room, most
        self.was_stalled |= room is not None or most is not None

    @property
    def is_slow(self) -> bool:
        """Whether it accepts a limited number of bytes."""
        return self.room is not None or self.most is not None

    def sent_at(self, offset: int) -> float:
        """Return when the byte before *offset* was accepted."""
        return self._arrivals[bisect_left(self._arrivals, (offset, 0.0))][1]

    def setsockopt(self, *_: Any) -> None:
        pass

    def fileno(self) -> int:
        return 0

    def is_ready(self, event: int) -> bool:
        """Return whether a poll for *event* would return."""
        return self.is_broken or (event == select.POLLOUT and self.room != 0)

    def send(self, data: bytes, _: int = 0) -> int:
        self._actors.seam()
        if self.is_broken:
            raise BrokenPipeError
        if data and self.room == 0:
            raise BlockingIOError
        taken = data[: self.room][: self.most]
        if self.room is not None:
            self.room -= len(taken)
        self._deliver(taken)
        self._actors.seam()
        return len(taken)

    def _deliver(self, data: bytes) -> None:
        if self.life is not None:
            self.is_broken = len(data) >= self.life
            data, self.life = data[: self.life], max(0, self.life - len(data))
        self.sent += data
        self._arrivals.append((len(self.sent), self._actors.now))

    def recv(self, *_: Any) -> bytes:
        if self.is_broken:
            return b""
        raise BlockingIOError

    def shutdown(self, _: int) -> None:
        self.is_broken = True
