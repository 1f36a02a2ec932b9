"""The worker: gunicorn's threads, behind a main loop that waits for slow clients in their place.

gunicorn's own worker lends a thread to each client from the first byte of a request to the last byte of its answer.
Here the main loop collects a request without blocking, a thread serves it once it is complete, and the main loop sends
what the client has not taken. This is the one place that overrides gunicorn.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import selectors
import socket
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
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
from outfeed.http.server.incoming import UNREAD_SECS, ClientSocket, Connection, Incomplete
from outfeed.http.server.raw_problems import problem_of, raw_problem
from outfeed.log_message import LogMessage
from outfeed.process import REQUESTS_AT_ONCE, idle_connections, incomplete_connections

# Left free for what is being served: SQLite's files, selectors.
SPARE_DESCRIPTORS = 8
# Between two attempts to accept while no descriptor is left, not even the reserved one.
_PATIENCE_SECS = 0.02
# For the first byte of a connection. Between two requests it may be idle for longer: KEEPALIVE_SECS.
FIRST_REQUEST_SECS = 5.0
# From the first byte of a request to the last byte of its body.
REQUEST_SECS = 10.0
# Longer than proxies and clients keep an idle connection: if we hung up first, a request on its way would be lost.
KEEPALIVE_SECS = 75
# For requests and answers on their way when the worker is told to stop.
STOP_SECS = 1.0
# Of all incomplete requests together.
MAX_HELD_BYTES = 64 * 2**20
_READ_BYTES = 64 * 1024
_ACCEPT_AT_ONCE = 16
_LOOK_SECS = 0.5
_HEALTH_PATH = "/healthz"
_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
log = logging.getLogger(__name__)


class Worker(ThreadWorker):
    """A gthread worker whose threads serve complete requests only. It closes its WebSockets when it is told to stop.

    A connection is in one place at a time: idle between two requests (gunicorn's `keepalived_conns`), in `_incomplete`,
    in `_ready`, or with a thread. Only the main loop moves it.
    """

    number = 0  # the master gives it
    _reserve: int | None = None
    _incomplete: Incomplete
    _health_paths: tuple[str, str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ready: deque[Connection] = deque()  # complete, and waiting for their turn
        self._served: set[Connection] = set()  # with a thread, and not admitted as open connections
        self._health_thread = ThreadPoolExecutor(1, "health")

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Start every thread that may ever be needed, and end them: a shortage ends the start of the worker.

        Threads start again as clients come. With a thousand idle ones, bursts to 500 clients were half as fast.
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
                    "OUTFEED_MAX_CONNECTIONS needs %d threads a worker and the system does not give them; lower it, or"
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

    # --- told to stop -------------------------------------------------------------------------------------------------

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Send everyone away, by the loop: a signal may have interrupted who holds the hub's lock, or this handler."""
        if self.booted and self.alive:
            self.method_queue.defer(self.wsgi.extensions["outfeed"].hub.close)
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """As for SIGTERM: gunicorn's own, for Ctrl-C, would wait for every viewer's thread until it is killed."""
        self.handle_exit(sig, frame)

    def murder_keepalived(self) -> None:
        if not self.alive:
            for conn in self.keepalived_conns:
                conn.timeout = 0
        super().murder_keepalived()

    def murder_pending(self) -> None:
        """Close the connections that the main loop has waited for long enough."""
        now = clock.monotonic()
        if not self.alive:
            self._incomplete.hurry(now + STOP_SECS)
        for conn in self._incomplete.late(now):
            self._note_refusal("unread_answer" if conn.events & selectors.EVENT_WRITE else "slow_request", conn)
            self._drop(conn)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        super().wait_for_and_dispatch_events(min(timeout, _LOOK_SECS))

    # --- a request comes in -------------------------------------------------------------------------------------------

    def accept(self, listener: Any) -> None:
        """Accept those who wait, some at a time: each round of the loop costs a wait for Python's lock."""
        self._keep_reserve()
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                client, peer = listener.accept()
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ECONNABORTED):
                    return
                if error.errno not in _NONE_LEFT:
                    raise
                if not self._give_reserve():
                    time.sleep(_PATIENCE_SECS)  # the selector would return at once, again and again
                    return
            else:
                self._take_in(client, peer, listener.getsockname())

    def _take_in(self, client: socket.socket, peer: Any, server: Any) -> None:
        self.nr_conns += 1
        sock = ClientSocket(client, self._on_admitted)
        conn = Connection(self.cfg, sock, peer, server, self.wsgi.config["MAX_CONTENT_LENGTH"])
        conn.is_ending = self._reserve is None  # it has the last descriptor: its request is refused
        self._read(conn)

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._read(conn)

    def _read(self, conn: Connection) -> None:
        """Take what the client has sent, or its end."""
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
            self._go_on(conn)

    def _go_on(self, conn: Connection) -> None:
        """Serve the next request if it is complete, else wait for the rest."""
        if conn.assembly.advance():
            self._hand_on(conn)
            return
        if conn.assembly.expects_continue():
            with suppress(OSError):
                conn.sock.send(CONTINUE, _AT_ONCE)
        self._await_request(conn)

    def _await_request(self, conn: Connection) -> None:
        now = clock.monotonic()
        if conn.began is None and conn.assembly:
            conn.began = now
        if conn.began is not None:
            self._wait(conn, selectors.EVENT_READ, conn.began + REQUEST_SECS)
        elif conn not in self._incomplete:
            self._wait(conn, selectors.EVENT_READ, now + FIRST_REQUEST_SECS)

    def _hand_on(self, conn: Connection) -> None:
        """Have the complete request served: at once, or when it is its turn."""
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
            self._ready.append(conn)
            self._serve_next()

    # --- it is served -------------------------------------------------------------------------------------------------

    def _serve_next(self) -> None:
        while self._ready and self._has_place():
            conn = self._ready.popleft()
            self._served.add(conn)
            self._submit(self.tpool, conn)

    def _has_place(self) -> bool:
        """Return whether fewer than REQUESTS_AT_ONCE are served; open connections (http/limits.py) do not count."""
        if len(self._served) >= REQUESTS_AT_ONCE:
            self._served = {conn for conn in self._served if not conn.sock.is_admitted}
        return len(self._served) < REQUESTS_AT_ONCE

    def _on_admitted(self) -> None:
        """Look again for a place; called by the request's thread, which wakes the main loop only if one waits."""
        if self._ready:
            self.method_queue.defer(self._serve_next)

    def _submit(self, pool: ThreadPoolExecutor, conn: Connection) -> None:
        served: Future[Any] = Future()
        served.add_done_callback(partial(self.method_queue.defer, self.finish_request, conn))
        # Without a new thread the request is in the queue all the same, and waits for one of the others.
        with suppress(RuntimeError):
            pool.submit(self._serve, conn, served)

    def _serve(self, conn: Connection, served: Future[Any]) -> None:
        try:
            served.set_result(self.handle(conn))
        except BaseException as error:  # noqa: BLE001 - handed on: `finish_request` closes the connection
            served.set_exception(error)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that can't be parsed as the app answers errors: gunicorn's own answer is HTML."""
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        log.warning(LogMessage("invalid request", address=addr[0], error=exc))
        with suppress(OSError):
            client.sendall(problem_of(exc))

    # --- its answer goes out ------------------------------------------------------------------------------------------

    def finish_request(self, conn: Connection, fs: Future[Any]) -> None:
        if conn.sock.gave_up:
            self._note_refusal("unread_answer", conn)
        self._served.discard(conn)
        conn.sock.is_admitted = False
        self._serve_next()
        is_kept = self.alive and not fs.cancelled() and fs.exception() is None and fs.result() is True
        conn.is_ending = not is_kept
        self._send_rest(conn)

    def _send_rest(self, conn: Connection, *, is_writable: bool = False) -> None:
        """Send what the client has not taken; once it has all, go on to its next request, or close.

        A request that came before the last answer was taken waits until the client has taken it.
        """
        try:
            is_sent = conn.sock.flush()
        except OSError:
            self._drop(conn)
            return
        is_pipelined = not conn.is_ending and len(conn.assembly) > 0
        if is_pipelined:
            conn.sock.hold_back()
        if not is_sent or (is_pipelined and not is_writable):
            self._wait(conn, selectors.EVENT_WRITE, clock.monotonic() + UNREAD_SECS)
        elif conn.is_ending:
            self._end(conn)
        elif is_pipelined:
            self._go_on(conn)
        else:
            self._idle(conn)

    def _idle(self, conn: Connection) -> None:
        self._incomplete.remove(conn)
        self._watch(conn, 0)
        conn.set_timeout()
        self.keepalived_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def _end(self, conn: Connection) -> None:
        """Close the connection; if the client may still send, read on first, or a reset would destroy the answer."""
        if not conn.assembly.is_cut:
            self._drop(conn)
            return
        with suppress(OSError):
            conn.sock.shutdown(socket.SHUT_WR)
        conn.is_lingering = True
        self._wait(conn, selectors.EVENT_READ, clock.monotonic() + REQUEST_SECS)

    # --- what the loop waits for --------------------------------------------------------------------------------------

    def _wait(self, conn: Connection, events: int, deadline: float) -> None:
        """Wait for *conn*; another connection may have to be closed for it."""
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
        if conn not in self._incomplete:
            return  # closed by what the loop did just now
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

    # --- no descriptor is left ----------------------------------------------------------------------------------------

    def _keep_reserve(self) -> None:
        """Open the descriptor that is reserved for telling one client that no other is left."""
        if self._reserve is None:
            with suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_reserve(self) -> bool:
        """Free the reserved descriptor for the next client; return False if a client has it already."""
        if self._reserve is None:
            return False
        os.close(self._reserve)
        self._reserve = None
        return True

    def _unavailable(self) -> bytes:
        """Return the 503 for want of descriptors, and note the shortage."""
        self.wsgi.extensions["outfeed"].exhaustion.note(DESCRIPTORS)
        detail = f"the server is out of {DESCRIPTORS}; nothing was done, try again"
        return raw_problem(503, detail, {"Retry-After": str(RETRY_AFTER_SECS)}, problems=[detail])
