"""The wire: one socket, one lock, and the unsent end of one cut frame.

Everything that is written to a client goes through here, the relay's batches and what its own thread has to say; what
it sends is read by the own thread alone.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from outfeed import clock

# A peer that takes no byte for this long is gone; TCP_USER_TIMEOUT says the same to the kernel.
STALL_SECS = 60.0
# How often a thread that waits for a slow peer looks whether it should stop.
_PATIENCE_SECS = 0.5
# Joined once: these flags are an enum, and to join them costs a tenth of a send.
_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_READ_BYTES = 16 * 1024


class Stalled(OSError):
    """The peer took no byte for STALL_SECS."""


class Gone(OSError):
    """The peer has ended the connection."""


class Wire:
    """Writes to one socket without ever blocking it for others. `lock` guards the socket's sending side.

    *rest* is the unsent end of a frame whose beginning was sent: whoever writes next finishes it first, or the stream
    would be corrupt. There is never more than that and one answer kept for a client.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.lock = threading.Lock()
        self._sock = sock
        self._rest = b""
        self._is_closing = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_SECS * 1000))

    # --- with the lock held -------------------------------------------------------------------------------------------

    def offer(self, data: bytes) -> int:
        """Send what the socket takes of *data* at once; return how many bytes that was. The caller holds `lock`.

        0 while the rest of an earlier frame is in the way. Raises OSError when the connection is gone.
        """
        if self._is_closing or (self._rest and not self._flush()):
            return 0
        return self._send(data)

    def keep(self, rest: bytes) -> None:
        """Remember the unsent end of a frame that `offer` cut. The caller holds `lock`."""
        self._rest = rest

    def _flush(self) -> bool:
        if self._rest:
            self._rest = self._rest[self._send(self._rest) :]
        return not self._rest

    def _send(self, data: bytes) -> int:
        try:
            return self._sock.send(data, _AT_ONCE)
        except BlockingIOError:
            return 0

    # --- the client's own thread --------------------------------------------------------------------------------------

    def drain(self, is_wanted: Callable[[], bool]) -> bool:
        """Wait until nothing unsent is left; False when *is_wanted* says stop. Raises Stalled, OSError."""
        deadline = clock.monotonic() + STALL_SECS
        left = -1
        while True:
            with self.lock:
                if self._flush():
                    return True
                before, left = left, len(self._rest)
            if left != before:
                deadline = clock.monotonic() + STALL_SECS
            if not is_wanted():
                return False
            if clock.monotonic() >= deadline:
                raise Stalled(f"no byte accepted for {STALL_SECS:.0f} s")
            self._wait_writable(min(_PATIENCE_SECS, STALL_SECS))

    def write(self, frame: bytes, is_wanted: Callable[[], bool]) -> bool:
        """Write one whole frame, after what is unsent; waits as `drain` does."""
        if not self.drain(is_wanted):
            return False
        with self.lock:
            if not self._is_closing:
                sent = self.offer(frame)
                self._rest += frame[sent:]  # behind what the relay cut meanwhile, or alone
        return self.drain(is_wanted)

    def _wait_writable(self, timeout: float) -> None:
        poller = select.poll()
        poller.register(self._sock, select.POLLOUT)
        poller.poll(timeout * 1000)

    def say_goodbye(self, frame: bytes) -> bool:
        """Send the close frame if it can go at once, and let nothing be written after it. True if it went."""
        with self.lock:
            went = False
            try:
                went = self.offer(frame) == len(frame)
            except OSError:
                pass  # the peer is gone; there is nobody to tell
            self._is_closing = True
            return went

    def read(self) -> bytes:
        """Return what the peer has sent; nothing where that is nothing yet. Raises Gone, OSError."""
        try:
            data = self._sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        if not data:
            raise Gone("the peer has ended the connection")
        return data

    def hang_up(self, timeout: float, is_farewell: Callable[[bytes], bool]) -> None:
        """Give the peer *timeout* seconds to end the connection, or to say something final, then cut it both ways."""
        deadline = clock.monotonic() + timeout
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        with suppress(OSError):
            while (left := deadline - clock.monotonic()) > 0:
                if poller.poll(left * 1000) and is_farewell(self.read()):
                    break
        with suppress(OSError):  # it has gone already
            self._sock.shutdown(socket.SHUT_RDWR)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()
