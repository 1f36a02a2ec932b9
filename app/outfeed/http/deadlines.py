"""Deadlines of requests: a view's queries end at a time limit.

They also end when the client has disconnected.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager

from flask import request
from flask.typing import ResponseReturnValue

from outfeed import clock
from outfeed.http import permission
from outfeed.http.permission import DeclaringFlask
from outfeed.http.server.incoming import SOCKET_KEY
from outfeed.store import deadline

QUERY_SECS = 10.0
CHECK_SECS = 0.2  # between two checks whether the client is connected


class DeadlineFlask(DeclaringFlask):
    """A Flask app whose views read for QUERY_SECS at most.

    Open connections and streamed responses have deadlines of their own.
    """

    def dispatch_request(self) -> ResponseReturnValue:
        """Run the view with a deadline. Raises QueryCancelled.

        A connection that stays open has no deadline: each of its reads is short, and the deadline's objects would stay
        in memory for days.
        """
        if permission.of_request().is_connection:
            return super().dispatch_request()
        with limited():
            return super().dispatch_request()


def limited() -> AbstractContextManager[None]:
    """Limit the queries of the block to the deadline of a request."""
    return deadline.limited(QUERY_SECS, _connection_check())


def _connection_check() -> Callable[[], bool]:
    """Return a function that tells whether the client is still connected."""
    client = request.environ.get(SOCKET_KEY)
    if not isinstance(client, socket.socket):  # no socket is available, or a handshake has replaced it
        return lambda: True
    poller = select.poll()
    poller.register(client.fileno(), select.POLLRDHUP)
    check_at = clock.monotonic() + CHECK_SECS

    def is_connected() -> bool:
        nonlocal check_at
        if clock.monotonic() < check_at:
            return True
        check_at = clock.monotonic() + CHECK_SECS
        return not poller.poll(0)

    return is_connected
