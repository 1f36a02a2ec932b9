"""The cast of the pipeline's tests: a source in memory, and the far end of a writer."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Collection
from typing import Any

from outfeed.errors import ForbiddenConsumer, InvalidRequest, Superseded, UnknownName
from outfeed.feed.core import Core
from outfeed.feed.socket_writer import SocketWriter
from outfeed.feed.subscription import Filter
from outfeed.history import Claim, Item, Page, Window
from outfeed.metrics import PREFIX, Metrics
from outfeed.principal import Principal, Wanted


def item(seq: int, event_type: str = "a.b", source: str | None = "s", data: str = "") -> Item:
    """Return the item with that seq."""
    body = json.dumps({"id": f"id-{seq}", "event_type": event_type, "source": source, "data": data}).encode()
    return Item(seq, body, f"id-{seq}", event_type, source, None, None, None)


VIEWER = Principal("viewer", ("read",), "token:")


class MemorySource:
    """A source that holds its items in memory, and can be pruned, restored and renewed."""

    def __init__(self) -> None:
        self.epoch = "epoch-1"
        self.items: list[Item] = []
        self.last_seq = 0
        self.reads = 0
        self._lock = threading.Lock()

    def add(self, count: int, **fields: Any) -> None:
        with self._lock:
            for _ in range(count):
                self.last_seq += 1
                self.items.append(item(self.last_seq, **fields))

    def prune(self, up_to: int) -> None:
        with self._lock:
            self.items = [each for each in self.items if each.seq > up_to]

    def window(self) -> Window:
        first = self.items[0].seq if self.items else self.last_seq + 1
        return Window(self.epoch, first, self.last_seq)

    def read_after(self, seq: int, limit: int) -> Page:
        with self._lock:
            self.reads += 1
            found = [each for each in self.items if each.seq > seq]
            through = self.last_seq if len(found) <= limit else found[limit - 1].seq
            return Page(self.window(), found[:limit], max(seq, through))

    def read_before(self, seq: int, limit: int) -> Page:
        with self._lock:
            found = [each for each in reversed(self.items) if each.seq < seq]
            return Page(self.window(), found[:limit], 0 if len(found) <= limit else found[limit - 1].seq)

    def newest(self, wanted: Wanted, limit: int, *, after: int, up_to: int) -> list[int]:
        filter_ = Filter(wanted.visible, wanted.types, wanted.source, wanted.task_id, wanted.agent_id)
        with self._lock:
            found = [each.seq for each in filter_.matching(self.items) if after < each.seq <= up_to]
            return found[::-1][:limit]

    def renew_epoch(self, epoch: str) -> None:
        if self.epoch == epoch:
            self.epoch = f"{epoch}+"


class MemoryCheckpoints:
    """Checkpoints in memory. tests/store/test_checkpoint.py holds them to what the real ones do."""

    def __init__(self, source: MemorySource) -> None:
        self._source = source
        self.claims: dict[str, Claim] = {}
        self._owners: dict[str, str] = {}

    def claim(self, name: str, by: Principal, *, may_create: bool = True) -> Claim:
        if name not in self.claims and not may_create:
            raise UnknownName(name)
        window = self._source.window()
        found = self.claims.get(name, Claim(name, window.epoch, window.last_seq, 0))
        self._check(name, by)
        self._owners.setdefault(name, by.owner)
        self.claims[name] = found._replace(generation=found.generation + 1)
        return self.claims[name]

    def move(self, name: str, epoch: str, seq: int, by: Principal, generation: int | None = None) -> None:
        found = self.claims.get(name)
        if found is None or generation not in (None, found.generation):
            raise Superseded(name)
        self._check(name, by)
        if epoch != self._source.epoch or seq > self._source.last_seq:
            raise InvalidRequest("ack_beyond", name)
        self.claims[name] = found._replace(epoch=epoch, seq=max(seq, found.seq))

    def generations(self, names: Collection[str]) -> dict[str, int]:
        return {name: claim.generation for name, claim in self.claims.items() if name in names}

    def _check(self, name: str, by: Principal) -> None:
        if by.has_ticket or not (by.is_operator or self._owners.get(name, by.owner) == by.owner):
            raise ForbiddenConsumer(name)


def core_of(source: MemorySource, heartbeat_secs: float = 3600) -> Core:
    """Return a core on *source* with consumers in memory and no high-water mark."""
    return Core(source, MemoryCheckpoints(source), lambda *_: None, heartbeat_secs=heartbeat_secs)


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the value of the sample of that name and labels; 0 where nothing was counted."""
    return metrics.registry.get_sample_value(PREFIX + name, labels) or 0.0


class ServerEnd:
    """The server's end of a real connection, at which a test can cut a write and act before one.

    It takes only *room* bytes more, if that is set. *before_send* is called before each write.
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


class Ended(AssertionError):
    """The server has ended the connection; a frame that it had begun may be cut."""


class Peer:
    """A client at the far end of a real TCP connection; `writer` is the server's end."""

    def __init__(self, send_buffer_bytes: int | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.socket = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
        if send_buffer_bytes:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer_bytes)
        self.socket.settimeout(10)
        self.server_end = ServerEnd(accepted)
        self.writer = SocketWriter(self.server_end)  # type: ignore[arg-type]
        self._buffer = b""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.server_end.close()

    def take_frame(self) -> tuple[int, bytes]:
        """Return the opcode and body of the next frame; it must be whole, unmasked and not fragmented."""
        first, second = self._take(2)
        assert first & 0xF0 == 0x80, f"corrupt frame: first byte {first:#x}"
        assert second < 128, "a server's frames are not masked"
        length = second
        if second == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif second == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return first & 0xF, self._take(length)

    def take_message(self) -> dict[str, Any]:
        """Return the next text frame's JSON, passing over pongs."""
        while True:
            opcode, body = self.take_frame()
            if opcode == 1:
                message: dict[str, Any] = json.loads(body)
                return message
            assert opcode == 10, f"unexpected frame {opcode}"

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

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = self.socket.recv(1 << 16)
            if not chunk:
                raise Ended
            self._buffer += chunk
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken
