"""Transports: the four transports of the feed behind one interface.

Each connection has a thread that reads, so that a check can wait for a message with a time limit.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from outfeed import clock
from outfeed.client.link import MAX_FRAME_BYTES, authorization, socket_url
from outfeed.client.proxies import open_http, open_socket
from outfeed.verify.model import ToldVerdict

TIMEOUT_SECS = 15.0
LONG_POLL_SECS = 3
POLL_PAUSE_SECS = 0.05


class Rejected(Exception):
    """The server has rejected a subscription, with *code*."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Told(NamedTuple):
    """A message of the server, in the form of all transports.

    *kind* is verdict, events, cursor, closed, error, or the type of another message of the WebSocket. *arrived* is a
    time of the monotonic clock, in seconds.
    """

    kind: str
    arrived: float
    events: list[dict[str, Any]]
    prev: int | None = None
    cursor: int = 0
    verdict: ToldVerdict | None = None
    fields: dict[str, Any] = {}  # noqa: RUF012 - never changed


def _message(kind: str, events: list[dict[str, Any]] | None = None, **fields: Any) -> Told:
    return Told(kind, clock.monotonic(), events or [], **fields)


class TransportClient(ABC):
    """One subscription on one transport.

    Only its thread reads from the server.
    """

    transport: ClassVar[str]
    # Whether each request asks for the events after the last answer, with a verdict of its own.
    resumes: ClassVar[bool] = False

    def __init__(self, url: str, token: str | None, headers: Mapping[str, str] | None = None, **wanted: Any) -> None:
        self._url = url
        self._headers = authorization(token) | dict(headers or {})
        self._wanted = wanted
        self._found: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"verify {self.transport}", daemon=True)
        self._open()
        self._thread.start()

    def __enter__(self) -> TransportClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed.set()
        self._disconnect()

    def join(self) -> None:
        """Wait for the end of the reading thread. A long poll takes its time."""
        self._thread.join(TIMEOUT_SECS)

    def receive(self, timeout: float) -> Told | None:
        """Return the next message, or None after *timeout* seconds."""
        with contextlib.suppress(queue.Empty):
            return self._found.get(timeout=max(0.0, timeout))
        return None

    def _run(self) -> None:
        try:
            for message in self._read():
                self._found.put(message)
        except (OSError, EOFError, ConnectionClosed, httpx.TransportError) as error:
            self._found.put(_message("closed", fields={"code": None, "reason": str(error)}))
        except (ValueError, LookupError, TypeError) as error:
            reason = f"a message of the server can't be read: {error!r}"
            self._found.put(_message("closed", fields={"code": reason, "reason": reason}))
        finally:
            self._free()

    @abstractmethod
    def _open(self) -> None:
        """Connect and subscribe. Raises Rejected."""

    @abstractmethod
    def _read(self) -> Iterator[Told]:
        """Yield messages until the connection ends."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Make the reading thread end soon."""

    @abstractmethod
    def _free(self) -> None:
        """Close what the connection holds, in the reading thread."""


class WebSocket(TransportClient):
    """WebSocket, with one event per message."""

    transport = "websocket"
    batch = False

    def send(self, **fields: Any) -> None:
        """Send one message."""
        self.send_text(json.dumps(fields))

    def send_text(self, text: str | bytes) -> None:
        """Send *text* as it is: bytes in a binary frame."""
        with contextlib.suppress(ConnectionClosed):  # the end is a message that the thread has read
            self._socket.send(text)

    def subscribe(self, **wanted: Any) -> None:
        """Replace the subscription."""
        self.send(action="subscribe", channel="events", **({"batch": self.batch, "rate": 0} | wanted))

    def _open(self) -> None:
        def opened(proxy: Any) -> ClientConnection:
            return connect(
                socket_url(self._url), additional_headers=self._headers, max_size=MAX_FRAME_BYTES,
                close_timeout=1, ping_interval=None, open_timeout=TIMEOUT_SECS, proxy=proxy,
            )  # fmt: skip

        self._stack = contextlib.ExitStack()
        try:
            self._socket = self._stack.enter_context(open_socket(self._url, opened))
        except InvalidHandshake as error:
            raise Rejected(str(error)) from None
        self.subscribe(**self._wanted)

    def _read(self) -> Iterator[Told]:
        try:
            while True:
                yield _of_frame(json.loads(self._socket.recv()))
        except ConnectionClosed as error:
            received = error.rcvd
            code, reason = (received.code, received.reason) if received else (None, "")
            yield _message("closed", fields={"code": code, "reason": reason})

    def _disconnect(self) -> None:
        self._stack.close()

    def _free(self) -> None:
        pass  # disconnecting has closed the socket


class Batched(WebSocket):
    """WebSocket, with several events per message."""

    transport = "websocket, batch"
    batch = True


def _of_frame(frame: dict[str, Any]) -> Told:
    payload: Any = frame.get("payload") or {}
    match frame["type"]:
        case "subscribed":
            return _message("verdict", verdict=_verdict(payload), cursor=payload["after"], fields=payload)
        case "event":
            return _message("events", [{"seq": frame["seq"], **payload}], prev=frame["prev"])
        case "events":
            return _message("events", payload, prev=frame["prev"])
        case "heartbeat":
            return _message("cursor", cursor=payload["cursor"], fields=payload)
        case kind:
            return _message(kind, fields=payload)


def _verdict(fields: dict[str, Any]) -> ToldVerdict:
    missing = fields.get("missing")
    told = (missing["from"], missing["to"]) if missing else None
    return ToldVerdict(fields["verdict"], fields["epoch"], fields.get("after"), fields["head"], told)


class StreamClient(TransportClient):
    """Server-sent events."""

    transport = "stream"

    def _open(self) -> None:
        self._http = open_http(self._url, headers=self._headers, timeout=TIMEOUT_SECS * 4)
        query = _query({"rate": 0} | self._wanted)
        request = self._http.build_request("GET", "/api/feed/stream", params=query)
        self._response = self._http.send(request, stream=True)
        if not self._response.is_success:
            self._response.read()
            self._http.close()
            raise Rejected(_code_of(self._response))

    def _read(self) -> Iterator[Told]:
        kind, seq, data, is_heartbeat = "", 0, "", False
        for line in self._response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "id":
                seq = int(value.rpartition(":")[2])
            elif name == "data":
                data = value
            elif line.startswith(": heartbeat"):
                is_heartbeat = True
            elif not line and (data or is_heartbeat):
                yield _message("cursor", cursor=seq) if is_heartbeat else _of_event(kind, seq, json.loads(data))
                kind, data, is_heartbeat = "", "", False
        yield _message("closed", fields={"code": None, "reason": "the stream ended"})

    def _disconnect(self) -> None:
        with contextlib.suppress(OSError):  # the server was faster
            self._response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def _free(self) -> None:
        self._response.close()
        self._http.close()


def _of_event(kind: str, seq: int, data: dict[str, Any]) -> Told:
    match kind:
        case "":
            return _message("events", [{"seq": seq, **data}])
        case "subscribed":
            return _message("verdict", verdict=_verdict(data), cursor=seq, fields=data)
        case _:
            return _message(kind, fields=data)


class Poll(TransportClient):
    """Requests one after the other, each after the cursor of the last."""

    transport = "poll"
    resumes = True
    wait: ClassVar[int | None] = None

    def _open(self) -> None:
        self._http = open_http(self._url, headers=self._headers, timeout=TIMEOUT_SECS * 2)
        try:
            self._first = self._page(**self._wanted)
        except Rejected:
            self._http.close()
            raise

    def _page(self, **query: Any) -> dict[str, Any]:
        if self.wait is not None:
            query["wait"] = self.wait
        response = self._http.get("/api/feed", params=_query(query))
        if not response.is_success:
            raise Rejected(_code_of(response))
        page: dict[str, Any] = response.json()
        return page

    def _read(self) -> Iterator[Told]:
        page, after = self._first, self._wanted.get("after")
        while not self._is_closed.is_set():
            verdict = _verdict(page)
            if page is self._first or verdict.kind != "resumed":
                yield _message("verdict", verdict=verdict, cursor=_start_of(page, verdict, after), fields=page)
            if page["events"]:
                yield _message("events", page["events"])
            yield _message("cursor", cursor=page["cursor"], fields=page)
            self._is_closed.wait(0 if self.wait else POLL_PAUSE_SECS)
            after = page["cursor"]
            try:
                page = self._page(**self._wanted | {"after": after, "epoch": page["epoch"], "last": None})
            except Rejected as error:
                yield _message("closed", fields={"code": error.code, "reason": "the request was rejected"})
                return

    def _disconnect(self) -> None:
        pass  # the thread ends with its request

    def _free(self) -> None:
        self._http.close()


class LongPoll(Poll):
    """Requests that wait for the first event."""

    transport = "long poll"
    wait = LONG_POLL_SECS


def _start_of(page: dict[str, Any], verdict: ToldVerdict, after: int | None) -> int:
    """Return the cursor at which the events of the first page begin."""
    if verdict.kind == "gap":
        return verdict.missing[1] if verdict.missing else 0
    if verdict.kind == "resumed":
        return after or 0
    return min((event["seq"] - 1 for event in page["events"]), default=page["cursor"])


def _query(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return *wanted* as the parameters of a query."""
    shown = {name: ",".join(value) if isinstance(value, list) else value for name, value in wanted.items()}
    return {name: value for name, value in shown.items() if value is not None and value != ""}


def _code_of(response: httpx.Response) -> str:
    try:
        return str(response.json().get("code") or response.status_code)
    except (ValueError, AttributeError):
        return str(response.status_code)


TRANSPORTS: tuple[type[TransportClient], ...] = (WebSocket, Batched, StreamClient, LongPoll, Poll)
