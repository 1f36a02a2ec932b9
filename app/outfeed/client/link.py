"""Link: one connection to the feed, and the header with the token."""

from __future__ import annotations

import functools
import json
import logging
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from outfeed import clock
from outfeed.client.frames import parse_frame
from outfeed.client.proxies import open_socket

MAX_FRAME_BYTES = 64 * 2**20
# Seconds between pings, and until a ping without an answer ends the connection.
PING_SECS = 20.0
# The library logs a traceback for each lost connection. `Feed` reports it in one line.
_quiet = logging.getLogger("outfeed.client.socket")
_quiet.setLevel(logging.CRITICAL)


class Link:
    """One connection: its socket and its protocol state.

    *verdicts_due* is the number of subscriptions without a verdict. *sent* is the seq up to which the server has sent.
    """

    def __init__(self, url: str, token: str | None, *, asks_origin: bool = False) -> None:
        self._open = ExitStack()
        self._socket: ClientConnection = self._open.enter_context(_connect(url, token, "?origin=1" * asks_origin))
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
        """Acknowledge *seq* once, if this connection was sent it.

        The server rejects the acknowledgement of an event that it has not sent.
        """
        if not self.verdicts_due and self._asked_to_ack < seq <= self.sent:
            self._asked_to_ack = seq
            self._send(action="ack", seq=seq)

    def receive(self) -> dict[str, Any]:
        return parse_frame(self._socket.recv())

    def _send(self, **fields: Any) -> None:
        self._socket.send(json.dumps(fields))

    def close(self) -> None:
        self._open.close()


def _connect(url: str, token: str | None, query: str) -> ClientConnection:
    prepared = functools.partial(
        connect, socket_url(url) + query, additional_headers=authorization(token), max_size=MAX_FRAME_BYTES,
        close_timeout=1, ping_interval=PING_SECS, ping_timeout=PING_SECS, logger=_quiet,
    )  # fmt: skip
    return open_socket(url, prepared)


def socket_url(url: str) -> str:
    """Return the WebSocket address of the server at *url*.

    The scheme of *url* is http, https, ws or wss.
    """
    parts = urlsplit(url.rstrip("/"))
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}{parts.path}/ws"


def authorization(token: str | None) -> dict[str, str]:
    """Return the header that carries *token*."""
    return {"Authorization": f"Bearer {token}"} if token else {}
