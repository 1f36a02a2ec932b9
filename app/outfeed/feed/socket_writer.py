"""Socket writer: one socket, one lock, the unsent rest of one frame.

All writes to a client go through it: the relay's batches, and the answers of the client's own thread. Only the client's
own thread reads.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from outfeed import clock
from outfeed.errors import ClientGone, ClientStalled

# A client that accepts no byte for this long is disconnected. TCP_USER_TIMEOUT sets the same limit in the kernel.
STALL_SECS = 60.0
# Interval at which a thread that waits for a slow client checks whether it should stop.
_CHECK_SECS = 0.5
# Combined once: the flags are an enum, and combining them costs a tenth of a send.
_NON_BLOCKING = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_READ_BYTES = 16 * 1024


class SocketWriter:
    """Writes to one socket without waiting, and reads from it.

    `lock` guards the sending side. The relay never waits for the socket.

    The remainder is the unsent part of a frame of which the socket accepted only the beginning. The next writer sends
    it first, or the stream would be corrupt. At most the remainder and one answer are held for a client.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.lock = threading.Lock()
        self._sock = sock
        self._remainder = b""
        self._is_full = False  # the socket has refused a byte since the last wait
        self._is_closing = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_SECS * 1000))

    # --- with the lock held -------------------------------------------------------------------------------------------

    def try_send(self, data: bytes) -> int:
        """Send the part of *data* that the socket accepts at once.

        Returns the number of bytes. Returns 0 while the remainder of an earlier frame is unsent. The caller holds
        `lock`. Raises OSError when the connection is gone.
        """
        if self._is_closing or (self._remainder and not self._send_remainder()):
            return 0
        return self._send(data)

    def stash_remainder(self, remainder: bytes) -> None:
        """Keep the unsent part of a frame that `try_send` cut.

        The caller holds `lock`.
        """
        self._remainder = remainder

    def _send_remainder(self) -> bool:
        if self._remainder:
            self._remainder = self._remainder[self._send(self._remainder) :]
        return not self._remainder

    def _send(self, data: bytes) -> int:
        try:
            return self._sock.send(data, _NON_BLOCKING)
        except BlockingIOError:
            self._is_full = True
            return 0

    # --- the client's own thread --------------------------------------------------------------------------------------

    def flush(self, is_wanted: Callable[[], bool]) -> bool:
        """Wait until every stashed byte is sent and the socket has room.

        Without the wait for room, a thread would retry endlessly if the socket was filled by exactly one frame.
        Returns False if *is_wanted* returns False before that. Raises ClientStalled, OSError.
        """
        deadline = clock.monotonic() + STALL_SECS
        left, has_room = -1, False
        while True:
            with self.lock:
                self._is_full = self._is_full and not has_room
                if self._send_remainder() and not self._is_full:
                    return True
                before, left = left, len(self._remainder)
            if left != before:
                deadline = clock.monotonic() + STALL_SECS
            if not is_wanted():
                return False
            if clock.monotonic() >= deadline:
                raise ClientStalled(f"the client accepted no byte for {STALL_SECS:.0f} s")
            has_room = self._poll(select.POLLOUT, min(_CHECK_SECS, STALL_SECS))

    def write(self, frame: bytes, is_wanted: Callable[[], bool]) -> bool:
        """Write one whole frame after the remainder; wait as `flush` does."""
        if not self.flush(is_wanted):
            return False
        with self.lock:
            if not self._is_closing:
                sent = self.try_send(frame)
                self._remainder += frame[sent:]  # after a remainder that the relay may have stashed since the flush
        return self.flush(is_wanted)

    def send_close(self, frame: bytes) -> None:
        """Send the close frame if the socket accepts it; drop later writes."""
        with self.lock:
            with suppress(OSError):  # the client is gone
                self.try_send(frame)
            self._is_closing = True

    def read(self) -> bytes:
        """Return the bytes that the client has sent, which may be none.

        Raises ClientGone, OSError.
        """
        try:
            data = self._sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        if not data:
            raise ClientGone("the client has ended the connection")
        return data

    def close(self, timeout: float, is_close_frame: Callable[[bytes], bool]) -> None:
        """Shut the connection down when the client has ended it.

        The call waits up to *timeout* seconds for the client to end the connection or to send a close frame.
        """
        deadline = clock.monotonic() + timeout
        with suppress(OSError):
            while (left := deadline - clock.monotonic()) > 0:
                if self._poll(select.POLLIN, left) and is_close_frame(self.read()):
                    break
        with suppress(OSError):  # the client is gone
            self._sock.shutdown(socket.SHUT_RDWR)

    def _poll(self, event: int, timeout: float) -> bool:
        poller = select.poll()
        poller.register(self._sock, event)
        return bool(poller.poll(timeout * 1000))

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()
