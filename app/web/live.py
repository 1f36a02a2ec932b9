"""/ws: takes a WebSocket in, and hands its messages and its thread to a subscriber of the feed."""

from __future__ import annotations

import base64
import binascii
import logging
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, g, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server
from wsproto.connection import ConnectionState

from app import clock
from app.errors import DatabaseError, Overtaken, Superseded
from app.feed import dialogue, frames
from app.feed.subscriber import State, Subscriber
from app.feed.wire import Wire
from app.metrics import note_error
from app.web import auth, limits
from app.web.problems import problem
from app.web.services import services
from app.web.shortages import THREADS

MAX_MESSAGE_BYTES = 64 * 1024
MAX_MESSAGES_PER_SEC = 100
GOODBYE_SECS = 1.0
# Both names under which a WSGI server hands out the socket that simple-websocket looks for.
SOCKET_KEYS = ("gunicorn.socket", "werkzeug.socket")
log = logging.getLogger(__name__)
Ending = tuple[int, str]  # close code, reason
sock = Sock()


def init_app(app: Flask) -> None:
    """Serve /ws. No pings of the library's: they follow the wall clock, and heartbeats go out on the monotonic one."""
    app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": MAX_MESSAGE_BYTES, "thread_class": _reader}
    app.before_request(_admit)
    app.teardown_request(_dismiss_reader)
    sock.init_app(app)


# --- before the handshake ---------------------------------------------------------------------------------------------


def _admit() -> Response | None:
    """Refuse what is no WebSocket handshake (RFC 6455 section 4.2.1), and whoever is one too many."""
    if request.path != auth.SOCKET_PATH:
        return None
    if "websocket" not in request.headers.get("Upgrade", "").lower() or request.method != "GET":
        return problem(426, "this is a WebSocket; send an Upgrade header")
    if request.headers.get("Sec-WebSocket-Version") != "13":
        response = problem(426, "only version 13 of the WebSocket protocol is spoken")
        response.headers["Sec-WebSocket-Version"] = "13"
        return response
    if not _is_key(request.headers.get("Sec-WebSocket-Key", "")):
        return problem(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    if refusal := limits.admit_connection():
        return refusal
    try:
        g.reader = Reader()
    except RuntimeError:  # "can't start new thread"
        services().shortages.note(THREADS)
        return limits.later(503, f"the server is out of {THREADS}", limits.RETRY_AFTER_SECS)
    _put_wire(request.environ)
    return None


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _put_wire(environ: dict[str, Any]) -> None:
    """Put a Wire in the socket's place, so that the library's writes go through its lock as well."""
    # Compression would cost memory for each client, and inflate what it may send.
    environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
    for key in SOCKET_KEYS:
        if key in environ:
            environ[key] = Wire(environ[key])


def granted_rates() -> tuple[float, float]:
    """Return the rate for who names none, and the most to be had: only a program with a token may go faster."""
    rate = services().settings.event_rate
    return rate, rate if auth.principal().is_browser else 0


# --- the connection ---------------------------------------------------------------------------------------------------


class Inbox(list[Any]):
    """The messages of one client that wait for its thread. The reader thread appends, the own thread pops.

    Counts them: more than MAX_MESSAGES_PER_SEC is flooding, and nothing more is kept.
    """

    WAKE = object()

    def __init__(self) -> None:
        super().__init__()
        self.is_flooded = False
        self._second = 0
        self._count = 0

    def append(self, message: Any) -> None:
        if message is not self.WAKE:
            second = int(clock.monotonic())
            self._count = self._count + 1 if second == self._second else 1
            self._second = second
            if self._count > MAX_MESSAGES_PER_SEC:
                self.is_flooded = True
                message = self.WAKE
        if message is not self.WAKE or not self:
            super().append(message)


class Reader(threading.Thread):
    """The library's reader thread, which runs from before the handshake on: after it, nobody can be refused."""

    def __init__(self) -> None:
        super().__init__(name="outfeed-reader", daemon=True)
        self.read: Callable[[], None] = lambda: None
        self._may_begin = threading.Event()
        super().start()

    def start(self) -> None:
        """Begin to read."""
        self._may_begin.set()

    def run(self) -> None:
        self._may_begin.wait()
        self.read()


def _reader(target: Callable[[], None]) -> threading.Thread:
    """Give the library its reader thread, and the connection our inbox before that reads."""
    ws = target.__self__  # type: ignore[attr-defined]
    ws.input_buffer = Inbox()

    def read_until_closed() -> None:
        try:
            target()
        finally:
            # The library wakes the own thread before it says that the connection is over, which then sleeps on.
            ws.connected = False
            ws.event.set()

    reader: Reader = g.reader
    reader.read = read_until_closed
    return reader


def _dismiss_reader(_: BaseException | None) -> None:
    """Let it end where the handshake failed and it never had anything to read."""
    if reader := g.pop("reader", None):
        reader.start()


@sock.route(auth.SOCKET_PATH)
def live(ws: Server) -> None:
    """Serve one client until either side ends it."""
    hub = services().hub
    subscriber = Subscriber(hub, ws.sock, lambda: _wake(ws), frames.WEBSOCKET, granted_rates(), auth.principal())
    hub.add(subscriber)
    try:
        ending = ending_of(lambda: _converse(ws, subscriber))
    finally:
        hub.remove(subscriber)
    _part(ws, ending)


def _wake(ws: Server) -> None:
    ws.input_buffer.append(Inbox.WAKE)
    ws.event.set()


def _converse(ws: Server, subscriber: Subscriber) -> Ending | None:
    """Serve messages and replays until someone asks to end, or the client has gone."""
    while subscriber.ending is None:
        if ws.input_buffer.is_flooded:
            return frames.POLICY, f"more than {MAX_MESSAGES_PER_SEC} messages a second"
        if subscriber.is_idle_too_long:
            return frames.POLICY, "no subscription"
        message = ws.receive(timeout=subscriber.patience())
        if message is not None and message is not Inbox.WAKE:
            dialogue.answer(subscriber, message)
        if subscriber.state is State.REPLAYING:
            subscriber.advance()
    return subscriber.ending


def ending_of(conversation: Callable[[], Ending | None]) -> Ending | None:
    """Hold the conversation; return the code and reason to close with, None where the client has gone."""
    try:
        return conversation()
    except Overtaken as error:
        return frames.OVERTAKEN, str(error)
    except Superseded as error:
        return frames.SUPERSEDED, str(error)
    except (ConnectionClosed, OSError):
        return None
    except DatabaseError as error:
        log.error("client closed for want of the database error=%s", error)
        return frames.OUR_FAULT, "the database can't be read right now"
    except Exception:
        # The edge of a connection: left to Flask, a 500 page would be written into the stream.
        log.exception("client closed by an error of ours")
        note_error("connection")
        return frames.OUR_FAULT, "an error of ours"


def _part(ws: Server, ending: Ending | None) -> None:
    """Say goodbye, give the peer a moment to answer, and cut the socket before the server gets it back."""
    wire: Wire = ws.sock
    if ending is not None:
        log.info("client closed code=%s reason=%s", *ending)
        wire.say_goodbye(frames.close(*ending))
        ws.thread.join(GOODBYE_SECS)
    is_over = ws.ws.state is ConnectionState.CLOSED
    wire.hang_up(0 if is_over else GOODBYE_SECS)
    ws.connected = False
    ws.thread.join()
