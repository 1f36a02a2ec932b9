"""The worker: gunicorn's threads, told what to do when the system has no descriptor or no thread left for a client.

gunicorn's own would end, or answer nobody any more, and take every viewer with it. This one says 503 to whoever comes,
and keeps whom it has.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from gunicorn.workers.gthread import ThreadWorker

from outfeed import clock
from outfeed.web.problems import RETRY_AFTER_SECS
from outfeed.web.shortages import DESCRIPTORS, THREADS

# Left free for what is being served: SQLite's files, selectors.
SPARE_DESCRIPTORS = 8
# A request that is refused is read first: with bytes unread, a close becomes a reset, and the refusal is lost. Where
# descriptors allow it, what comes late has longer.
_PATIENCE_MS = 20
LINGER_SECS = 1.0
# For the first request of a connection. Between two it may be idle for longer: KEEPALIVE_SECS.
FIRST_REQUEST_SECS = 5.0
# Longer than proxies and clients keep an idle connection: if we hung up first, a request on its way would be lost.
KEEPALIVE_SECS = 75
_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
log = logging.getLogger(__name__)


class OutOfThreads(Exception):
    """Nothing was begun: no thread is free, and the system gives us no other."""


class Threads(ThreadPoolExecutor):
    """Threads for requests. `submit` is called by the main thread alone; `_lock` guards `_unfinished`.

    How many have nothing to do is counted here: before Python 3.12 the executor's own count grows with everything that
    had to wait, and a request would be left to threads that are all busy, some of them for days.
    """

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers)
        self._lock = threading.Lock()
        self._unfinished = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have *fn* called on a thread. Raises OutOfThreads."""
        if self._unfinished >= len(self._threads):
            self._start_one()
        with self._lock:
            self._unfinished += 1
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._note_finished)
        return future

    def _start_one(self) -> None:
        while self._idle_semaphore.acquire(timeout=0):
            pass
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:  # "can't start new thread"
            raise OutOfThreads from error

    def _adjust_thread_count(self) -> None:
        """Do nothing: `submit` has seen to it before there is anything to take back."""

    def _note_finished(self, _: Future[Any]) -> None:
        with self._lock:
            self._unfinished -= 1


class Worker(ThreadWorker):
    """A gthread worker that outlives a shortage, and sends its WebSockets away as soon as it is told to stop."""

    number = 0  # the master gives it
    _reserve: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refused: deque[Any] = deque()  # told so, and not closed yet

    def get_thread_pool(self) -> Threads:
        return Threads(self.cfg.threads)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Send everyone away, by the loop: a signal may have interrupted who holds the hub's lock, or this handler."""
        if self.booted and self.alive:
            self.method_queue.defer(self.wsgi.extensions["outfeed"].hub.close)
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """As for SIGTERM: gunicorn's own, for Ctrl-C, would wait for every viewer's thread until it is killed."""
        self.handle_exit(sig, frame)

    def murder_keepalived(self) -> None:
        self._hurry(self.keepalived_conns)
        super().murder_keepalived()

    def murder_pending(self) -> None:
        self._hurry(self.pending_conns)
        super().murder_pending()
        self._hurry(self._refused)
        while self._refused and self._refused[0].timeout <= clock.monotonic():
            self._drop(self._refused.popleft())

    def _hurry(self, connections: Iterable[Any]) -> None:
        """Once told to stop, wait for no client that has asked nothing: each would hold us up for seconds."""
        if not self.alive:
            for connection in connections:
                connection.timeout = 0

    def accept(self, listener: Any) -> None:
        self._keep_reserve()
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in _NONE_LEFT:
                raise
            self._turn_away(listener)

    def enqueue_req(self, conn: Any) -> None:
        if conn.sock.fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS:
            self._say_unavailable(conn.sock, DESCRIPTORS)
            self._drop(conn)
            return
        try:
            super().enqueue_req(conn)
        except OutOfThreads:
            if not (has_asked(conn.sock) or _has_read_on(conn)):
                self._await_request(conn)
                return
            self._say_unavailable(conn.sock, THREADS)
            conn.timeout = clock.monotonic() + LINGER_SECS
            self._refused.append(conn)

    def _await_request(self, conn: Any) -> None:
        """Wait as for one who is slow: an answer that comes before the question, a client may not take for one."""
        conn.sock.setblocking(False)
        conn.timeout = clock.monotonic() + FIRST_REQUEST_SECS
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """Go on with what was read too far; gunicorn's own would wait for the socket, which has nothing more to say.

        The next request comes with the end of the one before, where that was answered before its body was read.
        """
        is_kept = self.alive and not fs.cancelled() and fs.exception() is None and fs.result() is True
        if is_kept and _has_read_on(conn):
            self.enqueue_req(conn)
            return
        super().finish_request(conn, fs)
        if self.pending_conns and self.pending_conns[-1] is conn:
            conn.timeout = clock.monotonic() + FIRST_REQUEST_SECS

    def _drop(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()

    def _keep_reserve(self) -> None:
        if self._reserve is None:
            with suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _turn_away(self, listener: Any) -> None:
        """Take the client in on the descriptor that was kept for that, to tell it that there is no other."""
        if self._reserve is None:
            time.sleep(_PATIENCE_MS / 1000)  # the selector would return at once, again and again
            return
        os.close(self._reserve)
        self._reserve = None
        with suppress(OSError):
            client, _ = listener.accept()
            with client:
                self._say_unavailable(client, DESCRIPTORS)
        self._keep_reserve()

    def _say_unavailable(self, client: socket.socket, what: str) -> None:
        self.wsgi.extensions["outfeed"].shortages.note(what)
        detail = f"the server is out of {what}; nothing was done, try again"
        body = orjson.dumps(
            {
                "type": "about:blank",
                "title": "Service Unavailable",
                "status": 503,
                "detail": detail,
                "problems": [detail],
            }
        )
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: {RETRY_AFTER_SECS}\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        client.setblocking(False)
        if has_asked(client, _PATIENCE_MS):
            with suppress(OSError):
                client.recv(1 << 20)
        with suppress(OSError):
            client.send(head.encode() + body)
            client.shutdown(socket.SHUT_WR)


def _has_read_on(conn: Any) -> bool:
    """Return whether something of the client's was read, and not looked at yet."""
    return conn.parser is not None and conn.parser.unreader.buf.getbuffer().nbytes > 0


def has_asked(client: socket.socket, patience_ms: int = 0) -> bool:
    """Return whether something of the client's is there to be read, within *patience_ms*."""
    poller = select.poll()
    poller.register(client, select.POLLIN)
    return bool(poller.poll(patience_ms))
