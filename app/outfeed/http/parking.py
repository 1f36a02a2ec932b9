"""Parking: waits of requests, which hold no thread.

A view that must wait leaves the request's thread. The worker (http/server/worker.py) keeps the request, and serves it
again after the wait. Each pass authenticates the request again. Another WSGI server has no such worker: there the wait
blocks the request's thread.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from flask import Flask, Response, request

from outfeed import clock
from outfeed.feed.subscription import Filter
from outfeed.http import limits
from outfeed.http.server.incoming import SOCKET_KEY, ClientSocket, resumed_in
from outfeed.http.server.parked import ParkedRequest
from outfeed.http.services import serving


class NextMatch(NamedTuple):
    """The next matching event after *cursor* in *epoch*."""

    filter: Filter
    epoch: str
    cursor: int


class Wait(NamedTuple):
    """A wait until the *wanted* event, or only for a time.

    It ends at *deadline* at the latest, and no earlier than *not_before*, on the monotonic clock.
    """

    wanted: NextMatch | None
    not_before: float
    deadline: float


class Parked(Exception):
    """The present pass of the request ends without an answer.

    It is not an error, and no view catches it.
    """

    def __init__(self, wait: Wait, state: Any) -> None:
        super().__init__("the request waits")
        self.wait = wait
        self.state = state


def init_app(app: Flask) -> None:
    """End the pass of a request that waits without an answer."""
    app.register_error_handler(Parked, _NoAnswer)


def resumed_state() -> Any:
    """Return the state of the wait that has ended; None in the first pass."""
    found = resumed_in(request.environ)
    return found.state if found else None


def wait(rest: Wait, state: Any) -> None:
    """Wait without a thread, or else block.

    The next pass of the request gets *state* from `resumed_state`. If the call returns, there is no such pass, and the
    wait is over. The caller holds a slot of the connections. Raises Parked.
    """
    if isinstance(request.environ.get(SOCKET_KEY), ClientSocket):
        raise Parked(rest, state)
    _block(rest)


def _block(rest: Wait) -> None:
    if rest.wanted is not None:
        serving().core.reader.wait(*rest.wanted, rest.deadline - clock.monotonic())
    serving().hub.closing.wait(max(0.0, min(rest.not_before, rest.deadline) - clock.monotonic()))


class _NoAnswer(Response):
    """Response that tells gunicorn that the request has no answer yet.

    The request is parked when nothing can fail any more. An error before would answer it.
    """

    def __init__(self, parked: Parked) -> None:
        super().__init__()
        self._wait, self._state = parked.wait, parked.state

    def __call__(self, *_: Any, **__: Any) -> Any:
        client: ClientSocket = request.environ[SOCKET_KEY]
        parked = ParkedRequest(
            self._state,
            limits.hand_over_slot(),
            not_before=self._wait.not_before,
            deadline=self._wait.deadline,
            on_woken=client.on_woken,
        )
        if self._wait.wanted is not None:
            _register(parked, self._wait.wanted)
        client.parked = parked
        raise StopIteration


def _register(parked: ParkedRequest, wanted: NextMatch) -> None:
    reader = serving().core.reader
    parked.unregister = partial(reader.end_wait, wanted.filter, parked)
    if not reader.begin_wait(*wanted, parked):
        parked.set()
