"""One connection to the feed, and how every request says who it is."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from outfeed import clock
from outfeed.errors import Refused

MAX_FRAME_BYTES = 64 * 2**20


class Link:
    """One connection: its socket, the verdicts that are due on it, and how far the server has sent."""

    def __init__(self, url: str, token: str | None) -> None:
        self._open = ExitStack()
        self._socket: ClientConnection = self._open.enter_context(
            connect(socket_url(url), additional_headers=authorization(token), max_size=MAX_FRAME_BYTES, close_timeout=1)
        )
        self._began = clock.monotonic()
        self._asked_to_ack = 0
        self.verdicts_due = 0
        self.sent = 0

    @property
    def age(self) -> float:
        return clock.monotonic() - self._began

    def subscribe(self, fields: dict[str, Any]) -> None:
        self.verdicts_due += 1
        self._send(action="subscribe", channel="events", **fields)

    def ack(self, seq: int) -> None:
        """Acknowledge, once, and only what this connection was sent: a server refuses to believe the rest."""
        if not self.verdicts_due and self._asked_to_ack < seq <= self.sent:
            self._asked_to_ack = seq
            self._send(action="ack", seq=seq)

    def receive(self) -> dict[str, Any]:
        message = self._socket.recv()
        try:
            frame = json.loads(message)
        except ValueError:
            frame = None
        if not isinstance(frame, dict):
            raise Refused("the server sends something that is no feed")
        return frame

    def _send(self, **fields: Any) -> None:
        self._socket.send(json.dumps(fields))

    def close(self) -> None:
        self._open.close()


def socket_url(url: str) -> str:
    """Return the WebSocket address of the server at *url* (http, https, ws or wss)."""
    parts = urlsplit(url.rstrip("/"))
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}{parts.path}/ws"


def authorization(token: str | None) -> dict[str, str]:
    """Return the headers that bear *token*."""
    return {"Authorization": f"Bearer {token}"} if token else {}
