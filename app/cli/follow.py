"""Following a feed from another process or machine: connect, subscribe, resume after whatever goes wrong."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from app import clock
from app.errors import OutfeedError

SIGNED_OUT = 4001
RESTARTING = 1012
MAX_FRAME_BYTES = 64 * 2**20
FIRST_PAUSE_SECS = 0.5
MAX_PAUSE_SECS = 10.0
HELD_SECS = 5.0  # a connection that lasted this long was a good one
RETRIED_STATUSES = {408, 425, 429}  # and every 5xx


class Refused(OutfeedError):
    """The server will not serve us, now or later."""


@dataclass(slots=True)
class Cursor:
    """Where a reader stands: the last seq it has shown, of which epoch. Without a seq it has not begun."""

    seq: int | None = None
    epoch: str | None = None


@dataclass(slots=True)
class Backoff:
    """Pauses between attempts, with full jitter: a thousand clients must not come back at the same moment."""

    attempt: int = 0

    def next(self) -> float:
        """Return how many seconds to wait; up to twice as long as the time before."""
        ceiling = min(MAX_PAUSE_SECS, FIRST_PAUSE_SECS * 2**self.attempt)
        self.attempt += 1
        return secrets.SystemRandom().uniform(0, ceiling)


@dataclass(slots=True)
class Follower:
    """Hands every event to *show* once and in order, over any number of connections.

    *cursor* moves after *show* has returned. *tell* gets what happens to the connection, *warn* which events are
    missing.
    """

    url: str
    token: str | None
    show: Callable[[dict[str, Any]], None]
    tell: Callable[[str], None]
    warn: Callable[[str], None]
    cursor: Cursor = field(default_factory=Cursor)
    last: int = 0
    types: list[str] = field(default_factory=list)
    _backoff: Backoff = field(default_factory=Backoff)
    _verdicts_due: int = 0

    def run(self) -> NoReturn:
        """Follow until interrupted. Raises Refused."""
        while True:
            time.sleep(self._follow_once())

    def _follow_once(self) -> float:
        """Follow over one connection until it ends; return how many seconds to wait before the next."""
        connection = ExitStack()
        try:
            socket = connection.enter_context(self._connect())
        except InvalidStatus as error:
            return self._after_refusal(error)
        except (OSError, InvalidHandshake) as error:
            return self._again(f"can't reach {self.url}: {error or type(error).__name__}")
        began = clock.monotonic()
        try:
            self._converse(socket)
        except ConnectionClosed as closed:
            if clock.monotonic() - began >= HELD_SECS:
                self._backoff.attempt = 0
            return self._after_close(closed)
        finally:
            connection.close()  # in peace, also when interrupted

    def _connect(self) -> ClientConnection:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return connect(socket_url(self.url), additional_headers=headers, max_size=MAX_FRAME_BYTES, close_timeout=1)

    # --- one connection ---

    def _converse(self, socket: ClientConnection) -> NoReturn:
        self._verdicts_due = 0
        self._subscribe(socket)
        while True:
            self._take(socket, _parsed(socket.recv()))

    def _subscribe(self, socket: ClientConnection) -> None:
        frame: dict[str, Any] = {"action": "subscribe", "channel": "events", "batch": True, "rate": 0}
        if self.types:
            frame["types"] = self.types
        if self.cursor.seq is None and self.last:
            frame["last"] = self.last
        if self.cursor.seq == 0 or self.cursor.epoch:
            frame |= {"after": self.cursor.seq, "epoch": self.cursor.epoch}
        self._verdicts_due += 1
        socket.send(json.dumps(frame))

    def _take(self, socket: ClientConnection, frame: dict[str, Any]) -> None:
        kind, payload = frame.get("type"), frame.get("payload") or {}
        if kind == "error":
            raise Refused(f"{self.url} refuses the subscription: {payload['message']}")
        if kind == "subscribed":
            self._take_verdict(socket, payload)
        elif self._verdicts_due:
            return  # of the subscription before
        elif kind == "event":
            self._take_events(socket, frame["prev"], [{"seq": frame["seq"], **payload}])
        elif kind == "events":
            self._take_events(socket, frame["prev"], frame["payload"])
        elif kind == "heartbeat":
            self.cursor.seq = max(self.cursor.seq or 0, payload["cursor"])

    def _take_verdict(self, socket: ClientConnection, verdict: dict[str, Any]) -> None:
        self._verdicts_due -= 1
        if self.cursor.seq and not self.cursor.epoch:
            self.cursor.epoch = verdict["epoch"]  # whose a bare seq is, the server had to say first
            self._subscribe(socket)
            return
        if problem := _problem(verdict):
            self.warn(problem)
        self.tell(f"Following {self.url} after seq {verdict['after']}")
        self.cursor = Cursor(verdict["after"], verdict["epoch"])

    def _take_events(self, socket: ClientConnection, prev: int, events: list[dict[str, Any]]) -> None:
        assert self.cursor.seq is not None, "events come after a verdict"
        if prev > self.cursor.seq:
            self._subscribe(socket)  # something is missing before these
            return
        for event in events:
            if event["seq"] > self.cursor.seq:
                self.show(event)
                self.cursor.seq = event["seq"]

    # --- between connections ---

    def _after_close(self, closed: ConnectionClosed) -> float:
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (None, "connection lost")
        if code == SIGNED_OUT:
            raise Refused(f"{self.url} has signed this token out (4001): it was revoked")
        pause = re.search(r"retry_ms=(\d+)", reason) if code == RESTARTING else None
        if pause:
            return self._again("the server restarts", min(int(pause[1]) / 1000, MAX_PAUSE_SECS))
        return self._again(f"the connection ended ({code}: {reason})" if code else reason)

    def _after_refusal(self, error: InvalidStatus) -> float:
        status, headers = error.response.status_code, error.response.headers
        if status == 401:
            advice = "set OUTFEED_TOKEN to a valid one (`outfeed token create NAME --scopes read` makes it)"
            raise Refused(f"{self.url} refuses {'this token' if self.token else 'strangers'} (401); {advice}")
        if status == 403:
            raise Refused(f"{self.url} refuses this token (403); it needs the scope read")
        if status < 500 and status not in RETRIED_STATUSES:
            raise Refused(f"{self.url} answers {status}; is it an Outfeed server?")
        wanted = headers.get("Retry-After", "")
        return self._again(f"the server answers {status}", min(int(wanted), MAX_PAUSE_SECS) if wanted.isdigit() else 0)

    def _again(self, problem: str, asked_secs: float = 0) -> float:
        """Say what happened; return the pause that the server asked for, else the next of our own."""
        pause = asked_secs or self._backoff.next()
        self.tell(f"{problem[0].upper()}{problem[1:]}; trying again in {pause:.1f} s")
        return pause


def socket_url(url: str) -> str:
    """Return the WebSocket address of the server at *url* (http, https, ws or wss)."""
    parts = urlsplit(url.rstrip("/"))
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}{parts.path}/ws"


def _parsed(message: str | bytes) -> dict[str, Any]:
    try:
        frame = json.loads(message)
    except ValueError:
        frame = None
    if not isinstance(frame, dict):
        raise Refused("the server sends something that is no feed")
    return frame


def _problem(verdict: dict[str, Any]) -> str | None:
    """Return what a reader must know before going on, None when nothing is missing."""
    if verdict["verdict"] == "gap":
        missing = verdict["missing"]
        return f"GAP: events {missing['from']} to {missing['to']} were pruned before they could be shown"
    if verdict["verdict"] == "reset":
        return f"RESET: the feed has another history now; what it holds up to seq {verdict['after']} is not shown"
    return None
