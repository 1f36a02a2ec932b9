"""Incoming: the connections that the worker's main loop waits for.

Their number, bytes and times are limited.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from gunicorn.http.message import Request
from gunicorn.workers.gthread import TConn

from outfeed.http.proxies import client_key
from outfeed.http.server.assembly import Assembly
from outfeed.http.server.parked import ParkedRequest

# A client that reads no byte of a response for this long is closed. WebSockets and streams: feed/socket_writer.py.
UNREAD_SECS = 15.0
# Unsent bytes of a response that the worker keeps for a slow client. A thread waits only if there are more.
MAX_UNSENT_BYTES = 256 * 1024
# Threads that may wait with a response at once.
MAX_WAITING_THREADS = 8
# Bytes that the kernel queues for a client beyond those in flight. Its default is megabytes.
_MAX_QUEUED_BYTES = 128 * 1024
NONBLOCKING = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
SOCKET_KEY = "gunicorn.socket"


class ClientSocket(socket.socket):
    """A client's socket that keeps the unsent rest of a response.

    Therefore only a few responses hold a thread. One thread uses the socket at a time: the request's thread, else the
    main loop's.
    """

    _waiting = threading.BoundedSemaphore(MAX_WAITING_THREADS)

    def __init__(
        self,
        accepted: socket.socket,
        on_admitted: Callable[[], None] = lambda: None,
        on_woken: Callable[[ParkedRequest], None] = lambda _: None,
    ) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._unsent = bytearray()
        self._limit_queue(_MAX_QUEUED_BYTES)
        self._on_admitted = on_admitted
        self.on_woken = on_woken
        self.parked: ParkedRequest | None = None  # if the request waits without a thread
        self.resumed: ParkedRequest | None = None  # if the request has waited and is served again
        self.header: list[tuple[str, str]] = []  # of the request that is served
        self.gave_up = False  # on a response that the client did not read
        self.is_admitted = False  # as an open connection, which does not count as a short request

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send *data* or keep it. Raises OSError.

        Waits while more than MAX_UNSENT_BYTES are unsent.
        """
        rest = memoryview(data)
        if not self._unsent:
            rest = rest[self._try_send(rest) :]
        if rest:
            self._unsent += rest
            if not self.flush() and len(self._unsent) > MAX_UNSENT_BYTES:
                self._wait_for_reader()

    def flush(self) -> bool:
        """Send what the client accepts at once, and return whether all is sent.

        Raises OSError.
        """
        if self._unsent:
            del self._unsent[: self._try_send(self._unsent)]
        return not self._unsent

    def defer_writable(self) -> None:
        """Be writable only when the client has received everything.

        For a client that sends its next request before it has read the response.
        """
        self._limit_queue(1)

    def mark_admitted(self) -> None:
        """Count as an open connection instead of a request from now on.

        The kernel's queue has its default limit again.
        """
        self._limit_queue(0)
        self.is_admitted = True
        self._on_admitted()

    def resume(self) -> None:
        """Make the parked request the one that is served again."""
        self.parked, self.resumed = None, self.parked

    def _limit_queue(self, size: int) -> None:
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    def _try_send(self, data: memoryview | bytearray) -> int:
        try:
            return self.send(data, NONBLOCKING)
        except BlockingIOError:
            return 0

    def _wait_for_reader(self) -> None:
        if not self._waiting.acquire(blocking=False):
            self._give_up(f"{MAX_WAITING_THREADS} threads wait for clients that do not read")
        try:
            poller = select.poll()
            poller.register(self, select.POLLOUT)
            while len(self._unsent) > MAX_UNSENT_BYTES:
                if not poller.poll(UNREAD_SECS * 1000):
                    self._give_up(f"the client took no byte for {UNREAD_SECS:.0f} s")
                self.flush()
        finally:
            self._waiting.release()

    def _give_up(self, reason: str) -> NoReturn:
        self._unsent.clear()  # otherwise the main loop would keep waiting
        self.gave_up = True
        # gunicorn logs no traceback for EPIPE: tests/journeys/test_slow_clients.py
        raise BrokenPipeError(errno.EPIPE, reason)


def note_admitted(environ: Mapping[str, Any]) -> None:
    """Tell the worker that the request is an open connection from now on."""
    client = environ.get(SOCKET_KEY)
    if isinstance(client, ClientSocket):
        client.mark_admitted()


def resumed_in(environ: Mapping[str, Any]) -> ParkedRequest | None:
    """Return the wait after which the request is served again, if any."""
    client = environ.get(SOCKET_KEY)
    return client.resumed if isinstance(client, ClientSocket) else None


def free_request(environ: dict[str, Any], keys: Iterable[str]) -> None:
    """Free all of *environ* but *keys*, and gunicorn's copy of the header.

    A connection does not need them while it is open.
    """
    client = environ.get(SOCKET_KEY)
    if isinstance(client, ClientSocket):
        client.header.clear()
    kept = {key: environ[key] for key in keys if key in environ}
    environ.clear()
    environ.update(kept)


class Connection(TConn):
    """One client's connection and its state in the main loop.

    It is its own parser: gunicorn asks it for a request that is already parsed.
    """

    def __init__(self, cfg: Any, sock: ClientSocket, peer: Any, server: Any, max_body_bytes: int) -> None:
        super().__init__(cfg, sock, peer, server)
        self.parser = self
        self.initialized = self.data_ready = True
        self.assembly = Assembly(cfg, peer, max_body_bytes)
        self.address = client_key(peer[0])
        self.request: Request | Exception | None = None
        self.events = 0  # the selector's events that the main loop waits for
        self.began: float | None = None  # when the first byte of the next request came
        self.deadline = 0.0
        self.held_bytes = 0
        self.is_ending = False  # no further request is served
        self.is_lingering = False  # answered; bytes that the client still sends are dropped

    def __next__(self) -> Request:
        """Return the complete request, as gunicorn's parser does.

        A request that is served again returns with its body. Raises the request's error if it has one.
        """
        request = self.request
        if isinstance(request, Exception):
            raise request
        assert request is not None
        request.body.seek(0)
        self.sock.header = request.headers
        return request

    def finish_body(self) -> None:
        """Do nothing: an unread body is dropped with its request."""


class Incomplete:
    """The connections that the main loop waits for, oldest first.

    Only the main loop's thread uses it. Such a connection has an incomplete request, or a response that its client has
    not read. Idle connections between two requests are not included. Addresses that *is_proxy* accepts have only the
    total limit and none of their own.
    """

    def __init__(self, limit: int, per_address: int, max_bytes: int, is_proxy: Callable[[str], bool]) -> None:
        self._limit = limit
        self._per_address = per_address
        self._max_bytes = max_bytes
        self._is_proxy = is_proxy
        self._all: dict[Connection, None] = {}
        self._by_address: dict[str, dict[Connection, None]] = {}
        self._held_bytes = 0

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._all

    def put(self, connection: Connection, deadline: float) -> list[Connection]:
        """Wait for *connection* until *deadline*.

        Returns the connections that must be closed to stay within the limits.
        """
        connection.deadline = deadline
        self._held_bytes += len(connection.assembly) - connection.held_bytes
        connection.held_bytes = len(connection.assembly)
        if connection not in self._all:
            self._all[connection] = None
            self._by_address.setdefault(connection.address, {})[connection] = None
        return list(dict.fromkeys(filter(None, (self._excess_connection(connection), self._oldest_large()))))

    def remove(self, connection: Connection) -> None:
        """Stop waiting for *connection*."""
        if connection not in self._all:
            return
        del self._all[connection]
        self._held_bytes -= connection.held_bytes
        connection.held_bytes = 0
        neighbours = self._by_address[connection.address]
        del neighbours[connection]
        if not neighbours:
            del self._by_address[connection.address]

    def overdue(self, now: float) -> list[Connection]:
        """Return the connections whose deadline has passed."""
        return [connection for connection in self._all if connection.deadline <= now]

    def shorten_deadlines(self, deadline: float) -> None:
        """Wait for no connection beyond *deadline*.

        A connection that has sent no byte is overdue at once.
        """
        for connection in self._all:
            is_silent = connection.began is None and not connection.is_ending
            connection.deadline = 0.0 if is_silent else min(connection.deadline, deadline)

    def _excess_connection(self, connection: Connection) -> Connection | None:
        neighbours = self._by_address[connection.address]
        if 0 < self._per_address < len(neighbours) and not self._is_proxy(connection.client[0]):
            return next(iter(neighbours))
        if len(self._all) > self._limit:
            most = max(self._by_address, key=lambda address: len(self._by_address[address]))
            return next(iter(self._by_address[most]))
        return None

    def _oldest_large(self) -> Connection | None:
        """Return the oldest connection above its share of the bytes.

        Returns None if all connections together are within the limit.
        """
        if self._held_bytes <= self._max_bytes:
            return None
        share = self._max_bytes // (self._limit + 1)
        return next(connection for connection in self._all if connection.held_bytes > share)
