"""A proxy that breaks the feed on purpose: one fault, on every transport."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

from tests.loop_server import CHUNK_BYTES, LoopServer, pump
from tests.protocol import FrameReader
from tests.server import Server

FAULTS = ("drop", "repeat", "swap", "delay")  # and "none"
# The first events of a connection pass, so that a later message exists to swap with.
FAULTY_EVENT = 2


class FaultyProxy(LoopServer):
    """Forwards to *server*, with *fault* in each connection's events.

    One message of each connection is dropped, repeated, sent after the next one, or held for *delay_secs*.
    """

    def __init__(self, server: Server, fault: str, delay_secs: float = 0) -> None:
        super().__init__()
        self._server = server
        self._fault = fault
        self._delay_secs = delay_secs

    async def answer_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1]
        if not path.startswith(b"/ws"):
            head = (
                re.sub(rb"\r\nconnection: [^\r]*", b"", head, flags=re.IGNORECASE)[:-2] + b"Connection: close\r\n\r\n"
            )
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._server.port)
        ours.write(head)
        up = asyncio.create_task(pump(reader, ours))
        try:
            await self._answer(path, theirs, writer)
        finally:
            up.cancel()
            ours.close()

    async def _answer(self, path: bytes, theirs: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await theirs.readuntil(b"\r\n\r\n")
        if path.startswith(b"/ws"):
            writer.write(head)
            await self._write(writer, self._broken(_frames(theirs), b'"type":"event'))
        elif path.startswith(b"/api/feed/stream") and b" 200 " in head:
            writer.write(head)
            await self._write(writer, self._broken(_blocks(theirs), b'\ndata: {"id"'))
        elif path.startswith(b"/api/feed") and b" 200 " in head:
            body = await self._broken_page(await theirs.read())
            head = re.sub(rb"(?i)content-length: \d+", b"Content-Length: %d" % len(body), head)
            writer.write(head + body)
        else:
            writer.write(head)
            await pump(theirs, writer)
        await writer.drain()

    async def _write(self, writer: asyncio.StreamWriter, messages: AsyncIterator[bytes]) -> None:
        async for message in messages:
            writer.write(message)
            await writer.drain()

    async def _broken(self, messages: AsyncIterator[bytes], mark: bytes) -> AsyncIterator[bytes]:
        """Yield *messages* with the fault in one that contains *mark*."""
        count, held = 0, b""
        async for message in messages:
            count += mark in message
            if self._fault == "none" or count != FAULTY_EVENT or mark not in message:
                yield message + held
                held = b""
            elif self._fault == "repeat":
                yield message * 2
            elif self._fault == "swap":
                held = message
            elif self._fault == "delay":
                await asyncio.sleep(self._delay_secs)
                yield message

    async def _broken_page(self, body: bytes) -> bytes:
        page = json.loads(body)
        events = page["events"]
        if self._fault != "none" and len(events) >= FAULTY_EVENT:
            if self._fault == "delay":
                await asyncio.sleep(self._delay_secs)
            page["events"] = {
                "drop": events[1:],
                "repeat": [events[0], *events],
                "swap": [events[1], events[0], *events[2:]],
                "delay": events,
            }[self._fault]
        return json.dumps(page).encode()


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield each frame with its header."""
    frames, data = FrameReader(), b""
    while chunk := await reader.read(CHUNK_BYTES):
        frames.feed(chunk)
        data += chunk
        before = frames.taken_bytes
        for _ in frames:
            length = frames.taken_bytes - before
            before = frames.taken_bytes
            yield data[:length]
            data = data[length:]


async def _blocks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield each block of a server-sent stream."""
    while True:
        yield await reader.readuntil(b"\n\n")
