"""/ws: a Flask-Sock route whose clients are subscribers of the feed."""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from functools import partial

from flask import Blueprint, Flask, Response, g, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server

from outfeed import clock
from outfeed.errors import NoInput
from outfeed.feed import dialogue, frames
from outfeed.feed.client import ClientState
from outfeed.feed.subscriber import Subscriber
from outfeed.http import limits
from outfeed.http.permission import requires
from outfeed.http.problems import problem
from outfeed.http.server.incoming import SOCKET_KEY
from outfeed.http.transports import connection
from outfeed.http.transports.connection import Ending, Waker
from outfeed.http.transports.incoming_frames import IncomingFrames
from outfeed.http.transports.sock_server import SERVER_OPTIONS, MemorySocket, forget_handshake
from outfeed.principal import READ

PATH = "/ws"
MAX_MESSAGE_BYTES = 64 * 1024
MAX_MESSAGES_PER_SEC = 100
# Between pings, on the monotonic clock. The library's own pings stop if the wall clock is set back.
PING_SECS = 25.0
live = Blueprint("live", __name__)
sock = Sock()


def init_app(app: Flask) -> None:
    """Serve /ws."""
    app.config["SOCK_SERVER_OPTIONS"] = SERVER_OPTIONS
    app.before_request(_check_handshake)
    app.register_blueprint(live)


def _check_handshake() -> Response | None:
    """Reject a request to /ws without a valid WebSocket handshake.

    Source: RFC 6455 section 4.2.1.
    """
    if request.path != PATH:
        return None
    options = [option.strip() for option in request.headers.get("Connection", "").lower().split(",")]
    is_upgrade = "upgrade" in options and request.headers.get("Upgrade", "").lower() == "websocket"
    if not is_upgrade or request.method != "GET":
        return problem(426, "this is a WebSocket; send an Upgrade header")
    if request.headers.get("Sec-WebSocket-Version") != "13":
        response = problem(426, "only version 13 of the WebSocket protocol is supported")
        response.headers["Sec-WebSocket-Version"] = "13"
        return response
    if not _is_key(request.headers.get("Sec-WebSocket-Key", "")):
        return problem(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    return None


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


@live.before_request
def _admit_client() -> Response | None:
    """Admit the connection, and prepare a handshake for the library.

    The library gets a handshake that it always accepts, with a socket in memory. It would reject some requests that
    gunicorn and `_check_handshake` accept, with an error that becomes a 500. It would also agree on compression if the
    client offers it, which costs memory for each client.
    """
    if refusal := limits.admit_connection():
        return refusal
    if refusal := connection.prepare():
        return refusal
    g.environ = request.environ
    request.environ = {
        SOCKET_KEY: MemorySocket(),
        "HTTP_HOST": "outfeed",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": request.headers["Sec-WebSocket-Key"],
    }
    return None


@sock.route(PATH, bp=live)
@requires(READ, is_connection=True, takes_tickets=True)
def socket(ws: Server) -> None:
    """Serve the live feed to one client over a WebSocket."""
    request.environ = g.pop("environ")
    forget_handshake(ws)
    connection.run(ws.sock.take_sent(), frames.WEBSOCKET, WebSocketHandler(ws))


class WebSocketHandler:
    """Handler that answers a client's messages, one frame at a time.

    `_allowed` is the number of frames that the client may have sent by now: at most MAX_MESSAGES_PER_SEC more than it
    has sent, except for frames that may have arrived while this thread did not read, and acknowledgements of further
    events. A consumer that acknowledges each event sends as many of these as there are events.
    """

    def __init__(self, ws: Server) -> None:
        self._ws = ws
        self._frames = IncomingFrames()
        self._violation: Ending | None = None
        self._allowed = float(MAX_MESSAGES_PER_SEC)
        self._waited_at = clock.monotonic()
        self._ping_at = self._waited_at + PING_SECS

    def run(self, subscriber: Subscriber, waker: Waker) -> Ending | None:
        """Answer messages, and send events and pings, until either side ends.

        The library asks for input by `event.wait`, which calls `_read` on this thread: sock_server.py.
        """
        self._ws.event.read = partial(self._read, subscriber, waker)
        while subscriber.ending is None and self._violation is None:
            if subscriber.is_idle_too_long:
                return frames.POLICY, "no subscription"
            if self._secs_to_ping() == 0:
                self._ping_at = clock.monotonic() + PING_SECS
                subscriber.write(frames.PING)
            try:
                message = self._ws.receive(self._wait_secs(subscriber))
            except ConnectionClosed as closed:
                return None if self._frames.is_at_close else (int(closed.reason), closed.message or "")
            if message is not None:
                self._allowed += dialogue.answer(subscriber, message)
            if subscriber.state is ClientState.REPLAYING:
                subscriber.advance()
        return subscriber.ending or self._violation

    def _secs_to_ping(self) -> float:
        return max(0.0, self._ping_at - clock.monotonic())

    def _wait_secs(self, subscriber: Subscriber) -> float:
        """Return how many seconds this thread may wait for the client."""
        wait_secs = subscriber.wait_secs()
        return self._secs_to_ping() if wait_secs is None else min(wait_secs, self._secs_to_ping())

    def is_close_frame(self, data: bytes) -> bool:
        """Return whether the client's close frame has arrived.

        Returns False if the library has rejected a frame before.
        """
        if not self._ws.connected:
            return False
        self._frames.feed(data)
        while self._frames.take():
            if self._frames.is_at_close:
                return True
        return False

    def _read(self, subscriber: Subscriber, waker: Waker, timeout: float | None) -> None:
        """Have the library process the next bytes, and write its answer.

        The bytes are of one frame at most.
        """
        data = self._frames.take()
        if not data and self._has_input(waker, timeout):
            self._frames.feed(waker.writer.read())
            data = self._frames.take()
        self._violation = self._find_violation()
        if not data or self._violation:
            return
        self._ws.sock.received = data
        with suppress(NoInput):
            self._ws.thread.target()
        if answer := self._ws.sock.take_sent():
            subscriber.write(answer) if self._ws.connected else waker.writer.send_close(answer)

    def _has_input(self, waker: Waker, timeout: float | None) -> bool:
        """Wait for the client, and allow it frames for the time that has passed."""
        began = clock.monotonic()
        self._allowed += MAX_MESSAGES_PER_SEC * (began - self._waited_at)
        has_input = waker.wait(timeout)
        self._waited_at = clock.monotonic()
        allowed = self._allowed + MAX_MESSAGES_PER_SEC * (self._waited_at - began)
        self._allowed = max(self._allowed, min(allowed, self._frames.count + MAX_MESSAGES_PER_SEC))
        return has_input

    def _find_violation(self) -> Ending | None:
        if self._frames.count > self._allowed:
            return frames.POLICY, f"more than {MAX_MESSAGES_PER_SEC} messages a second"
        if self._frames.message_bytes > MAX_MESSAGE_BYTES:
            return frames.TOO_LARGE, f"more than {MAX_MESSAGE_BYTES} bytes"
        return None
