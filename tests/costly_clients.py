"""Clients that are expensive for a server.

They send half requests, send slowly, or do not read answers.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from websockets.exceptions import ConnectionClosedError

from tests.server import Server

_HOST = b"Host: feed\r\n"
_LOGIN = b"POST /login HTTP/1.1\r\n" + _HOST
# The first bytes of each kind of client. A dripping client then sends a byte a second.
KINDS = {
    "half a header": _LOGIN,
    "half a body": _LOGIN + b"Content-Length: 100\r\n\r\nname=",
    "a body that drips": _LOGIN + b"Content-Length: 100\r\n\r\n",
    "an export": b"GET /api/events/export HTTP/1.1\r\nConnection: close\r\n"
    + _HOST
    + b"Authorization: Bearer %b\r\n\r\n",
    "many answers": (b"GET /static/outfeed.css HTTP/1.1\r\n" + _HOST + b"\r\n") * 400,
}


class CostlyClients:
    """Sockets of some *kinds*, *each* of each, from one *address*.

    None of them reads.
    """

    def __init__(self, server: Server, each: int, address: str = "127.0.0.1", kinds: Iterable[str] = KINDS) -> None:
        self._server = server
        self._each = each
        self._address = address
        self._kinds = tuple(kinds)
        self._open = contextlib.ExitStack()
        self._dripping: list[socket.socket] = []
        self._stop = threading.Event()
        self._dripper = threading.Thread(target=self._drip)

    def __enter__(self) -> CostlyClients:
        for _ in range(self._each):
            for kind in self._kinds:
                client = self._connect()
                with contextlib.suppress(OSError):  # already closed
                    client.sendall(KINDS[kind].replace(b"%b", self._server.token.encode()))
                if kind == "a body that drips":
                    self._dripping.append(client)
        self._dripper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._dripper.join()
        self._open.close()

    def _connect(self) -> socket.socket:
        client = self._open.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.bind((self._address, 0))
        client.connect(("127.0.0.1", self._server.port))
        return client

    def _drip(self) -> None:
        while not self._stop.wait(1):
            for client in self._dripping:
                with contextlib.suppress(OSError):
                    client.send(b"x", socket.MSG_DONTWAIT)


def sockets_of(server: Server) -> int:
    """Return the number of open sockets of the server's worker."""
    found = 0
    for descriptor in Path(f"/proc/{server.workers()[0]}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(descriptor).startswith("socket:")
    return found


def secs_to_live(server: Server) -> float:
    """Return how many seconds a new viewer takes to become live.

    Returns infinity if the server closes its connection: on a busy machine it may be the oldest of its address without
    a complete request.
    """
    began = time.monotonic()
    with contextlib.suppress(ConnectionClosedError), server.connect() as viewer:
        viewer.subscribe()
        return time.monotonic() - began
    return math.inf
