"""Incoming: the client connections that the worker's main loop waits for, and their limits."""

from __future__ import annotations

import errno
import select
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from gunicorn.http.message import Request
from gunicorn.workers.gthread import TConn

from outfeed.http.proxies import client_key
from outfeed.http.server.assembly import Assembly

# A client that takes no byte of an answer for this long is cut off. WebSockets and streams: feed/socket_writer.py.
UNREAD_SECS = 15.0
# So much of an answer is kept for a client that has not taken it yet; a thread waits only with what is more.
MAX_UNSENT_BYTES = 256 * 1024
# So many threads may wait with an answer at once.
MAX_WAITING_THREADS = 8
# The kernel takes no more than this for a client beyond what is on its way: by default it would be megabytes.
_MAX_QUEUED_BYTES = 128 * 1024
_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_SOCKET_KEY = "gunicorn.socket"


class ClientSocket(socket.socket):
    """A client's socket that keeps the unsent end of an answer, so that few answers hold a thread.

    One thread uses it at a time: the thread of a request, else the main loop's.
    """

    _waiting = threading.BoundedSemaphore(MAX_WAITING_THREADS)

    def __init__(self, accepted: socket.socket, on_admitted: Callable[[], None] = lambda: None) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._unsent = bytearray()
        self._queue_at_most(_MAX_QUEUED_BYTES)
        self._on_admitted = on_admitted
        self.gave_up = False  # with an answer that the client did not take
        self.is_admitted = False  # as an open connection: what it does is no short request

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send *data* or keep it; waits while more than MAX_UNSENT_BYTES are unsent. Raises OSError."""
        rest = memoryview(data)
        if not self._unsent:
            rest = rest[self._offer(rest) :]
        if rest:
            self._unsent += rest
            if not self.flush() and len(self._unsent) > MAX_UNSENT_BYTES:
                self._wait_for_reader()

    def flush(self) -> bool:
        """Send what the client takes at once; return whether nothing is left. Raises OSError."""
        if self._unsent:
            del self._unsent[: self._offer(self._unsent)]
        return not self._unsent

    def hold_back(self) -> None:
        """Be writable only once the client has taken all: it asks for more before it has read an answer."""
        self._queue_at_most(1)

    def stay_open(self) -> None:
        """Count as an open connection, not as a request, from now on; the kernel queues as much as it likes."""
        self._queue_at_most(0)
        self.is_admitted = True
        self._on_admitted()

    def _queue_at_most(self, size: int) -> None:
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    def _offer(self, data: memoryview | bytearray) -> int:
        try:
            return self.send(data, _AT_ONCE)
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
        self._unsent.clear()  # or the main loop would go on waiting
        self.gave_up = True
        # gunicorn logs no traceback for EPIPE: tests/journeys/test_slow_clients.py
        raise BrokenPipeError(errno.EPIPE, reason)


def note_admitted(environ: Mapping[str, Any]) -> None:
    """Tell the worker that the request counts as an open connection from now on, not as a request."""
    client = environ.get(_SOCKET_KEY)
    if isinstance(client, ClientSocket):
        client.stay_open()


class Connection(TConn):
    """One client's connection, and where it is in the main loop.

    It is its own parser: gunicorn asks it for a request that is parsed already.
    """

    def __init__(self, cfg: Any, sock: ClientSocket, peer: Any, server: Any, max_body_bytes: int) -> None:
        super().__init__(cfg, sock, peer, server)
        self.parser = self
        self.initialized = self.data_ready = True
        self.assembly = Assembly(cfg, peer, max_body_bytes)
        self.address = client_key(peer[0])
        self.request: Request | Exception | None = None
        self.events = 0  # that the main loop waits for
        self.began: float | None = None  # when the first byte of the next request came
        self.deadline = 0.0
        self.held_bytes = 0
        self.is_ending = False  # nothing is served any more
        self.is_lingering = False  # answered, and what the client still sends is dropped

    def __next__(self) -> Request:
        """Return the complete request, as gunicorn's parser does. Raises what is wrong with it."""
        request, self.request = self.request, None
        if isinstance(request, Exception):
            raise request
        return request

    def finish_body(self) -> None:
        """Do nothing: a body that the application did not read is dropped with its request."""


class Incomplete:
    """The connections that the main loop waits for, oldest first. Used by the main loop's thread alone.

    Such a connection has an incomplete request, or an answer that its client has not taken. Idle ones between two
    requests are not among them. The addresses that *is_proxy* names have no limit of their own but the whole one.
    """

    def __init__(self, limit: int, of_address: int, max_bytes: int, is_proxy: Callable[[str], bool]) -> None:
        self._limit = limit
        self._of_address = of_address
        self._max_bytes = max_bytes
        self._is_proxy = is_proxy
        self._all: dict[Connection, None] = {}
        self._by_address: dict[str, dict[Connection, None]] = {}
        self._held_bytes = 0

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._all

    def put(self, connection: Connection, deadline: float) -> list[Connection]:
        """Wait for *connection* until *deadline*; return those that have to be closed for it."""
        connection.deadline = deadline
        self._held_bytes += len(connection.assembly) - connection.held_bytes
        connection.held_bytes = len(connection.assembly)
        if connection not in self._all:
            self._all[connection] = None
            self._by_address.setdefault(connection.address, {})[connection] = None
        return list(dict.fromkeys(filter(None, (self._one_too_many(connection), self._too_heavy()))))

    def remove(self, connection: Connection) -> None:
        """Wait no longer for *connection*."""
        if connection not in self._all:
            return
        del self._all[connection]
        self._held_bytes -= connection.held_bytes
        connection.held_bytes = 0
        neighbours = self._by_address[connection.address]
        del neighbours[connection]
        if not neighbours:
            del self._by_address[connection.address]

    def late(self, now: float) -> list[Connection]:
        """Return the connections whose deadline has passed."""
        return [connection for connection in self._all if connection.deadline <= now]

    def hurry(self, deadline: float) -> None:
        """Wait for no connection beyond *deadline*, and no longer for one that has sent nothing."""
        for connection in self._all:
            is_silent = connection.began is None and not connection.is_ending
            connection.deadline = 0.0 if is_silent else min(connection.deadline, deadline)

    def _one_too_many(self, connection: Connection) -> Connection | None:
        neighbours = self._by_address[connection.address]
        if 0 < self._of_address < len(neighbours) and not self._is_proxy(connection.client[0]):
            return next(iter(neighbours))
        if len(self._all) > self._limit:
            most = max(self._by_address, key=lambda address: len(self._by_address[address]))
            return next(iter(self._by_address[most]))
        return None

    def _too_heavy(self) -> Connection | None:
        """Return the oldest connection that holds its share of the bytes, if all hold more than they may."""
        if self._held_bytes <= self._max_bytes:
            return None
        share = self._max_bytes // (self._limit + 1)
        return next(connection for connection in self._all if connection.held_bytes > share)
