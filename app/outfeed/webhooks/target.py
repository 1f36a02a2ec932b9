"""Targets: posting to a URL somebody gave us, bounded in time, answer and place."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import logging
import os
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from datetime import UTC
from http import HTTPStatus
from typing import Any, NamedTuple

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError, NewConnectionError
from urllib3.util import Url, parse_url

from outfeed import clock
from outfeed.errors import OutfeedError
from outfeed.webhooks.addresses import Allowlist, Endpoint

CONNECT_SECS = 5.0
READ_SECS = 15.0
TOTAL_SECS = 20.0
# An answer is read so that the connection can serve again; what is longer than this is not worth it.
MAX_ANSWER_BYTES = 16 * 1024
MAX_URL_CHARS = 2000
_WAITS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_HEADERS = {"content-type": "application/json", "user-agent": "outfeed"}


class Answer(NamedTuple):
    """What became of a post: a *status*, or an *error*. *retry_after_secs* where the target asked for that."""

    status: int | None
    error: str | None = None
    retry_after_secs: float | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether the target took it over: any 2xx, nothing else."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """Whether the target wants nothing more, ever."""
        return self.status == HTTPStatus.GONE

    def __str__(self) -> str:
        return self.error or f"the target answered {self.status}"


class Target:
    """One URL. `post` belongs to one thread; `cut` may be called by any, and ends a post that is at work.

    Addresses are checked for each connection, and the connection goes to the address that was checked; TLS is proved
    against the URL's name. Redirects are not followed. `_lock` guards `_brake` and `_is_cut`.
    """

    def __init__(self, url: str, allowlist: Allowlist, *, total_secs: float = TOTAL_SECS) -> None:
        self._url = check_url(url)
        self._allowlist = allowlist
        self._total_secs = total_secs
        self._lock = threading.Lock()
        self._is_cut = False
        self._brake: socket.socket | None = None
        self._is_connected = False
        self._overdue = threading.Event()
        self._pool = self._make_pool()
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings name the URL, which may hold a secret

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post *body* once and return what became of it; within TOTAL_SECS, but for a look-up of the name."""
        self._overdue = overdue = threading.Event()
        timer = threading.Timer(self._total_secs, self._give_up, [overdue])
        timer.name, timer.daemon = "outfeed-webhook-timer", True
        timer.start()
        try:
            return self._post(body, headers)
        except (HTTPError, OSError, OutfeedError) as error:
            return Answer(None, f"no answer within {self._total_secs:g} s" if overdue.is_set() else _reason(error))
        finally:
            timer.cancel()
            if not self._is_connected:
                self._keep_brake(None)

    def cut(self) -> None:
        """End the post that is at work, and refuse every later one."""
        with self._lock:
            self._is_cut = True
        self._pull_brake()

    def close(self) -> None:
        """Close the connection that is kept for the next post."""
        self._pool.close()
        self._keep_brake(None)

    def _make_pool(self) -> HTTPConnectionPool:
        host, port = str(self._url.host), self._url.port
        bounds: dict[str, Any] = {"maxsize": 1, "block": True, "target": self}
        if self._url.scheme == "https":
            return _SecurePool(host, port, ssl_context=ssl.create_default_context(), **bounds)
        return _Pool(host, port, **bounds)

    def _post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        response = self._pool.urlopen(
            "POST", self._url.request_uri, body=body, headers={**_HEADERS, **headers},
            timeout=Timeout(connect=CONNECT_SECS, read=READ_SECS),
            retries=False, redirect=False, preload_content=False, decode_content=False,
        )  # fmt: skip
        # The status stands, whatever comes after it.
        with contextlib.suppress(HTTPError, OSError):
            if len(response.read(MAX_ANSWER_BYTES, decode_content=False)) == MAX_ANSWER_BYTES:
                response.close()
        response.release_conn()
        return Answer(response.status, retry_after_secs=_retry_after(response.status, response.headers))

    # --- for its connections ------------------------------------------------------------------------------------------

    def connect(self, host: str, port: int, timeout: float) -> socket.socket:
        """Return a socket connected to an address of *host* that was checked. Raises OutfeedError, OSError."""
        deadline = clock.monotonic() + timeout
        problem: OSError | None = None
        for endpoint in self._allowlist.resolve(host, port):
            try:
                return self._connect_to(endpoint, max(0.1, deadline - clock.monotonic()))
            except OSError as error:
                problem = error
        assert problem is not None
        raise problem

    def _connect_to(self, endpoint: Endpoint, timeout: float) -> socket.socket:
        connected = socket.socket(endpoint.family, socket.SOCK_STREAM)
        with contextlib.ExitStack() as undo:
            undo.callback(connected.close)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setblocking(False)
            # Begun before there is a brake: to pull it does nothing to a socket that hasn't set out.
            began = connected.connect_ex(endpoint.sockaddr)
            self._keep_brake(connected.dup())
            _await_connection(connected, began, timeout)
            connected.settimeout(timeout)
            undo.pop_all()
        self._is_connected = True
        return connected

    def disconnected(self) -> None:
        """Take notice that the connection is closed, though its last answer may still be read."""
        self._is_connected = False

    def _keep_brake(self, brake: socket.socket | None) -> None:
        """Remember a second handle of the connection: one that TLS doesn't take away, and other threads may use."""
        with self._lock:
            before, self._brake = self._brake, brake
            is_cut = self._is_cut
        if before is not None:
            before.close()
        if brake is not None and (is_cut or self._overdue.is_set()):
            raise OSError("called off")

    def _give_up(self, overdue: threading.Event) -> None:
        overdue.set()
        self._pull_brake()

    def _pull_brake(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._brake is not None:
                self._brake.shutdown(socket.SHUT_RDWR)


def _await_connection(connecting: socket.socket, began: int, timeout: float) -> None:
    """Wait until the socket is connected, *began* being what connect(2) said. Raises OSError."""
    if began == errno.EINPROGRESS:
        poller = select.poll()
        poller.register(connecting, select.POLLOUT)
        if not poller.poll(timeout * 1000):
            raise TimeoutError("timed out")
        began = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if began:
        raise OSError(began, os.strerror(began))
    connecting.getpeername()  # there is none where the brake was pulled


class _Checked(HTTPConnection):
    """A connection whose socket is made by its target."""

    def __init__(self, *args: Any, target: Target, **options: Any) -> None:
        super().__init__(*args, **options)
        self._target = target

    def _new_conn(self) -> socket.socket:
        assert isinstance(self.timeout, float)
        try:
            return self._target.connect(self.host, self.port, self.timeout)
        except OSError as error:
            # As urllib3's own does: it takes some bare ones for an answer that came early.
            raise NewConnectionError(self, str(error)) from error

    def close(self) -> None:
        super().close()
        self._target.disconnected()


class _SecureChecked(_Checked, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Checked


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureChecked


def check_url(url: str) -> Url:
    """Return the parts of a URL that can be posted to. Raises ValueError."""
    try:
        parsed = parse_url(url)
    except LocationParseError as error:
        raise ValueError(f"is no URL: {url!r:.200}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"must begin with http:// or https:// and a host, got {url!r:.200}")
    if parsed.auth:
        raise ValueError("must not hold a name or password; the signature says who sends")
    if len(url) > MAX_URL_CHARS:
        raise ValueError(f"has at most {MAX_URL_CHARS} characters")
    return parsed


def _retry_after(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, which may hold a date instead (RFC 9110 section 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if status not in _WAITS or not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - clock.now()).total_seconds())


def _reason(error: Exception) -> str:
    """Return what went wrong in few words: urllib3 wraps the error of the system, and names the URL."""
    inner: BaseException = error
    while True:
        nested = [each for each in (*inner.args, inner.__cause__) if isinstance(each, BaseException)]
        if isinstance(inner, OutfeedError) or not nested:
            break
        inner = nested[-1]
    text = str(getattr(inner, "strerror", None) or inner) or type(inner).__name__
    return " ".join(text.split())[:200]
