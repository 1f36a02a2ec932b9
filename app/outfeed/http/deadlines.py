"""Deadlines of requests: what a view reads ends after a while, and when its client has gone."""

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
from outfeed.store import deadline

QUERY_SECS = 10.0
LOOK_SECS = 0.2  # between two looks whether the client is there
_SOCKET_KEY = "gunicorn.socket"


class DeadlineFlask(DeclaringFlask):
    """A Flask whose views read for QUERY_SECS at most. What stays open, or is streamed, has its own deadlines."""

    def dispatch_request(self) -> ResponseReturnValue:
        """Run the view. Raises QueryCancelled.

        A connection that stays open has no deadline: each of its reads is short, and it would keep the deadline's
        objects in memory for days.
        """
        if permission.of_request().is_connection:
            return super().dispatch_request()
        with limited():
            return super().dispatch_request()


def limited() -> AbstractContextManager[None]:
    """Give what the request reads in the block its deadline."""
    return deadline.limited(QUERY_SECS, _presence_of_client())


def _presence_of_client() -> Callable[[], bool]:
    """Return what tells whether the client of this request is still connected."""
    client = request.environ.get(_SOCKET_KEY)
    if not isinstance(client, socket.socket):  # none is lent, or one that stands for it in a handshake
        return lambda: True
    poller = select.poll()
    poller.register(client.fileno(), select.POLLRDHUP)
    look_at = clock.monotonic() + LOOK_SECS

    def is_there() -> bool:
        nonlocal look_at
        if clock.monotonic() < look_at:
            return True
        look_at = clock.monotonic() + LOOK_SECS
        return not poller.poll(0)

    return is_there
