"""Connections that stay open: a request's socket, lent by the server, and the thread that serves it."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Callable
from typing import Any, Protocol

from flask import Response, request

from outfeed.errors import DatabaseError, ForbiddenConsumer, Overtaken, Superseded, UnknownName
from outfeed.feed import frames
from outfeed.feed.encoding import Encoding
from outfeed.feed.socket_writer import SocketWriter
from outfeed.feed.subscriber import Subscriber
from outfeed.http import identity, limits
from outfeed.http.problems import problem
from outfeed.http.server.shortages import DESCRIPTORS
from outfeed.http.services import services
from outfeed.log_message import LogMessage

SOCKET_KEY = "gunicorn.socket"
GOODBYE_SECS = 1.0
log = logging.getLogger(__name__)
Ending = tuple[int, str]  # close code, reason


class Talk(Protocol):
    """What is said over one kind of connection."""

    def converse(self, subscriber: Subscriber, doorbell: Doorbell) -> Ending | None:
        """Serve the client until someone asks to end; return the code and reason. Raises OSError when it has gone."""
        ...

    def is_farewell(self, data: bytes) -> bool:
        """Return whether *data*, which came after our goodbye, completes the client's."""
        ...


def serve(head: bytes, encoding: Encoding, talk: Talk) -> Response:
    """Answer the request with *head*, and be a subscriber of the feed for as long as *talk* goes on."""
    lent = request.environ.get(SOCKET_KEY)
    if lent is None:
        return problem(501, "this server lends no sockets; start it with `outfeed serve`")
    writer = SocketWriter(lent)
    try:
        doorbell = Doorbell(writer)
    except OSError:
        services().shortages.note(DESCRIPTORS)
        return limits.later(503, f"the server is out of {DESCRIPTORS}", limits.RETRY_AFTER_SECS)
    with doorbell:
        subscriber = Subscriber(services().hub, writer, doorbell.ring, encoding, granted_rates(), identity.principal())
        ending = _ending_of(lambda: _attend(subscriber, doorbell, head, talk))
    if ending is not None:
        code, reason = ending
        log.info(LogMessage("client closed", code=code, reason=reason))
        writer.send_close(encoding.goodbye(*ending))
    writer.close(GOODBYE_SECS if ending else 0, talk.is_farewell)
    return _Served()


def _attend(subscriber: Subscriber, doorbell: Doorbell, head: bytes, talk: Talk) -> Ending | None:
    doorbell.writer.write(head, lambda: True)
    services().hub.add(subscriber)
    try:
        identity.guard().check_newcomer(subscriber)
        return talk.converse(subscriber, doorbell)
    finally:
        services().hub.remove(subscriber)


def _ending_of(conversation: Callable[[], Ending | None]) -> Ending | None:
    """Hold the conversation; return the code and reason to close with, None where the client has gone."""
    try:
        return conversation()
    except Overtaken as error:
        return frames.OVERTAKEN, str(error)
    except (Superseded, ForbiddenConsumer, UnknownName) as error:  # removed or given away since the stream was admitted
        return frames.SUPERSEDED, str(error)
    except OSError:
        return None
    except DatabaseError as error:
        log.error(LogMessage("client closed for want of the database", error=error))
        return frames.OUR_FAULT, "the database can't be read right now"
    except Exception:
        # The edge of a connection: left to Flask, a 500 page would be written into the stream.
        log.exception("client closed by an error of ours")
        services().metrics.note_error("connection")
        return frames.OUR_FAULT, "an error of ours"


def granted_rates() -> tuple[float, float]:
    """Return the rate for who names none, and the most to be had: only a program with a token may go faster."""
    rate = services().settings.event_rate
    return rate, rate if identity.principal().is_browser else 0


class Doorbell:
    """Wakes the thread that waits for the client at the far end of *writer*; any thread may ring."""

    def __init__(self, writer: SocketWriter) -> None:
        self.writer = writer
        # Sockets, not a pipe: a late ring on a closed one is an error, never a write to someone else's descriptor.
        self._hears, self._rings = socket.socketpair()
        self._poller = select.poll()
        self._poller.register(self._hears, select.POLLIN)
        self._poller.register(writer, select.POLLIN)

    def __enter__(self) -> Doorbell:
        return self

    def __exit__(self, *_: object) -> None:
        self._hears.close()
        self._rings.close()

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # closed, or rung often enough
            self._rings.send(b"!", socket.MSG_DONTWAIT)

    def wait(self, timeout: float | None) -> bool:
        """Wait for a ring, or *timeout* seconds; True where the client has sent something, or has gone."""
        ready = {descriptor for descriptor, _ in self._poller.poll(None if timeout is None else timeout * 1000)}
        if self._hears.fileno() in ready:
            self._hears.recv(4096)
        return self.writer.fileno() in ready


class _Served(Response):
    """Says to gunicorn that the socket was answered on directly."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise StopIteration
