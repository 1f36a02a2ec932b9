"""A server of the tests on an event loop, with a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from abc import ABC, abstractmethod
from typing import Any, Self

from tests.waits import PATIENCE_SECS, wait_until

CHUNK_BYTES = 1 << 16


class LoopServer(ABC):
    """Listens on a free port of 127.0.0.1 and answers each connection."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._port = 0
        self._stop = asyncio.Event()
        self._open: set[asyncio.Task[Any]] = set()
        self._writers: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._port, "server ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_SECS)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @abstractmethod
    async def answer_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""

    def end_connection(self, writer: asyncio.StreamWriter) -> None:
        """Close the connection."""
        writer.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        listener = await asyncio.start_server(self._handle, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self._port = listener.sockets[0].getsockname()[1]
        await self._stop.wait()
        listener.close()
        await asyncio.sleep(0)  # now each accepted connection has its task
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        for writer in [*self._writers]:
            writer.transport.abort()  # it may have unsent bytes
        await asyncio.sleep(0)  # now each transport is closed

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self._writers.add(writer)
        try:
            # One side has closed the connection, or the test ends. asyncio would log a task that was cancelled.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.answer_connection(reader, writer)
        finally:
            self._open.discard(task)
            self.end_connection(writer)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, until: bytes | None = None) -> None:
    """Copy bytes until their end, or until a chunk contains *until*."""
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
        if until is not None and until in chunk:
            return
