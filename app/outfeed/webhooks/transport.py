"""Transport: httpcore's connections to checked addresses, with a deadline.

Any thread can cancel them. httpx's own transport offers neither a total deadline nor a choice of the address. httpcore,
the library below httpx, takes a network backend. TLS still sends the URL's host name and checks the certificate
against it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import httpcore

from outfeed import clock
from outfeed.errors import DeliveryCancelled
from outfeed.webhooks.addresses import Allowlist, Endpoint

# Limit for the connection attempt to one address.
CONNECT_SECS = 5.0
Result = TypeVar("Result")


class AbortHandle:
    """The deadline of the current post, and a switch that cancels all posts.

    Any thread may call `abort`. All other methods belong to the thread that posts. `_lock` guards the sockets against
    `close`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reader, self._writer = socket.socketpair()
        self._deadline = -math.inf
        self._is_aborted = False

    def start(self, secs: float) -> None:
        """Start the deadline of the next post, *secs* seconds from now."""
        self._deadline = clock.monotonic() + secs

    @property
    def remaining_secs(self) -> float:
        """Return the seconds until the deadline, negative after it."""
        return self._deadline - clock.monotonic()

    def abort(self) -> None:
        """End the current wait at once, and reject every later one."""
        with self._lock:
            self._is_aborted = True
            if self._writer.fileno() >= 0:
                with contextlib.suppress(OSError):  # it is already shut down
                    self._writer.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the sockets. `abort` may still be called."""
        with self._lock:
            self._reader.close()
            self._writer.close()

    def check(self) -> None:
        """Raise DeliveryCancelled after `abort`, TimeoutError after the deadline."""
        if self._is_aborted:
            raise DeliveryCancelled("cancelled")
        if self.remaining_secs <= 0:
            raise TimeoutError("timed out")

    def wait(self, waiting: socket.socket, events: int, secs: float = math.inf) -> None:
        """Wait until *waiting* is ready, for at most *secs*.

        Raises the errors of `check`.
        """
        poller = select.poll()
        poller.register(waiting, events)
        poller.register(self._reader, select.POLLIN)
        is_ready = poller.poll(max(0.0, min(secs, self.remaining_secs)) * 1000)
        self.check()
        if not is_ready:
            raise TimeoutError("timed out")


class Stream(httpcore.NetworkStream):
    """A connected non-blocking socket.

    It ignores httpcore's timeouts: the abort handle has the deadline.
    """

    def __init__(self, connected: socket.socket, abort_handle: AbortHandle) -> None:
        self._socket = connected
        self._abort_handle = abort_handle

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._attempt(lambda: self._socket.recv(max_bytes), select.POLLIN)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        try:
            while view:
                view = view[self._attempt(lambda: self._socket.send(view), select.POLLOUT) :]  # noqa: B023 - called now
        except (ConnectionError, ssl.SSLError) as error:
            raise httpcore.WriteError(str(error)) from error  # httpcore then reads the early answer

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        name = (server_hostname or "").rstrip(".")  # the dot belongs to DNS; certificates have none
        with contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            wrapped = ssl_context.wrap_socket(self._socket, server_hostname=name, do_handshake_on_connect=False)
            undo.callback(wrapped.close)
            secured = Stream(wrapped, self._abort_handle)
            secured._attempt(wrapped.do_handshake, select.POLLIN)
            undo.pop_all()
        return secured

    def get_extra_info(self, info: str) -> Any:
        """Return whether an idle connection is readable: the target has closed it."""
        if info != "is_readable":
            return None
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))

    def _attempt(self, call: Callable[[], Result], events: int) -> Result:
        """Return the result of *call*, after as many waits as it needs."""
        while True:
            self._abort_handle.check()  # a peer that always sends would otherwise never reach the deadline
            try:
                return call()
            except ssl.SSLWantReadError:
                self._abort_handle.wait(self._socket, select.POLLIN)
            except ssl.SSLWantWriteError:
                self._abort_handle.wait(self._socket, select.POLLOUT)
            except BlockingIOError:
                self._abort_handle.wait(self._socket, events)


class PinnedBackend(httpcore.NetworkBackend):
    """Connects to checked addresses of a host.

    The address of the last connection comes first.
    """

    def __init__(self, allowlist: Allowlist, abort_handle: AbortHandle) -> None:
        self._allowlist = allowlist
        self._abort_handle = abort_handle
        self._last_good: Endpoint | None = None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> Stream:
        """Return a connection to *host*.

        Raises TargetForbidden, TargetUnresolvable, DeliveryCancelled, OSError.
        """
        endpoints = sorted(self._allowlist.resolve(host, port), key=lambda endpoint: endpoint != self._last_good)
        problem = OSError("has no address")
        for count_left in range(len(endpoints), 0, -1):
            endpoint = endpoints[-count_left]
            # Each remaining address gets an equal share of the time, and the answer gets one share.
            share_secs = self._abort_handle.remaining_secs / (count_left + 1)
            try:
                connected = self._connect(endpoint, min(CONNECT_SECS, share_secs))
            except OSError as error:
                problem = error
            else:
                self._last_good = endpoint
                return Stream(connected, self._abort_handle)
        raise problem

    def _connect(self, endpoint: Endpoint, secs: float) -> socket.socket:
        connecting = socket.socket(endpoint.family, socket.SOCK_STREAM)
        with contextlib.ExitStack() as undo:
            undo.callback(connecting.close)
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connecting.setblocking(False)
            code = connecting.connect_ex(endpoint.sockaddr)
            if code == errno.EINPROGRESS:
                self._abort_handle.wait(connecting, select.POLLOUT, secs)
                code = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            undo.pop_all()
        return connecting
