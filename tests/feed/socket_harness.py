"""Real TCP connections over a core in memory.

Tests hold both ends of a connection. The clients check the frames that they receive.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

from outfeed.errors import Overtaken
from outfeed.feed import dialogue, frames
from outfeed.feed.client import ClientState
from outfeed.feed.core import Core
from outfeed.feed.socket_writer import SocketWriter
from outfeed.feed.subscriber import Subscriber
from outfeed.history import Item
from tests.feed.fake_source import VIEWER, LockedSource, MemoryCheckpoints, MemorySource
from tests.protocol import CursorCheck, Ended, FrameSocket


class Feed:
    """A source and a core whose relay has started; the test polls."""

    def __init__(
        self,
        source: MemorySource | None = None,
        heartbeat_secs: float = 3600,
        workers: int = 1,
        record: Callable[[str, int, list[Item]], None] | None = None,
    ) -> None:
        self.source = source or LockedSource()
        self.checkpoints = MemoryCheckpoints(self.source)
        self.recorded: list[tuple[str, int]] = []
        self.core = Core(
            self.source, self.checkpoints, record or self._record, heartbeat_secs=heartbeat_secs, workers=workers
        )
        self.hub, self.relay = self.core.hub, self.core.relay
        self.relay.start()

    def _record(self, epoch: str, seq: int, _: list[Item]) -> None:
        self.recorded.append((epoch, seq))

    def write(self, count: int, **fields: Any) -> None:
        """Commit *count* events and push them."""
        self.source.add(count, **fields)
        self.relay.poll()

    def cohorts(self) -> int:
        """Return the number of cohorts."""
        return len(self.core.cohorts.live())

    def clients(self) -> int:
        """Return the number of clients that are connected or wait."""
        return self.hub.counts().total()


class ServerEnd:
    """The server's end of a real connection.

    If *room* is set, it accepts only that many more bytes. *before_send* is called before each write.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.room: int | None = None
        self.before_send: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytes, flags: int) -> int:
        if data:
            self.before_send()
        if self.room is None:
            return self._sock.send(data, flags)
        if self.room == 0:
            raise BlockingIOError
        sent = self._sock.send(data[: self.room], flags)
        self.room -= sent
        return sent


class Peer(FrameSocket):
    """A client at the far end of a real TCP connection.

    `writer` is the server's end.
    """

    def __init__(self, send_buffer_bytes: int | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            super().__init__(socket.create_connection(listener.getsockname()))
            accepted, _ = listener.accept()
        if send_buffer_bytes:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer_bytes)
        self.socket.settimeout(10)
        self.server_end = ServerEnd(accepted)
        self.writer = SocketWriter(self.server_end)  # type: ignore[arg-type]

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.server_end.close()

    def take_messages(self, until_seq: int) -> list[dict[str, Any]]:
        """Return the messages up to the event with that seq."""
        messages = [self.take_message()]
        while messages[-1].get("seq") != until_seq:
            messages.append(self.take_message())
        return messages

    def take_all(self) -> list[dict[str, Any]]:
        """Return all messages until the server ends the connection."""
        messages = []
        with contextlib.suppress(Ended):
            while True:
                messages.append(self.take_message())
        return messages


class HasCore(Protocol):
    """A Feed, or the services of a real process."""

    @property
    def core(self) -> Core: ...


class Client(Peer):
    """A subscriber of *feed*'s hub, and the client at the far end.

    A test calls `advance` itself, or has `run` do the work of a connection's own thread.
    """

    def __init__(self, feed: HasCore, send_buffer_bytes: int | None = None) -> None:
        super().__init__(send_buffer_bytes)
        self.hub = feed.core.hub
        self.check = CursorCheck()
        self.seen: list[int] = []
        self.is_overtaken = False
        self._woken = threading.Event()
        self._inbox: list[str] = []
        self._is_leaving = False
        self._thread: threading.Thread | None = None
        self.subscriber = Subscriber(feed.core, self.writer, self._woken.set, frames.WEBSOCKET, (0, 0), VIEWER)
        self.hub.add(self.subscriber)

    def __exit__(self, *_: object) -> None:
        self._is_leaving = True
        self._woken.set()
        if self._thread is not None:
            self.socket.close()  # wakes a thread that waits for room
            self._thread.join()
        self.hub.remove(self.subscriber)
        super().__exit__()

    # --- the server's side --------------------------------------------------------------------------------------------

    @property
    def state(self) -> ClientState:
        return self.subscriber.state

    def say(self, **fields: Any) -> None:
        """Have the server receive a message, on this thread."""
        dialogue.answer(self.subscriber, json.dumps(fields))

    def go_live(self) -> None:
        """Take the steps of the own thread until the subscriber is live."""
        while self.state is ClientState.REPLAYING:
            assert self.subscriber.ending is None, self.subscriber.ending
            self.subscriber.advance()

    def run(self) -> None:
        """Serve the client on a thread of its own; `ask` reaches it."""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def ends(self) -> bool:
        """Return whether the thread of `run` ends within a few seconds."""
        assert self._thread is not None
        self._thread.join(5)
        return not self._thread.is_alive()

    def ask(self, **fields: Any) -> None:
        """Have the own thread receive a message."""
        self._inbox.append(json.dumps(fields))
        self._woken.set()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            try:
                while self.subscriber.ending is None and not self._is_leaving:
                    self._step()
            except Overtaken:
                self.is_overtaken = True
            self.hub.remove(self.subscriber)
            self.server_end.shutdown(1)

    def _step(self) -> None:
        if self._inbox:
            dialogue.answer(self.subscriber, self._inbox.pop(0))
        if self.state is ClientState.REPLAYING:
            self.subscriber.advance()
        elif not self._inbox:
            self._woken.wait(1)
            self._woken.clear()

    # --- the client's side --------------------------------------------------------------------------------------------

    def subscribe(self, **fields: Any) -> dict[str, Any]:
        """Subscribe, take the verdict and go live."""
        self.say(action="subscribe", channel="events", **fields)
        verdict = self.take_verdict()
        self.go_live()
        return verdict

    def take_verdict(self) -> dict[str, Any]:
        """Return the payload of the next frame, which must be a verdict."""
        frame = self.take_message()
        assert frame["type"] == "subscribed", frame
        self.note(frame)
        payload: dict[str, Any] = frame["payload"]
        return payload

    def follow(self, until: int) -> list[int]:
        """Take frames up to the cursor *until*; return their events' seqs."""
        before = len(self.seen)
        while self.cursor < until:
            self.note(self.take_message())
        return self.seen[before:]

    @property
    def cursor(self) -> int:
        return self.check.cursor

    @property
    def epoch(self) -> str:
        return self.check.epoch

    def note(self, frame: dict[str, Any]) -> list[int]:
        """Check that the frame follows the cursor, and move the cursor.

        Returns the seqs of the frame's events.
        """
        seqs = [event["seq"] for event in self.check.take(frame)]
        self.seen += seqs
        return seqs
