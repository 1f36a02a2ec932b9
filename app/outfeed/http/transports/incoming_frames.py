"""Incoming frames: a WebSocket client's bytes, cut into counted frames.

Source: RFC 6455 section 5.2. The library does not count pings, pongs and fragments, and counts messages in characters.
This module reads only headers: the library rejects an invalid frame when it receives the frame's first bytes.
"""

from __future__ import annotations

_CONTINUATION = 0
_CLOSE = 8


class IncomingFrames:
    """The frames of one client.

    `count` is the number of frames that have begun, without close frames. `message_bytes` is the size of the last
    message's payload.
    """

    def __init__(self) -> None:
        self.count = 0
        self.message_bytes = 0
        self._buffer = bytearray()
        self._opcode = _CONTINUATION
        self._missing = 0  # bytes that the payload of the current frame still lacks

    @property
    def is_at_close(self) -> bool:
        """Whether the last bytes that `take` returned end a close frame."""
        return self._opcode == _CLOSE and not self._missing

    def feed(self, data: bytes) -> None:
        """Add bytes that the client has sent."""
        self._buffer += data

    def take(self) -> bytes:
        """Return the next bytes, of one frame at most.

        Returns none while a header is incomplete.
        """
        size = 0 if self._missing else self._begin()
        payload_size = min(self._missing, len(self._buffer) - size)
        data = bytes(self._buffer[: size + payload_size])
        del self._buffer[: len(data)]
        self._missing -= payload_size
        if self._opcode < _CLOSE:
            self.message_bytes += payload_size
        return data

    def _begin(self) -> int:
        """Begin the next frame if its header is complete.

        Returns the size of the header, or 0.
        """
        if len(self._buffer) < 2:
            return 0
        length = self._buffer[1] & 0x7F
        size_of_length = {126: 2, 127: 8}.get(length, 0)
        size_of_mask = 4 if self._buffer[1] & 0x80 else 0
        size = 2 + size_of_length + size_of_mask
        if len(self._buffer) < size:
            return 0
        self._opcode = self._buffer[0] & 0x0F
        self._missing = int.from_bytes(self._buffer[2 : 2 + size_of_length]) if size_of_length else length
        self.count += self._opcode != _CLOSE
        if _CONTINUATION < self._opcode < _CLOSE:
            self.message_bytes = 0
        return size
