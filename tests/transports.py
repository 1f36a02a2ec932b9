"""Every transport of the feed behind the same names, for one suite."""

from __future__ import annotations

import contextlib
import json
import re
import select
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlencode

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.forked import Forked
from tests.protocol import CursorCheck
from tests.server import Server
from tests.waits import PATIENCE_SECS, wait_until

GONE = (OSError, EOFError, ConnectionClosed, InvalidHandshake, httpx.TransportError, TimeoutError)


class Verdict(NamedTuple):
    """The content of the first answer. *missing* is set only with a gap."""

    kind: str
    after: int
    missing: tuple[int, int] | None = None

    @classmethod
    def of(cls, fields: dict[str, Any], after: int) -> Verdict:
        missing = fields.get("missing")
        return cls(fields["verdict"], after, (missing["from"], missing["to"]) if missing else None)


class Transport(ABC):
    """A connected client, with its verdict.

    `pump` receives, and `cursor` is the position that it would resume from.
    """

    def __init__(self, server: Server, **query: Any) -> None:
        self.server = server
        self.query = {name: value for name, value in query.items() if value is not None}
        self.events: list[tuple[int, str]] = []
        self.check = CursorCheck()
        self.verdict = self.begin()

    @property
    def cursor(self) -> int:
        return self.check.cursor

    @property
    def epoch(self) -> str:
        return self.check.epoch

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def begin(self) -> Verdict:
        """Connect, and return the verdict on the cursor."""

    @abstractmethod
    def pump(self, timeout: float = 0.2) -> None:
        """Show the events of the next *timeout* seconds."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect."""

    def begin_at(self, cursor: int, epoch: str = "") -> None:
        """Accept the verdict's cursor."""
        self.check.cursor, self.check.epoch = cursor, epoch

    def show(self, seq: int, event: dict[str, Any]) -> None:
        self.check.advance([seq])
        self.keep(seq, event)

    def keep(self, seq: int, event: dict[str, Any]) -> None:
        self.events.append((seq, event["id"]))

    def follow(self, until: int) -> list[tuple[int, str]]:
        """Receive until the cursor is at *until*.

        Returns all events since the verdict.
        """
        wait_until(lambda: self.cursor >= until or self.pump(), f"{type(self).__name__} at {until}")
        return self.events


# --- WebSocket --------------------------------------------------------------------------------------------------------


class Singles(Transport):
    """WebSocket, an event a frame, without a pace."""

    fields: ClassVar[dict[str, Any]] = {"rate": 0}

    def begin(self) -> Verdict:
        self._client = self.server.connect(open_timeout=5)
        query = {name: value for name, value in self.query.items() if name != "types"}
        if "types" in self.query:
            query["types"] = self.query["types"].split(",")
        try:
            # FeedClient adds rate 0. None is the server's default.
            payload = self._client.subscribe(**{"rate": None, **self.fields, **query})
        except BaseException:
            self._client.__exit__()
            raise
        self.granted = payload["rate"]
        self.begin_at(payload["after"], payload["epoch"])
        return Verdict.of(payload, payload["after"])

    def pump(self, timeout: float = 0.2) -> None:
        end = time.monotonic() + timeout
        with contextlib.suppress(TimeoutError):
            while (left := end - time.monotonic()) > 0:
                self.take(self._client.receive(left))

    def take(self, frame: dict[str, Any]) -> None:
        assert frame["type"] in ("heartbeat", "events" if self.fields.get("batch") else "event")
        for event in self.check.take(frame):
            self.keep(event["seq"], event)

    def close(self) -> None:
        self._client.__exit__()


class Batch(Singles):
    """WebSocket, several events a frame, without a pace."""

    fields: ClassVar[dict[str, Any]] = {"rate": 0, "batch": True}


class Paced(Singles):
    """WebSocket, as a client of the first protocol version.

    It gets an event a frame, at the server's pace.
    """

    fields: ClassVar[dict[str, Any]] = {}


# --- HTTP -------------------------------------------------------------------------------------------------------------


class SseParser:
    """The parser of event streams of the HTML Living Standard.

    See its section 9.2.6.
    """

    def __init__(self) -> None:
        self.last_event_id = ""
        self._id = ""
        self._type = ""
        self._data: list[str] = []
        self._buffer = b""

    def feed(self, chunk: bytes) -> Iterator[tuple[str, str, str]]:
        """Yield each dispatched event: type, data, and the last event id."""
        self._buffer += chunk
        *lines, self._buffer = re.split(rb"\r\n|\n|\r(?!\Z)", self._buffer)
        for line in lines:
            if line:
                self._field(line.decode())
                continue
            self.last_event_id = self._id
            if self._data:
                yield self._type or "message", "\n".join(self._data), self.last_event_id
            self._type, self._data = "", []

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value


class Stream(Transport):
    """Server-sent events, over a bare socket."""

    headers: ClassVar[dict[str, str]] = {}

    def begin(self) -> Verdict:
        self.parser = SseParser()
        self.raw = b""
        self.head = b""
        self.socket = socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE_SECS)
        try:
            return self._begin()
        except BaseException:
            self.socket.close()
            raise

    def _begin(self) -> Verdict:
        headers = {"Host": "test", "Authorization": f"Bearer {self.server.token}", **self.headers}
        lines = [f"GET /api/feed/stream?{urlencode(self.query)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self.head:
            self.head += self._receive()
        self.head, _, rest = self.head.partition(b"\r\n\r\n")
        assert self.head.startswith(b"HTTP/1.1 200"), self.head + rest
        found = [*self._dispatched(rest)]
        while not found:
            found = [*self._dispatched(self._receive())]
        kind, data, id_ = found[0]
        assert kind == "subscribed"
        payload = json.loads(data)
        self.granted = payload["rate"]
        self.begin_at(payload["after"], payload["epoch"])
        assert id_ == f"{self.epoch}:{payload['after']}"
        self.take(found[1:])
        return Verdict.of(payload, payload["after"])

    def _receive(self) -> bytes:
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise EOFError("the server ended the stream")
        return chunk

    def _dispatched(self, chunk: bytes) -> Iterator[tuple[str, str, str]]:
        self.raw += chunk
        return self.parser.feed(chunk)

    def pump(self, timeout: float = 0.2) -> None:
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0 and select.select([self.socket], [], [], left)[0]:
            self.take([*self._dispatched(self._receive())])
            epoch, _, seq = self.parser.last_event_id.rpartition(":")
            assert epoch == self.epoch
            self.check.move(int(seq))

    def take(self, found: list[tuple[str, str, str]]) -> None:
        for kind, data, id_ in found:
            if kind == "closed":
                self.close_message: dict[str, Any] = json.loads(data)
                continue
            assert kind == "message", kind
            self.show(int(id_.rpartition(":")[2]), json.loads(data))

    def close(self) -> None:
        self.socket.close()


class Poll(Transport):
    """Plain requests, one after the other."""

    wait: float | None = None

    def begin(self) -> Verdict:
        self._http = self.server.http()
        try:
            page = self._get(**self.query)
        except BaseException:
            self._http.close()
            raise
        events = page["events"]
        # Without a field for it, the events begin after the missing range, or after the requested cursor.
        after = {"gap": lambda: page["missing"]["to"], "resumed": lambda: self.query["after"]}
        self.begin_at(after.get(page["verdict"], lambda: page["cursor"])(), page["epoch"])
        verdict = Verdict.of(page, self.cursor)
        assert page["verdict"] in after or not events
        self._show(page)
        return verdict

    def _get(self, **query: Any) -> dict[str, Any]:
        if self.wait is not None:
            query["wait"] = self.wait
        answer = self._http.get("/api/feed", params=query)
        if answer.status_code >= 500:
            raise OSError(answer.text)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        assert page["head"] >= page["cursor"]
        return page

    def _show(self, page: dict[str, Any]) -> None:
        for event in page["events"]:
            self.show(event["seq"], event)
        self.check.move(page["cursor"])

    def pump(self, timeout: float = 0.2) -> None:
        page = self._get(**self.query | {"after": self.cursor, "epoch": self.epoch})
        assert (page["verdict"], page["epoch"]) == ("resumed", self.epoch), page
        self._show(page)

    def close(self) -> None:
        self._http.close()


class LongPoll(Poll):
    """Requests that wait for the first event."""

    wait = 1.0


# --- the command line -------------------------------------------------------------------------------------------------


class Tail(Transport):
    """`outfeed tail --json`.

    It prints a cursor without an event only when it is stopped.
    """

    def begin(self) -> Verdict:
        options = [f"--{name}={value}" for name, value in self.query.items()]
        folder = Path(tempfile.mkdtemp(dir=self.server.database.parent))
        self._output, self._remarks = folder / "output", folder / "remarks"
        environment = {**self.server.environment, "OUTFEED_TOKEN": self.server.token}
        command = ["tail", "--json", "--last=0", *options]
        self._process = Forked(command, environment, self._output, self._remarks)
        wait_until(lambda: self.remarks.count("\n") and "Following" in self.remarks, "tail follows")
        self.begin_at(int(re.findall(r"Following \S+ after seq (\d+)", self.remarks)[0]))
        gap = re.search(r"GAP: events (\d+) to (\d+)", self.remarks)
        kind = "gap" if gap else "reset" if "RESET" in self.remarks else "resumed" if "after" in self.query else "live"
        return Verdict(kind, self.cursor, (int(gap[1]), int(gap[2])) if gap else None)

    @property
    def remarks(self) -> str:
        return self._remarks.read_text() if self._remarks.exists() else ""

    def pump(self, timeout: float = 0.2) -> None:
        lines = self._output.read_text().splitlines(keepends=True)[len(self.events) :]
        for event in (json.loads(line) for line in lines if line.endswith("\n")):
            self.show(event["seq"], event)
        time.sleep(0.01)  # there is only a file to wait for

    def follow(self, until: int) -> list[tuple[int, str]]:
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.cursor >= until or self.pump(), f"tail at {until}", timeout=5)
        if self.cursor < until:
            self.close()  # no event will come, and the command prints its cursor now
            self.pump()
            self.check.move(max(self.cursor, int(re.findall(r"Stopped at seq (\d+)", self.remarks)[0])))
        assert self.cursor >= until
        return self.events

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(PATIENCE_SECS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


TRANSPORTS: tuple[type[Transport], ...] = (Singles, Batch, Paced, Stream, LongPoll, Poll, Tail)


class Follower:
    """Reconnects by one transport after any failure, with its cursor.

    It keeps every event and verdict.
    """

    def __init__(
        self,
        server: Server,
        transport: Callable[..., Transport] = Singles,
        after: int = 0,
        epoch: str | None = None,
    ) -> None:
        self._server = server
        self._transport = transport
        self.cursor = after
        self.epoch = epoch
        self.events: list[tuple[int, str]] = []
        self.verdicts: list[str] = []

    @property
    def ids(self) -> list[str]:
        return [event_id for _, event_id in self.events]

    def run(self, is_done: Callable[[Follower], bool]) -> None:
        """Follow until *is_done*; blocks."""
        while not is_done(self):
            with contextlib.suppress(*GONE):
                self._follow(is_done)
            time.sleep(0.02)

    def _follow(self, is_done: Callable[[Follower], bool]) -> None:
        with self._transport(self._server, after=self.cursor, epoch=self.epoch) as transport:
            self.verdicts.append(transport.verdict.kind)
            self.epoch = transport.epoch or self.epoch
            noted = 0
            try:
                while not is_done(self):
                    transport.pump(0.05)
                    noted = self._note(transport, noted)
            finally:
                self._note(transport, noted)

    def _note(self, transport: Transport, noted: int) -> int:
        """Keep the events of the transport after the first *noted* ones.

        Returns the number of events that it has shown.
        """
        fresh = transport.events[noted:]
        self.events += fresh
        self.cursor = transport.cursor
        return noted + len(fresh)
