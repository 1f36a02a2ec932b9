"""Assembly: collects a client's bytes into complete requests. No I/O.

gunicorn's parser reads the header, so that both agree on where a request ends. The parser never reads from a socket: a
request reaches it only when its header is complete or too long.
"""

from __future__ import annotations

import io
import re
from collections.abc import Generator
from typing import Any

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidHeader, LimitRequestLine
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Longer than any request that the API's schemas allow: tests/http/server/test_request_line.py.
MAX_REQUEST_LINE_BYTES = 368 * 1024
# The limit of a chunked body's bytes beside its content. Without it, chunks of a few bytes would cost the main loop
# seconds.
MAX_CHUNK_OVERHEAD_BYTES = 2**20
_MAX_CHUNK_LINE_BYTES = 4096
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(;[^\r\n]*)?")
_EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"
_CRLF = b"\r\n"


class Assembly:
    """The bytes of one client that no request has used yet.

    Only the main loop's thread uses it. If a body exceeds *max_body_bytes*, the request is complete without it,
    `is_cut` is set, and the application answers 413.
    """

    def __init__(self, cfg: Any, peer: Any, max_body_bytes: int) -> None:
        self._cfg = cfg
        self._peer = peer
        self._max_body_bytes = max_body_bytes
        self._max_line_bytes = cfg.limit_request_line or MAX_REQUEST_LINE_BYTES
        self._received = bytearray()
        self._searched = 0  # this many first bytes contain no end of a header
        self._count = 0
        self._next: Request | Exception | None = None
        self._body: _Sized | _Chunked | None = None
        self._expects_continue = False
        self.is_cut = False  # the client may still send bytes of the request that was taken last

    def __len__(self) -> int:
        """Return the number of held bytes."""
        return len(self._received) + (len(self._body.content) if self._body is not None else 0)

    def feed(self, data: bytes) -> None:
        """Append bytes that the client has sent."""
        self._received += data

    def advance(self) -> bool:
        """Parse the received bytes, and return whether `take` has a result.

        The result is a complete request, or an error that gunicorn answers.
        """
        try:
            if self._body is None and not self._read_head():
                return False
            return self._body is None or self._body.advance()
        except Exception as error:  # noqa: BLE001 - gunicorn's handler answers it on the request's thread
            self._next = error
            return True

    def take(self) -> Request | Exception:
        """Return the request that `advance` has completed, or its error.

        The request's body is in memory.
        """
        found, body = self._next, self._body
        assert found is not None
        self._next = self._body = None
        self._expects_continue = False
        if isinstance(found, Exception):
            self.is_cut = True
        elif body is not None:
            found.body, found.unreader = io.BytesIO(body.content), None
            if isinstance(body, _Chunked):
                # Werkzeug cuts a chunked body at its limit and raises no error: tests/journeys/test_slow_clients.py
                kept = [(name, value) for name, value in found.headers if name != "TRANSFER-ENCODING"]
                found.headers = [*kept, ("CONTENT-LENGTH", str(len(body.content)))]
            if body.is_cut:
                self.is_cut = True
                found.force_close()
        return found

    def expects_continue(self) -> bool:
        """Return whether the client waits for CONTINUE before the body.

        Returns True once for each request.
        """
        expects, self._expects_continue = self._expects_continue, False
        return expects

    def _read_head(self) -> bool:
        """Parse the header if it is complete. Raises if it is too long.

        Returns whether it was complete.
        """
        end = self._received.find(_HEAD_END, max(0, self._searched - len(_HEAD_END) + 1))
        size = end + len(_HEAD_END) if end >= 0 else len(self._received)
        if end < 0 and not self._is_head_too_long():
            self._searched = size
            return False
        if self._received.find(_CRLF, 0, self._max_line_bytes + len(_CRLF)) < 0:
            raise LimitRequestLine(size, self._max_line_bytes)
        head, expected = _EXPECT.subn(b"", bytes(self._received[:size]))
        del self._received[:size]
        self._searched = 0
        self._count += 1
        # In two parts: gunicorn checks the size of an incomplete header only at its second read.
        request = Request(self._cfg, IterUnreader([head[:-1], head[-1:]]), self._peer, self._count)
        reader = request.body.reader
        if isinstance(reader, ChunkedReader):
            self._body = _Chunked(self._received, self._max_body_bytes)
        else:
            self._body = _Sized(self._received, reader.length, self._max_body_bytes)
        self._expects_continue = bool(expected) and request.version >= (1, 1)
        self._next = request
        return True

    def _is_head_too_long(self) -> bool:
        size, longest_line = len(self._received), self._max_line_bytes + len(_CRLF)
        if size > longest_line and self._received.find(_CRLF, 0, longest_line) < 0:
            return True
        return size > longest_line + self._cfg.limit_request_fields * (self._cfg.limit_request_field_size + 2) + 4


class _Sized:
    """A body with its length in the header."""

    def __init__(self, received: bytearray, length: int, max_bytes: int) -> None:
        self._received = received
        self._length = length
        self.is_cut = length > max_bytes
        self.content = b""

    def advance(self) -> bool:
        """Return whether the body is complete."""
        if self.is_cut:
            return True
        if len(self._received) < self._length:
            return False
        with memoryview(self._received) as view:
            self.content = bytes(view[: self._length])
        del self._received[: self._length]
        return True


class _Chunked:
    """A chunked body (RFC 9112 section 7.1), decoded as its bytes arrive."""

    def __init__(self, received: bytearray, max_bytes: int) -> None:
        self._received = received
        self._max_bytes = max_bytes
        self._overhead = 0
        self._decoding = self._decode()
        self.is_cut = False
        self.content = bytearray()

    def advance(self) -> bool:
        """Return whether the body is complete.

        Raises InvalidHeader if it is malformed.
        """
        return next(self._decoding, True)

    def _decode(self) -> Generator[bool, None, None]:
        """Decode the body, and yield False each time more bytes are needed."""
        while size := self._size_in((yield from self._line())):
            yield from self._content(size)
            if self.is_cut:
                return
            if (yield from self._line()):
                raise InvalidHeader("a chunk is longer than its size")
        while (yield from self._line()):
            pass  # a trailer, which is dropped

    def _content(self, size: int) -> Generator[bool, None, None]:
        while size and not self.is_cut:
            while not self._received:
                yield False
            piece = self._received[:size]
            del self._received[:size]
            self.content += piece
            size -= len(piece)
            self.is_cut = len(self.content) > self._max_bytes

    def _line(self) -> Generator[bool, None, bytes]:
        while (end := self._received.find(_CRLF)) < 0:
            if len(self._received) > _MAX_CHUNK_LINE_BYTES:
                raise InvalidHeader("a line of a chunked body is too long")
            yield False
        line = bytes(self._received[:end])
        del self._received[: end + len(_CRLF)]
        self._overhead += len(line) + len(_CRLF)
        if self._overhead > MAX_CHUNK_OVERHEAD_BYTES:
            raise InvalidHeader("a chunked body has too many chunks")
        return line

    @staticmethod
    def _size_in(line: bytes) -> int:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise InvalidHeader("a chunk has no size")
        return int(match[1], 16)
