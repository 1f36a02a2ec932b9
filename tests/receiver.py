"""A target for webhooks: an HTTP server that keeps its requests.

It can be told to misbehave. Signatures are checked by the standardwebhooks package, when a post arrives.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.server import free_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="


class Post(NamedTuple):
    """One request that arrived.

    *is_first*: the first request with its id.
    """

    id: str
    body: Any
    path: str
    headers: dict[str, str]
    is_first: bool

    @property
    def seqs(self) -> list[int]:
        data = self.body["data"]
        return [event["seq"] for event in (data if isinstance(data, list) else [data])]


class Reply(NamedTuple):
    """The answer of a target. With status 0 it closes without one."""

    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})


def well(_: Post) -> Reply:
    return Reply()


class Receiver:
    """Listens on one port of loopback while started.

    *behave* decides on each answer, on the connection's thread.
    """

    def __init__(self, secret: str = SECRET, behave: Callable[[Post], Reply] = well, tls: Any = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hook?key=1"
        self.secret = secret
        self.behave = behave
        self.tls = tls
        self.posts: list[Post] = []
        self.accepted: list[Post] = []
        self.problems: list[str] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections, and end open ones."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.close_connections()
            self._server.server_close()
            self._server = None

    def seqs(self) -> list[int]:
        """Return the seqs of accepted posts, in order of arrival.

        A post that came again under the same id counts once.
        """
        first: dict[str, Post] = {}
        for post in self.accepted:
            first.setdefault(post.id, post)
        return [seq for post in first.values() for seq in post.seqs]

    def take(self, handler: BaseHTTPRequestHandler) -> Reply:
        size = int(handler.headers["content-length"])
        body = handler.rfile.read(size)
        if len(body) < size:
            raise ConnectionError("the sender was killed between head and body")
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            try:
                Webhook(self.secret).verify(body, headers)
            except (WebhookVerificationError, ValueError) as error:
                self.problems.append(f"{headers}: {error!r}")
            id_ = headers["webhook-id"]
            earlier = [post for post in self.posts if post.id == id_]
            post = Post(id_, json.loads(body), handler.path, headers, is_first=not earlier)
            if earlier and earlier[0].body != post.body:
                self.problems.append(f"{id_} came again with another body")
            self.posts.append(post)
        reply = self.behave(post)
        with self._lock:
            if 200 <= reply.status < 300:
                self.accepted.append(post)
        return reply


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    allow_reuse_address = True

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", receiver.port), _Handler)

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self.receiver.connections += 1
        if self.receiver.tls:
            connection = self.receiver.tls.wrap_socket(connection, server_side=True)
        self._open.add(connection)
        return connection, address

    def close_connections(self) -> None:
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        pass  # the other end disconnected


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise head and body of an answer are 40 ms apart
    server: _Server

    def do_POST(self) -> None:
        reply = self.server.receiver.take(self)
        if not reply.status:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {"content-length": "2", **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass
