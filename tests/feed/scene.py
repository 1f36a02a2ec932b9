"""The scene of the pipeline's tests: a hub and its relay over a source in memory, and clients that keep the rules."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

from outfeed.errors import Overtaken
from outfeed.feed import dialogue, frames
from outfeed.feed.consumers import Consumers
from outfeed.feed.hub import Hub
from outfeed.feed.relay import Relay
from outfeed.feed.subscriber import State, Subscriber
from outfeed.history import Item, Window
from tests.feed.cast import VIEWER, MemoryCheckpoints, MemorySource, Peer


class StagedSource(MemorySource):
    """A source in memory whose window is read in one piece as well."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()  # type: ignore[assignment]

    def window(self) -> Window:
        with self._lock:
            return super().window()


class SteppedHub(Hub):
    """A hub that lets a test act while a batch is on its way: its members are copied, and not written to yet."""

    def __init__(self, source: MemorySource, checkpoints: MemoryCheckpoints) -> None:
        super().__init__(source, Consumers(checkpoints))
        self.meanwhile: Callable[[], None] = lambda: None

    def _send(self, round_: Any) -> None:
        if round_.deliveries:
            self.meanwhile()
        super()._send(round_)


class Feed:
    """A source, a hub and a relay that has started; nothing polls by itself."""

    def __init__(self, source: MemorySource | None = None, heartbeat_secs: float = 3600) -> None:
        self.source = source or StagedSource()
        self.checkpoints = MemoryCheckpoints(self.source)
        self.hub = SteppedHub(self.source, self.checkpoints)
        self.remembered: list[tuple[str, int]] = []
        self.relay = Relay(self.hub, self._remember, heartbeat_secs)
        self.relay._next_heartbeat = float("inf")  # none unless a test asks for one
        self.relay.start()

    def _remember(self, epoch: str, item: Item) -> None:
        self.remembered.append((epoch, item.seq))

    def write(self, count: int, **fields: Any) -> None:
        """Commit *count* events and push them."""
        self.source.add(count, **fields)
        self.relay.poll()


class HasHub(Protocol):
    """What a client connects to: a Feed, or the services of a real process."""

    @property
    def hub(self) -> Hub: ...


class NarrowSocket:
    """A real socket that takes only *room* bytes more, so that a write is cut at a byte of the test's choice."""

    def __init__(self, sock: socket.socket, room: int) -> None:
        self._sock = sock
        self.room: int | None = room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytes, flags: int) -> int:
        if self.room is None:
            return self._sock.send(data, flags)
        if self.room == 0:
            raise BlockingIOError
        sent = self._sock.send(data[: self.room], flags)
        self.room -= sent
        return sent


class Client(Peer):
    """A subscriber of *feed*'s hub and the client at the far end of its connection.

    A test calls `advance` itself, or has `run` do what a connection's own thread does.
    """

    def __init__(self, feed: HasHub, send_buffer_bytes: int | None = None) -> None:
        super().__init__(send_buffer_bytes)
        self.hub = feed.hub
        self.cursor = 0
        self.epoch = ""
        self.seen: list[int] = []
        self.is_overtaken = False
        self._woken = threading.Event()
        self._inbox: list[str] = []
        self._is_leaving = False
        self._thread: threading.Thread | None = None
        self.subscriber = Subscriber(feed.hub, self.writer, self._woken.set, frames.WEBSOCKET, (0, 0), VIEWER)
        feed.hub.add(self.subscriber)

    def __exit__(self, *_: object) -> None:
        self._is_leaving = True
        self._woken.set()
        if self._thread is not None:
            self.socket.close()  # wakes a thread that waits for room
            self._thread.join()
        self.hub.remove(self.subscriber)
        super().__exit__()

    def narrow(self, room: int) -> NarrowSocket:
        """Let the server's end take only *room* bytes more, until the answer's `room` is None."""
        narrow = NarrowSocket(self._server_end, room)
        self.writer._sock = narrow  # type: ignore[assignment]
        return narrow

    # --- the server's side --------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self.subscriber.state

    def say(self, **fields: Any) -> None:
        """Have the server receive a message, on this thread."""
        dialogue.answer(self.subscriber, json.dumps(fields))

    def go_live(self) -> None:
        """Take the steps of the own thread until the subscriber is live."""
        while self.state is State.REPLAYING:
            assert self.subscriber.ending is None, self.subscriber.ending
            self.subscriber.advance()

    def run(self) -> None:
        """Serve the client on a thread of its own; `ask` reaches it."""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

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
            self._server_end.shutdown(1)

    def _step(self) -> None:
        if self._inbox:
            dialogue.answer(self.subscriber, self._inbox.pop(0))
        if self.state is State.REPLAYING:
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
        """Take frames until the cursor is at *until*; return the seqs of their events."""
        before = len(self.seen)
        while self.cursor < until:
            self.note(self.take_message())
        return self.seen[before:]

    def note(self, frame: dict[str, Any]) -> None:
        """Check that the frame follows the cursor, and move it."""
        match frame["type"]:
            case "subscribed":
                self.cursor, self.epoch = frame["payload"]["after"], frame["payload"]["epoch"]
            case "event":
                assert frame["prev"] <= self.cursor < frame["seq"], (frame["prev"], self.cursor, frame["seq"])
                self.cursor = frame["seq"]
                self.seen.append(frame["seq"])
            case "events":
                seqs = [event["seq"] for event in frame["payload"]]
                assert frame["prev"] <= self.cursor < seqs[0], (frame["prev"], self.cursor, seqs)
                assert seqs == sorted(set(seqs))
                self.cursor = seqs[-1]
                self.seen += seqs
            case "heartbeat":
                assert frame["payload"]["cursor"] >= self.cursor
                self.cursor = frame["payload"]["cursor"]
            case "pong" | "stale":
                pass
            case other:
                raise AssertionError(other)

    def has_nothing_to_read(self) -> bool:
        """Return whether nothing has been written that was not taken; a write on loopback arrives at once."""
        self.socket.setblocking(False)
        try:
            self._buffer += self.socket.recv(1 << 16)
        except BlockingIOError:
            pass
        finally:
            self.socket.settimeout(10)
        return not self._buffer
