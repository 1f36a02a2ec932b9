"""A whole pipeline on one thread and a clock that the test moves.

It has no sockets and no sleeps, and every run is the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from outfeed import clock
from outfeed.feed import frames
from outfeed.feed.client import ClientState
from outfeed.feed.cohort import Cohort
from outfeed.feed.encoding import Encoding
from outfeed.feed.socket_writer import SocketWriter
from outfeed.feed.subscriber import Subscriber
from outfeed.feed.subscription import SubscribeRequest
from tests.feed.fake_source import VIEWER, MemorySource, core_of
from tests.protocol import TEXT, FrameReader, check, seqs_of

STEP_SECS = 0.005
_WRITABLE = open(os.devnull, "wb", buffering=0)  # noqa: SIM115 - until the process ends


class Clock:
    """Monotonic time that stands still until it is moved.

    It does not start at 0, like the clock of a real machine.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 12_345.678
        monkeypatch.setattr(clock, "monotonic", lambda: self.now)


class Socket:
    """A socket that records writes and their times.

    It accepts up to *room* bytes if that is set, and calls *after_send* after each write.
    """

    def __init__(self, time: Clock) -> None:
        self._time = time
        self.room: int | None = None
        self.writes: list[tuple[float, bytes]] = []
        self.after_send: Callable[[], None] = lambda: None

    def setsockopt(self, *_: Any) -> None:
        pass

    def fileno(self) -> int:
        """Return a descriptor that can always be written to."""
        return _WRITABLE.fileno()

    def send(self, data: bytes, flags: int = 0) -> int:
        taken = data if self.room is None else data[: self.room]
        if data and not taken:
            raise BlockingIOError
        if self.room is not None:
            self.room -= len(taken)
        self.writes.append((self._time.now, bytes(taken)))
        self.after_send()
        return len(taken)

    @property
    def received(self) -> bytes:
        return b"".join(data for _, data in self.writes)


class SimulatedClient:
    """A client of the simulation: its subscriber and its socket."""

    def __init__(self, simulation: Simulation, encoding: Encoding, rates: tuple[float, float]) -> None:
        self.socket = Socket(simulation.time)
        self.wakes = 0
        self.on_wake: Callable[[], None] = lambda: None
        self.subscriber = Subscriber(simulation.core, SocketWriter(self.socket), self._wake, encoding, rates, VIEWER)  # type: ignore[arg-type]

    def _wake(self) -> None:
        self.wakes += 1
        self.on_wake()

    def subscribe(self, **fields: Any) -> None:
        self.subscriber.subscribe(SubscribeRequest(**fields))

    def step(self) -> None:
        """Do the work of the client's own thread while it is behind."""
        while self.subscriber.state is ClientState.REPLAYING and self.subscriber.ending is None:
            if self.subscriber.wait_secs() or self.socket.room is not None:
                return  # another thread's turn, or a wait for the socket
            self.subscriber.advance()

    def messages(self) -> list[dict[str, Any]]:
        """Return every frame so far, checked as a client would.

        No frame is missing, and each names the one before.
        """
        found = [message for _, message in self._placed()]
        check(found)
        return found

    def _placed(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each whole frame's message and its first byte.

        The last frame may be cut.
        """
        reader, begin = FrameReader(self.socket.received), 0
        for opcode, body in reader:
            assert opcode == TEXT
            yield begin, json.loads(body)
            begin = reader.taken_bytes

    def seqs(self) -> list[int]:
        """Return the seqs of all events, in order of arrival."""
        return [seq for message in self.messages() for seq in seqs_of(message)]

    def cursor(self) -> int:
        """Return the cursor that a client would resume from."""
        return check(self.messages())

    def times(self) -> list[float]:
        """Return the time of each frame with events."""
        times, end, writes = [], 0, iter(self.socket.writes)
        at = 0.0
        for begin, message in self._placed():
            while end <= begin:
                at, data = next(writes)
                end += len(data)
            if seqs_of(message):
                times.append(at)
        return times

    def arrivals(self) -> dict[int, float]:
        """Return the time of each event's frame."""
        groups = filter(None, map(seqs_of, self.messages()))
        return {seq: at for at, seqs in zip(self.times(), groups, strict=True) for seq in seqs}


class Simulation:
    """A source and a core.

    The test's thread does the work of pacer, commit notifier and clients.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, origin: str | None = None) -> None:
        self.time = Clock(monkeypatch)
        self.source = MemorySource(origin)
        self.core = core_of(self.source, heartbeat_secs=1e9)
        self.hub, self.relay = self.core.hub, self.core.relay
        self.viewers: list[SimulatedClient] = []
        self._rests_until: float | None = None
        self._owed = 0.0
        self.relay.start()
        self.relay.poll()

    def _notice(self) -> None:
        """Do the commit notifier's work after a commit, unless it rests."""
        if self._rests_until is None:
            self._call()

    def _call(self) -> None:
        self.core.wanted.clear()
        rest = self.relay.poll_if_wanted()
        self._rests_until = self.time.now + rest if rest else None

    @property
    def _is_rested(self) -> bool:
        return self._rests_until is not None and (self.core.wanted.is_set() or self._rests_until <= self.time.now)

    def connect(self, encoding: Encoding = frames.WEBSOCKET, rates: tuple[float, float] = (10, 0)) -> SimulatedClient:
        viewer = SimulatedClient(self, encoding, rates)
        self.hub.add(viewer.subscriber)
        self.viewers.append(viewer)
        return viewer

    def join(self, **fields: Any) -> SimulatedClient:
        """Return a viewer that has subscribed and taken its first steps."""
        viewer = self.connect()
        viewer.subscribe(**fields)
        viewer.step()
        return viewer

    def run(self, secs: float, rate: float = 0) -> None:
        """Let *secs* pass while *rate* events a second are committed.

        Each commit is noticed at once.
        """
        end = self.time.now + secs
        while self.time.now < end:
            self.time.now += STEP_SECS
            self._owed += rate * STEP_SECS
            if self._owed >= 1:
                self.source.add(int(self._owed))
                self._owed -= int(self._owed)
                self._notice()
            self.tick()

    def tick(self) -> None:
        """Do the work that is due now.

        It is the pacer's, that of the notifier after its pause, and the steps of clients that are behind.
        """
        if self.core.pacer.take_due():
            self.relay.poll()
        if self._is_rested:
            self._call()
        for viewer in self.viewers:
            viewer.step()

    def write(self, count: int = 1, **fields: Any) -> None:
        """Commit *count* events and have them noticed."""
        self.source.add(count, **fields)
        self._notice()

    @property
    def cohorts(self) -> list[Cohort]:
        return [cohort for cohort, _ in self.core.cohorts.live()]


def busiest_second(times: list[float]) -> int:
    """Return the largest number of frames within any one second."""
    begin, most = 0, 0
    for end, at in enumerate(times):
        while times[begin] <= at - 1 + 1e-6:
            begin += 1
        most = max(most, end - begin + 1)
    return most
