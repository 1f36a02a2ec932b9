"""Parking: waits of requests, which hold no thread.

A view that must wait leaves the request's thread. The worker (http/server/worker.py) keeps the request, and serves it
again after the wait. Each pass authenticates the request again. Another WSGI server has no such worker: there the wait
blocks the request's thread.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from flask import Flask, Response, g, request

from outfeed import clock
from outfeed.feed.subscription import Filter
from outfeed.http.server.incoming import SOCKET_KEY, ClientSocket, resumed_in
from outfeed.http.server.parked import ParkedRequest
from outfeed.http.services import serving

# Attributes of Flask's `g` that each pass of a request has from the one before.
_KEPT = ("slot", "request_id")


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
    """Continue requests that have waited, before they are authenticated."""
    app.before_request(_restore)
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


def _restore() -> None:
    if found := resumed_in(request.environ):
        for name, value in found.kept.items():
            setattr(g, name, value)


class _NoAnswer(Response):
    """Response that tells gunicorn that the request has no answer yet.

    The request is parked when nothing can fail any more. An error before would answer it.
    """

    def __init__(self, parked: Parked) -> None:
        super().__init__()
        self._wait, self._state = parked.wait, parked.state

    def __call__(self, *_: Any, **__: Any) -> Any:
        client: ClientSocket = request.environ[SOCKET_KEY]
        kept = {name: g.pop(name) for name in _KEPT}
        admission, address = kept["slot"]
        client.parked = ParkedRequest(
            self._state,
            kept,
            not_before=self._wait.not_before,
            deadline=self._wait.deadline,
            release=partial(admission.release, address),
            on_woken=client.on_woken,
        )
        if self._wait.wanted is not None:
            _register(client.parked, self._wait.wanted)
        raise StopIteration


def _register(parked: ParkedRequest, wanted: NextMatch) -> None:
    reader = serving().core.reader
    parked.unregister = partial(reader.end_wait, wanted.filter, parked)
    if not reader.begin_wait(*wanted, parked):
        parked.set()
