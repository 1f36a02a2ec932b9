"""/ws: takes a WebSocket in, and hands its messages and its thread to a subscriber of the feed."""

from __future__ import annotations

import base64
import binascii
from collections import deque

from flask import Blueprint, Flask, Response, request
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import generate_accept_token

from outfeed import clock
from outfeed.errors import ClientGone
from outfeed.feed import dialogue, frames
from outfeed.feed.socket_writer import SocketWriter
from outfeed.feed.subscriber import State, Subscriber
from outfeed.http import limits
from outfeed.http.permission import requires
from outfeed.http.problems import problem
from outfeed.http.transports import connection
from outfeed.http.transports.connection import Doorbell, Ending
from outfeed.principal import READ

PATH = "/ws"
MAX_MESSAGE_BYTES = 64 * 1024
MAX_MESSAGES_PER_SEC = 100
live = Blueprint("live", __name__)


def init_app(app: Flask) -> None:
    """Serve /ws."""
    app.before_request(_check_handshake)
    app.register_blueprint(live)


def _check_handshake() -> Response | None:
    """Refuse what is no WebSocket handshake (RFC 6455 section 4.2.1)."""
    if request.path != PATH:
        return None
    options = [option.strip() for option in request.headers.get("Connection", "").lower().split(",")]
    is_upgrade = "upgrade" in options and request.headers.get("Upgrade", "").lower() == "websocket"
    if not is_upgrade or request.method != "GET":
        return problem(426, "this is a WebSocket; send an Upgrade header")
    if request.headers.get("Sec-WebSocket-Version") != "13":
        response = problem(426, "only version 13 of the WebSocket protocol is spoken")
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


@live.route(PATH, websocket=True)
@requires(READ, is_connection=True, takes_tickets=True)
def socket() -> Response:
    """Serve one client until either side ends it."""
    if refusal := limits.admit_connection():
        return refusal
    # No extension is agreed to: compression would cost memory for each client, and inflate what it may send.
    accept = generate_accept_token(request.headers["Sec-WebSocket-Key"].encode())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return connection.serve(b"%bSec-WebSocket-Accept: %b\r\n\r\n" % (head, accept), frames.WEBSOCKET, _Dialogue())


class _Dialogue:
    """The messages of one client, as wsproto reads them; it makes pongs and close replies, too.

    `_credit` is how many more frames it may send now. It has MAX_MESSAGES_PER_SEC at most, but for what may have
    come while nobody listened.
    """

    def __init__(self) -> None:
        self._protocol = Connection(ConnectionType.SERVER)
        self._messages: deque[str | bytes] = deque()
        self._unfinished = bytearray()
        self._credit = float(MAX_MESSAGES_PER_SEC)
        self._listened_at = clock.monotonic()

    def converse(self, subscriber: Subscriber, doorbell: Doorbell) -> Ending | None:
        """Answer messages and send what is owed, until someone asks to end."""
        while subscriber.ending is None:
            if subscriber.is_idle_too_long:
                return frames.POLICY, "no subscription"
            has_news = not self._messages and self._has_news(subscriber, doorbell)
            if has_news and (ending := self._listen(subscriber, doorbell.writer)):
                return ending
            if self._messages:
                dialogue.answer(subscriber, self._messages.popleft())
            if subscriber.state is State.REPLAYING:
                subscriber.advance()
        return subscriber.ending

    def is_farewell(self, data: bytes) -> bool:
        """Return whether the client's close frame has come."""
        if self._protocol.state is ConnectionState.CLOSED:
            return False  # it speaks no WebSocket
        self._protocol.receive_data(data)
        return any(isinstance(event, CloseConnection) for event in self._protocol.events())

    def _has_news(self, subscriber: Subscriber, doorbell: Doorbell) -> bool:
        """Wait for the client as long as it may take, and grant it messages for the time that has passed."""
        began = clock.monotonic()
        self._credit += MAX_MESSAGES_PER_SEC * (began - self._listened_at)
        has_news = doorbell.wait(subscriber.patience())
        self._listened_at = clock.monotonic()
        rested = self._credit + MAX_MESSAGES_PER_SEC * (self._listened_at - began)
        self._credit = max(self._credit, min(rested, MAX_MESSAGES_PER_SEC))
        return has_news

    def _listen(self, subscriber: Subscriber, writer: SocketWriter) -> Ending | None:
        """Take what the client has sent; return how to end it where that breaks a rule. Raises ClientGone, OSError."""
        self._protocol.receive_data(writer.read())
        for event in self._protocol.events():
            ending = None
            if not isinstance(event, CloseConnection) and not self._is_affordable(event):
                ending = frames.POLICY, f"more than {MAX_MESSAGES_PER_SEC} messages a second"
            elif isinstance(event, TextMessage | BytesMessage):
                ending = self._take(event)
            elif isinstance(event, Ping):
                subscriber.write(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection) and self._protocol.state is ConnectionState.OPEN:
                ending = event.code, event.reason or ""  # no frame of the client's, but what is wrong with one
                self._protocol.receive_data(None)
            elif isinstance(event, CloseConnection):
                while self._messages:
                    dialogue.answer(subscriber, self._messages.popleft())
                writer.send_close(self._protocol.send(event.response()))
                raise ClientGone("closed by the client")
            if ending:
                return ending
        return None

    def _take(self, event: TextMessage | BytesMessage) -> Ending | None:
        """Keep a message, or a part of one."""
        self._unfinished += event.data.encode() if isinstance(event, TextMessage) else event.data
        if len(self._unfinished) > MAX_MESSAGE_BYTES:
            return frames.TOO_LARGE, f"more than {MAX_MESSAGE_BYTES} bytes"
        if event.message_finished:
            message = bytes(self._unfinished)
            self._unfinished.clear()
            self._messages.append(message.decode() if isinstance(event, TextMessage) else message)
        return None

    def _is_affordable(self, event: Event) -> bool:
        """Count a frame, a ping's and a fragment's as well as a message's: each costs us about the same."""
        self._credit -= getattr(event, "frame_finished", True)
        return self._credit >= 0
