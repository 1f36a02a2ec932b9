"""A reverse proxy: a foreign site, and a network without WebSockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from tests.loop_server import LoopServer, pump
from tests.server import Server
from tests.waits import PATIENCE_SECS

OURS = ("/ws", "/api/", "/static/", "/swarm/", "/mcp")
BAD_GATEWAY = b"HTTP/1.1 502 -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy(LoopServer):
    """Forwards requests to *server* with its token, and serves *pages*.

    *pages* maps each path to a content type and a body. Everything runs on one thread of its own. `block` forbids
    upgrades and cuts upgraded connections. `cut_at` ends each WebSocket after the server has sent that text. With
    `answer` the proxy answers HTTP itself.
    """

    def __init__(self, server: Server, pages: dict[str, tuple[str, str]] | None = None) -> None:
        super().__init__()
        self.pages = pages or {}
        self.requests: list[tuple[float, str]] = []
        self.handshakes = 0
        self.cut_at: bytes | None = None
        self.answer: bytes | None = None
        self._server = server
        self._is_blocking = False
        self._upgraded: set[asyncio.StreamWriter] = set()

    @property
    def sockets(self) -> int:
        """Number of WebSockets that are open."""
        return len(self._upgraded)

    def block(self) -> None:
        """Answer 403 to upgrades, and cut upgraded connections."""
        self._is_blocking = True
        self._call(self._cut)

    def unblock(self) -> None:
        """Allow upgrades."""
        self._is_blocking = False

    def go_down(self) -> None:
        """Answer as a gateway whose server is down."""
        self.answer = BAD_GATEWAY
        self.block()

    def come_back(self) -> None:
        """Forward every request again."""
        self.answer = None
        self.unblock()

    def cut(self) -> None:
        """Cut upgraded connections, as a lost network does."""
        self._call(self._cut)

    def asked(self, path: str) -> list[float]:
        """Return the times of the requests for *path*, on the monotonic clock."""
        return [moment for moment, asked in self.requests if asked.split("?")[0] == path]

    def _call(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(step(), self.loop).result(PATIENCE_SECS)

    async def _cut(self) -> None:
        for writer in self._upgraded:
            writer.transport.abort()

    def end_connection(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort() if writer in self._upgraded else writer.close()
        self._upgraded.discard(writer)

    async def answer_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1].decode()
        is_upgrade = b"\r\nupgrade: websocket" in head.lower()
        self.requests.append((time.monotonic(), path))
        self.handshakes += is_upgrade
        if is_upgrade and self._is_blocking:
            writer.write(_response(403, "text/plain", "no upgrades here"))
        elif self.answer is not None and not is_upgrade and path.startswith("/api/"):
            writer.write(self.answer)
        elif path.startswith(OURS):
            await self._hand_on(head, is_upgrade, reader, writer)
        elif path in self.pages:
            writer.write(_response(200, *self.pages[path]))
        else:
            writer.write(_response(404, "text/plain", path))
        await writer.drain()

    async def _hand_on(
        self, head: bytes, is_upgrade: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request, _, headers = head.partition(b"\r\n")
        kept = [line for line in headers.split(b"\r\n") if line and not line.lower().startswith(b"cookie:")]
        if not is_upgrade:
            kept = [line for line in kept if not line.lower().startswith(b"connection:")] + [b"Connection: close"]
        kept.append(f"Authorization: Bearer {self._server.token}".encode())
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._server.port)
        try:
            ours.write(b"\r\n".join([request, *kept, b"", b""]))
            if is_upgrade:
                self._upgraded.add(writer)
            up = asyncio.create_task(pump(reader, ours))
            down = asyncio.create_task(pump(theirs, writer, self.cut_at if is_upgrade else None))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        finally:
            ours.close()


def _response(status: int, content_type: str, body: str) -> bytes:
    data = body.encode()
    fields = f"Content-Type: {content_type}\r\nContent-Length: {len(data)}\r\nConnection: close"
    return f"HTTP/1.1 {status} -\r\n{fields}\r\n\r\n".encode() + data
