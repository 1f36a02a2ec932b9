"""`outfeed mcp`: forwards messages between stdin and stdout and a server.

One thread serves each request, so that a wait blocks no other request. It needs no database and no server's library.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx

from outfeed import clock
from outfeed.client.link import authorization
from outfeed.client.proxies import HTTP_PROXIES, open_http, through_proxy
from outfeed.gateways.mcp import headers

PARSE_ERROR, INTERNAL_ERROR = -32700, -32603  # of JSON-RPC
MAX_REQUESTS = 64  # at once
END_SECS = 1.0  # for the answers that are under way when stdin ends
# A wait takes 60 s at most, and a stream has a heartbeat every 60 s at most.
TIMEOUT = httpx.Timeout(90.0, connect=10.0)
MEDIA_TYPES = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
STREAM = "text/event-stream"


class Bridge:
    """Forwards each message of stdin to the server, and its answers to stdout.

    `_lock` guards stdout and the requests under way. *log* gets one sentence for each error.
    """

    def __init__(self, url: str, token: str | None, log: Callable[[str], None]) -> None:
        self._url = url
        self._log = log
        self._http = open_http(
            url, timeout=TIMEOUT, limits=httpx.Limits(), headers={**MEDIA_TYPES, **authorization(token)}
        )
        self._lock = threading.Lock()
        self._under_way: dict[str | int, threading.Event] = {}  # the events say that the client has cancelled
        self._threads: list[threading.Thread] = []

    def run(self, lines: Iterable[bytes]) -> None:
        """Forward every line; return when the input has ended."""
        for line in lines:
            if line.strip():
                self._take(line.strip())
        deadline = clock.monotonic() + END_SECS
        for thread in self._threads:
            thread.join(max(0.0, deadline - clock.monotonic()))
        with self._lock:  # a request that is still under way answers nothing any more
            for is_cancelled in self._under_way.values():
                is_cancelled.set()

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._refuse(None, PARSE_ERROR, f"the line is not JSON: {error}")
            return
        message = message if isinstance(message, dict) else {}
        if message.get("method") == "notifications/cancelled":
            self._cancel(message)
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= MAX_REQUESTS:
            self._refuse(_id_of(message), INTERNAL_ERROR, f"more than {MAX_REQUESTS} requests are under way")
            return
        thread = threading.Thread(target=self._forward, args=(line, message), name="mcp request", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _cancel(self, message: dict[str, Any]) -> None:
        params = message.get("params")
        with self._lock:
            found = self._under_way.get(_hashable(params.get("requestId") if isinstance(params, dict) else None))
        if found is not None:
            found.set()

    def _forward(self, line: bytes, message: dict[str, Any]) -> None:
        request_id, is_cancelled = _id_of(message), threading.Event()
        with self._lock:
            self._under_way[_hashable(request_id)] = is_cancelled
        try:
            self._exchange(line, message, is_cancelled)
        except httpx.RequestError as error:
            through = through_proxy(self._url, HTTP_PROXIES)
            reason = str(error) or type(error).__name__
            self._refuse(
                request_id,
                INTERNAL_ERROR,
                f"Outfeed at {self._url} does not answer{through} ({reason}); start it, or check OUTFEED_URL",
                is_cancelled,
            )
        finally:
            with self._lock:
                self._under_way.pop(_hashable(request_id), None)

    def _exchange(self, line: bytes, message: dict[str, Any], is_cancelled: threading.Event) -> None:
        with self._http.stream("POST", "/mcp", content=line, headers=_headers_of(message)) as response:
            if response.headers.get("Content-Type", "").startswith(STREAM):
                self._forward_stream(response, is_cancelled)
                return
            response.read()
        self._answer(response, _id_of(message), is_cancelled)

    def _forward_stream(self, response: httpx.Response, is_cancelled: threading.Event) -> None:
        for line in _lines_of(response):
            if is_cancelled.is_set():
                return
            if line.startswith(b"data:"):
                self._write(line.removeprefix(b"data:").strip(), is_cancelled)

    def _answer(self, response: httpx.Response, request_id: str | int | None, is_cancelled: threading.Event) -> None:
        body = _json_of(response)
        if isinstance(body, dict) and "jsonrpc" in body:
            self._write(response.content.strip().replace(b"\n", b" "), is_cancelled)
        elif not response.is_success:
            detail = body.get("detail") if isinstance(body, dict) else None
            told = detail or f"{self._url}/mcp answered {response.status_code}; check OUTFEED_URL"
            self._refuse(request_id, INTERNAL_ERROR, told, is_cancelled, {"status": response.status_code})

    def _refuse(
        self,
        request_id: str | int | None,
        code: int,
        told: str,
        is_cancelled: threading.Event | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Log the error, and answer the request with it.

        A notification has no id and gets no answer. An invalid line gets one without an id.
        """
        self._log(told)
        error = {"code": code, "message": told} | ({"data": data} if data else {})
        if request_id is not None or code == PARSE_ERROR:
            self._write(json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode(), is_cancelled)

    def _write(self, message: bytes, is_cancelled: threading.Event | None = None) -> None:
        """Write one line. A cancelled request gets no further message."""
        rest = memoryview(message + b"\n")
        with self._lock, contextlib.suppress(BrokenPipeError):  # the client has left, and stdin ends, too
            if is_cancelled and is_cancelled.is_set():
                return
            while rest:
                # Not through a buffer of Python, whose lock a daemon thread may hold at the end of the process.
                rest = rest[os.write(1, rest) :]


def _lines_of(response: httpx.Response) -> Iterator[bytes]:
    """Yield the lines of a stream.

    httpx's own lines end at U+2028 as well, which JSON may contain.
    """
    rest = b""
    for chunk in response.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _headers_of(message: dict[str, Any]) -> dict[str, str]:
    """Return the headers that repeat the message, if its revision has them."""
    method, params = message.get("method"), message.get("params")
    version = headers.version_in(params) if isinstance(params, dict) else None
    if not isinstance(method, str) or not isinstance(params, dict) or not isinstance(version, str):
        return {}
    found = headers.repeated(method, params) | {headers.VERSION: version}
    return {name: headers.encoded(value) for name, value in found.items() if isinstance(value, str)}


def _id_of(message: dict[str, Any]) -> str | int | None:
    return _hashable(message.get("id"))


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int) else None


def _json_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
