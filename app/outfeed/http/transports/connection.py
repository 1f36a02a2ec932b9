"""Connections that stay open: a request's socket and its client's thread."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Callable
from typing import Any, Protocol

from flask import Flask, Response, g, request

from outfeed.errors import ForbiddenConsumer, Overtaken, SourceError, Superseded, UnknownName
from outfeed.feed import frames
from outfeed.feed.encoding import Encoding
from outfeed.feed.socket_writer import SocketWriter
from outfeed.feed.subscriber import Subscriber
from outfeed.http import identity, limits
from outfeed.http.problems import problem
from outfeed.http.server.exhaustion import DESCRIPTORS
from outfeed.http.server.incoming import SOCKET_KEY, free_request
from outfeed.http.services import serving
from outfeed.log_message import LogMessage

CLOSE_SECS = 1.0
# The end of a request reads these in its environ.
_KEPT = (SOCKET_KEY, "REQUEST_METHOD", "PATH_INFO", "REMOTE_ADDR")
log = logging.getLogger(__name__)
Ending = tuple[int, str]  # close code, reason


class ConnectionHandler(Protocol):
    """Interface of a handler that serves the client of one connection."""

    def run(self, subscriber: Subscriber, waker: Waker) -> Ending | None:
        """Serve the client until either side ends the connection.

        Returns the code and reason to close with, or None if the client has disconnected. Raises OSError if the socket
        fails.
        """
        ...

    def is_close_frame(self, data: bytes) -> bool:
        """Return whether *data* completes the client's close frame.

        The server has sent its own close frame before.
        """
        ...


def init_app(app: Flask) -> None:
    """Release the resources of `prepare` when the request has ended."""
    app.teardown_request(_release)


def prepare() -> Response | None:
    """Take the request's socket for a connection that stays open.

    Returns the refusal if that is not possible.
    """
    sock = request.environ.get(SOCKET_KEY)
    if sock is None:
        return problem(501, "this server gives no access to its sockets; start it with `outfeed serve`")
    writer = SocketWriter(sock)
    try:
        g.waker = Waker(writer)
    except OSError:
        serving().exhaustion.note(DESCRIPTORS)
        return limits.retry_later(503, f"the server is out of {DESCRIPTORS}", limits.RETRY_AFTER_SECS)
    return None


def _release(_: BaseException | None) -> None:
    if waker := g.pop("waker", None):
        waker.close()


def serve(head: bytes, encoding: Encoding, handler: ConnectionHandler) -> Response:
    """Answer the request on its socket with *head*, then with the feed."""
    if refusal := prepare():
        return refusal
    run(head, encoding, handler)
    return _Served()


def run(head: bytes, encoding: Encoding, handler: ConnectionHandler) -> None:
    """Write *head*, then serve the feed until *handler* returns.

    Closes the connection at the end.
    """
    _free_request()
    waker: Waker = g.waker
    subscriber = Subscriber(serving().core, waker.writer, waker.wake, encoding, granted_rates(), identity.principal())
    ending = _catch_ending(lambda: _serve_subscriber(subscriber, waker, head, handler))
    if ending is not None:
        code, reason = ending
        if code == frames.POLICY:
            serving().metrics.note_refusal("policy", why=reason, address=limits.client())
        log.info(LogMessage("client closed", code=code, reason=reason))
        waker.writer.send_close(encoding.close_message(*ending))
    waker.writer.close(CLOSE_SECS if ending else 0, handler.is_close_frame)


def _free_request() -> None:
    """Free what only a response would need: 3 KiB for each client."""
    free_request(request.environ, _KEPT)
    for cached in ("args", "authorization", "cookies"):
        vars(request).pop(cached, None)


def _serve_subscriber(subscriber: Subscriber, waker: Waker, head: bytes, handler: ConnectionHandler) -> Ending | None:
    waker.writer.write(head, lambda: True)
    serving().hub.add(subscriber)
    try:
        identity.guard().check_newcomer(subscriber)
        return handler.run(subscriber, waker)
    finally:
        serving().hub.remove(subscriber)


def _catch_ending(serve_client: Callable[[], Ending | None]) -> Ending | None:
    """Serve the client, and return the code and reason to close with.

    Returns None if the client has disconnected.
    """
    try:
        return serve_client()
    except Overtaken as error:
        return frames.OVERTAKEN, str(error)
    except ForbiddenConsumer as error:  # its owner changed after the stream was admitted
        serving().metrics.note_refusal("ownership", error=error)
        return frames.SUPERSEDED, str(error)
    except (
        Superseded,
        UnknownName,
    ) as error:  # another connection took it, or it was removed after the stream was admitted
        return frames.SUPERSEDED, str(error)
    except OSError:
        return None
    except SourceError as error:
        log.error(LogMessage("client closed, the feed can't be read", error=error))
        return frames.INTERNAL_ERROR, error.in_short
    except Exception as error:
        # The edge of a connection: Flask would write a 500 page into the stream.
        log.exception("client closed, internal error")
        serving().metrics.note_error("connection", error)
        return frames.INTERNAL_ERROR, "internal server error"


def granted_rates() -> tuple[float, float]:
    """Return (default rate, maximum rate) for the current principal.

    0 as maximum means no limit. Only a token's rate is unlimited.
    """
    rate = serving().settings.event_rate
    return rate, rate if identity.principal().is_browser else 0


class Waker:
    """Waker of the thread that waits for the client of *writer*.

    Any thread may call `wake`.
    """

    def __init__(self, writer: SocketWriter) -> None:
        self.writer = writer
        # Sockets, not a pipe: a late `wake` on a closed one is an error, never a write to another descriptor.
        self._receiver, self._sender = socket.socketpair()
        self._poller = select.poll()
        self._poller.register(self._receiver, select.POLLIN)
        self._poller.register(writer, select.POLLIN)

    def close(self) -> None:
        """Close the descriptors."""
        self._receiver.close()
        self._sender.close()

    def wake(self) -> None:
        """Make `wait` return."""
        with contextlib.suppress(OSError):  # closed, or the socket's buffer is full of wake-ups
            self._sender.send(b"!", socket.MSG_DONTWAIT)

    def wait(self, timeout: float | None) -> bool:
        """Wait *timeout* seconds, or until `wake` is called.

        Returns whether the client has sent bytes or has disconnected.
        """
        ready = {descriptor for descriptor, _ in self._poller.poll(None if timeout is None else timeout * 1000)}
        if self._receiver.fileno() in ready:
            self._receiver.recv(4096)
        return self.writer.fileno() in ready


class _Served(Response):
    """Response that tells gunicorn that the socket was answered directly."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise StopIteration
