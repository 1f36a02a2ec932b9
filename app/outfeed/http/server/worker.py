"""The worker: gunicorn's threads behind a main loop for slow clients.

gunicorn's own worker holds a thread for each client from the first byte of a request to the last byte of its response.
Here the main loop collects a request without blocking, a thread serves it once it is complete, and the main loop sends
the rest of the response. A request that waits for an event leaves its thread, and is served again after the wait
(http/parking.py). This is the only module that overrides gunicorn.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import resource
import selectors
import socket
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import ThreadWorker

from outfeed import clock
from outfeed.http.problems import RETRY_AFTER_SECS
from outfeed.http.proxies import membership
from outfeed.http.server.assembly import CONTINUE
from outfeed.http.server.exhaustion import DESCRIPTORS
from outfeed.http.server.incoming import NONBLOCKING, UNREAD_SECS, ClientSocket, Connection, Incomplete
from outfeed.http.server.parked import ParkedConnections, ParkedRequest
from outfeed.http.server.raw_problems import problem_of, raw_problem
from outfeed.http.server.request_queue import RequestQueue
from outfeed.log_message import LogMessage
from outfeed.process import REQUESTS_AT_ONCE, idle_connections, incomplete_connections

# Descriptors kept free for running requests: SQLite's files, selectors.
SPARE_DESCRIPTORS = 8
# Between two attempts to accept while even the reserved descriptor is in use.
_ACCEPT_RETRY_SECS = 0.02
# Until the first byte of a connection. Between two requests a connection may be idle for KEEPALIVE_SECS.
FIRST_REQUEST_SECS = 5.0
# From the first byte of a request to the last byte of its body.
REQUEST_SECS = 10.0
# Longer than proxies and clients keep an idle connection. If the server closed it first, a request in flight would
# be lost.
KEEPALIVE_SECS = 75
# For unfinished requests and responses after the worker receives a signal to stop.
STOP_SECS = 1.0
# The total of all incomplete requests.
MAX_HELD_BYTES = 64 * 2**20
_READ_BYTES = 64 * 1024
_ACCEPTS_AT_ONCE = 16
_CHECK_SECS = 0.5
_HEALTH_PATH = "/healthz"
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
log = logging.getLogger(__name__)


class Worker(ThreadWorker):
    """A gthread worker whose threads serve complete requests only.

    It closes its WebSockets on a signal to stop. A connection is in one place at a time: idle between two requests
    (gunicorn's `keepalived_conns`), in `_incomplete`, in `_ready`, with a thread, or in `_parked`. Only the main loop
    moves it.
    """

    number = 0  # the master sets it
    _reserve: int | None = None
    _incomplete: Incomplete
    _health_paths: tuple[str, str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ready: RequestQueue[Connection] = RequestQueue()
        self._served: set[Connection] = set()  # connections with a thread that are not admitted as open connections
        self._parked: ParkedConnections[Connection] = ParkedConnections()
        self._woken: deque[ParkedRequest] = deque()
        self._is_wake_deferred = False
        self._health_thread = ThreadPoolExecutor(1, "health")

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Return the thread pool, after a check that all its threads can start.

        The check starts every thread and ends them. If the system allows fewer, the worker fails to start. The pool
        starts its threads again as clients connect: with a thousand idle threads, bursts to 500 clients were half as
        fast.
        """
        all_run = threading.Barrier(self.cfg.threads + 2)
        with ThreadPoolExecutor(self.cfg.threads, "probe") as probe:
            try:
                self._health_thread.submit(all_run.wait)
                for _ in range(self.cfg.threads):
                    probe.submit(all_run.wait)
            except RuntimeError as error:  # "can't start new thread"
                all_run.abort()
                log.critical(
                    "OUTFEED_MAX_CONNECTIONS needs %d threads a worker and the system allows fewer; lower it, or"
                    " raise the limit (`ulimit -u`, TasksMax=, pids.max)",
                    self.cfg.threads,
                )
                raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from error
            all_run.wait()
        return ThreadPoolExecutor(self.cfg.threads, "request")

    def run(self) -> None:
        settings = self.wsgi.extensions["outfeed"].settings
        self._health_paths = (_HEALTH_PATH, settings.prefix + _HEALTH_PATH)
        self.max_keepalived = idle_connections(settings.max_connections)
        self._incomplete = Incomplete(
            incomplete_connections(settings.max_connections),
            settings.max_incomplete_per_ip,
            MAX_HELD_BYTES,
            membership(settings.trusted_proxies),
        )
        super().run()

    # --- stop ---------------------------------------------------------------------------------------------------------

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Close every WebSocket, from the main loop.

        A signal may interrupt a thread that holds the hub's lock, or this handler itself, so the handler takes no lock.
        """
        if self.booted and self.alive:
            self.method_queue.defer(self.wsgi.extensions["outfeed"].hub.close)
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Handle SIGINT like SIGTERM.

        gunicorn's own handler waits for every viewer's thread until the worker is killed.
        """
        self.handle_exit(sig, frame)

    def murder_keepalived(self) -> None:
        if not self.alive:
            for conn in self.keepalived_conns:
                conn.timeout = 0
        super().murder_keepalived()

    def murder_pending(self) -> None:
        """Close the connections whose deadline has passed."""
        now = clock.monotonic()
        if not self.alive:
            self._incomplete.shorten_deadlines(now + STOP_SECS)
        for conn in self._incomplete.overdue(now):
            self._note_refusal("unread_answer" if conn.events & selectors.EVENT_WRITE else "slow_request", conn)
            self._drop(conn)
        for conn in self._parked.overdue(now if self.alive else math.inf):
            self._resume(conn)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        secs_to_resume = max(0.0, self._parked.next_time() - clock.monotonic())
        super().wait_for_and_dispatch_events(min(timeout, _CHECK_SECS, secs_to_resume))

    # --- receive a request --------------------------------------------------------------------------------------------

    def accept(self, listener: Any) -> None:
        """Accept waiting clients, several at a time.

        Each round of the loop costs a wait for Python's global lock.
        """
        self._open_reserve()
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                client, peer = listener.accept()
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ECONNABORTED):
                    return
                if error.errno not in _SHORTAGES:
                    raise
                if not self._free_reserve():
                    time.sleep(_ACCEPT_RETRY_SECS)  # otherwise the selector would return at once in a loop
                    return
            else:
                self._accept_connection(client, peer, listener.getsockname())

    def _accept_connection(self, client: socket.socket, peer: Any, server: Any) -> None:
        self.nr_conns += 1
        sock = ClientSocket(client, self._on_admitted, self._on_woken)
        conn = Connection(self.cfg, sock, peer, server, self.wsgi.config["MAX_CONTENT_LENGTH"])
        conn.is_ending = self._reserve is None  # it has the last descriptor: its request is refused
        self._read(conn)

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._read(conn)

    def _read(self, conn: Connection) -> None:
        """Read the bytes that the client has sent, or notice its end."""
        try:
            data = conn.sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._await_request(conn)
            return
        except OSError:
            data = b""
        if not data:
            self._drop(conn)
        elif not conn.is_lingering:
            conn.assembly.feed(data)
            self._advance(conn)

    def _advance(self, conn: Connection) -> None:
        """Serve the next request if it is complete, else wait for the rest."""
        if conn.assembly.advance():
            self._dispatch(conn)
            return
        if conn.assembly.expects_continue():
            with suppress(OSError):
                conn.sock.send(CONTINUE, NONBLOCKING)
        self._await_request(conn)

    def _await_request(self, conn: Connection) -> None:
        now = clock.monotonic()
        if conn.began is None and conn.assembly:
            conn.began = now
        if conn.began is not None:
            self._wait(conn, selectors.EVENT_READ, conn.began + REQUEST_SECS)
        elif conn not in self._incomplete:
            self._wait(conn, selectors.EVENT_READ, now + FIRST_REQUEST_SECS)

    def _dispatch(self, conn: Connection) -> None:
        """Serve the complete request now, or queue it."""
        self._incomplete.remove(conn)
        self._watch(conn, 0)
        conn.began = None
        conn.request = conn.assembly.take()
        if conn.is_ending or conn.sock.fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS:
            conn.is_ending = True
            with suppress(OSError):
                conn.sock.sendall(self._unavailable())
            self._send_rest(conn)
        elif getattr(conn.request, "path", None) in self._health_paths:
            self._submit(self._health_thread, conn)
        else:
            self._ready.put(conn)
            self._serve_next()

    # --- serve it -----------------------------------------------------------------------------------------------------

    def _serve_next(self) -> None:
        while self._ready and self._has_capacity():
            conn = self._ready.take()
            self._served.add(conn)
            self._submit(self.tpool, conn)

    def _has_capacity(self) -> bool:
        """Return whether fewer than REQUESTS_AT_ONCE requests are served.

        Open connections (http/limits.py) do not count.
        """
        if len(self._served) >= REQUESTS_AT_ONCE:
            self._served = {conn for conn in self._served if not conn.sock.is_admitted}
        return len(self._served) < REQUESTS_AT_ONCE

    def _on_admitted(self) -> None:
        """Serve a queued request, if one waits.

        The request's thread calls this, and wakes the main loop only if a request is queued.
        """
        if self._ready:
            self.method_queue.defer(self._serve_next)

    def _submit(self, pool: ThreadPoolExecutor, conn: Connection) -> None:
        # If no thread can start, the request is in the pool's queue and waits for another thread.
        with suppress(RuntimeError):
            pool.submit(self._serve, conn)

    def _serve(self, conn: Connection) -> None:
        is_kept = False
        try:
            is_kept = self.handle(conn) is True
        finally:
            if conn.sock.parked is None:
                self.method_queue.defer(self._finish, conn, is_kept)
            else:
                self.method_queue.defer(self._park, conn, conn.sock.parked)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a malformed request with a problem.

        gunicorn's own answer is HTML.
        """
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        log.warning(LogMessage("invalid request", address=addr[0], error=exc))
        with suppress(OSError):
            client.sendall(problem_of(exc))

    # --- let it wait --------------------------------------------------------------------------------------------------

    def _park(self, conn: Connection, parked: ParkedRequest) -> None:
        self._served.discard(conn)
        self._serve_next()
        self._parked.put(parked, conn, parked.deadline)
        self._watch(conn, selectors.EVENT_READ)
        if parked.is_woken:
            self._wake(parked)

    def _on_woken(self, parked: ParkedRequest) -> None:
        """Have the main loop serve *parked* again.

        The relay's thread calls this for each request that an event wakes. Only the first call wakes the main loop.
        """
        self._woken.append(parked)
        if not self._is_wake_deferred:
            self._is_wake_deferred = True
            self.method_queue.defer(self._wake_all)

    def _wake_all(self) -> None:
        self._is_wake_deferred = False  # first: a request that is added from now on defers another call
        while self._woken:
            self._wake(self._woken.popleft())

    def _wake(self, parked: ParkedRequest) -> None:
        """Serve *parked* again, unless that is too early or its client left.

        A request that is woken before it is parked is served again by `_park`.
        """
        conn = self._parked.get(parked)
        if conn is None:
            return
        if self.alive and parked.not_before > clock.monotonic():
            self._parked.put(parked, conn, parked.not_before)
        else:
            self._resume(conn)

    def _resume(self, conn: Connection) -> None:
        self._unpark(conn)
        conn.sock.resume()
        self._ready.put_resumed(conn)
        self._serve_next()

    def _unpark(self, conn: Connection) -> ParkedRequest:
        parked = conn.sock.parked
        assert parked is not None
        self._parked.remove(parked)
        self._watch(conn, 0)
        parked.unregister()
        return parked

    def _notice_end(self, conn: Connection) -> None:
        """Drop the parked connection if its client has disconnected.

        Bytes of a further request stay in the kernel. They hide the client's end until this request is answered.
        """
        try:
            is_open = bool(conn.sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
        except BlockingIOError:
            return
        except OSError:
            is_open = False
        if is_open:
            self._watch(conn, 0)
        else:
            self._unpark(conn).slot.release()
            self._drop(conn)

    # --- send the response --------------------------------------------------------------------------------------------

    def _finish(self, conn: Connection, is_kept: bool) -> None:
        conn.request = conn.sock.resumed = None
        if conn.sock.gave_up:
            self._note_refusal("unread_answer", conn)
        self._served.discard(conn)
        conn.sock.is_admitted = False
        self._serve_next()
        conn.is_ending = not (self.alive and is_kept)
        self._send_rest(conn)

    def _send_rest(self, conn: Connection, *, is_writable: bool = False) -> None:
        """Send the unsent bytes, then serve the next request or close.

        A request that arrived before the client has received the last response waits until the client has.
        """
        try:
            is_sent = conn.sock.flush()
        except OSError:
            self._drop(conn)
            return
        is_pipelined = not conn.is_ending and len(conn.assembly) > 0
        if is_pipelined:
            conn.sock.defer_writable()
        if not is_sent or (is_pipelined and not is_writable):
            self._wait(conn, selectors.EVENT_WRITE, clock.monotonic() + UNREAD_SECS)
        elif conn.is_ending:
            self._end(conn)
        elif is_pipelined:
            self._advance(conn)
        else:
            self._keep_idle(conn)

    def _keep_idle(self, conn: Connection) -> None:
        self._incomplete.remove(conn)
        self._watch(conn, 0)
        conn.set_timeout()
        self.keepalived_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def _end(self, conn: Connection) -> None:
        """Close the connection, after the rest of what the client may send.

        Otherwise a reset would destroy the response.
        """
        if not conn.assembly.is_cut:
            self._drop(conn)
            return
        with suppress(OSError):
            conn.sock.shutdown(socket.SHUT_WR)
        conn.is_lingering = True
        self._wait(conn, selectors.EVENT_READ, clock.monotonic() + REQUEST_SECS)

    # --- wait for sockets ---------------------------------------------------------------------------------------------

    def _wait(self, conn: Connection, events: int, deadline: float) -> None:
        """Wait for *conn*.

        This closes other connections if they exceed the limits.
        """
        self._watch(conn, events)
        for other in self._incomplete.put(conn, deadline):
            self._note_refusal("incomplete_requests", other)
            self._drop(other)

    def _watch(self, conn: Connection, events: int) -> None:
        if events != conn.events:
            if conn.events:
                self.poller.unregister(conn.sock)
            if events:
                self.poller.register(conn.sock, events, partial(self._on_ready, conn))
            conn.events = events

    def _on_ready(self, conn: Connection, _: socket.socket) -> None:
        if conn.sock.parked in self._parked:
            self._notice_end(conn)
            return
        if conn not in self._incomplete:
            return  # an earlier event of this round closed it
        if conn.events & selectors.EVENT_WRITE:
            self._send_rest(conn, is_writable=True)
        else:
            self._read(conn)

    def _note_refusal(self, reason: str, conn: Connection) -> None:
        self.wsgi.extensions["outfeed"].metrics.note_refusal(reason, address=conn.address)

    def _drop(self, conn: Connection) -> None:
        self._incomplete.remove(conn)
        self._watch(conn, 0)
        self.nr_conns -= 1
        conn.close()

    # --- out of descriptors -------------------------------------------------------------------------------------------

    def _open_reserve(self) -> None:
        """Open the reserved descriptor, for a client that gets the last 503."""
        if self._reserve is None:
            with suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _free_reserve(self) -> bool:
        """Free the reserved descriptor for the next client.

        Returns False if a client uses it already.
        """
        if self._reserve is None:
            return False
        os.close(self._reserve)
        self._reserve = None
        return True

    def _unavailable(self) -> bytes:
        """Return the 503 for a shortage of descriptors, and note the shortage."""
        self.wsgi.extensions["outfeed"].exhaustion.note(DESCRIPTORS)
        detail = f"the server is out of {DESCRIPTORS}; the request had no effect, retry it"
        return raw_problem(503, detail, {"Retry-After": str(RETRY_AFTER_SECS)}, problems=[detail])
