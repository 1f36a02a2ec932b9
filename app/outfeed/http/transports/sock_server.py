"""Replacements for the socket, thread and event of Flask-Sock's server.

By itself the library starts a thread for each client, which reads from the socket and writes to it without a lock. With
these three classes it does no I/O and starts no thread: its loop runs on the client's own thread, once for each frame.
tests/http/transports/test_sock_seams.py has a test for each assumption about the library.
"""

from __future__ import annotations

from collections.abc import Callable

from simple_websocket import Server

from outfeed.errors import NoInput


class MemorySocket:
    """Socket that returns the bytes in `received` and collects output."""

    def __init__(self) -> None:
        self.received = b""
        self._sent = b""

    def recv(self, _: int) -> bytes:
        """Return the bytes once. Raises NoInput."""
        data, self.received = self.received, b""
        if not data:
            raise NoInput
        return data

    def send(self, data: bytes) -> None:
        """Collect *data*."""
        self._sent += data

    def take_sent(self) -> bytes:
        """Return what the library has sent since the last call."""
        data, self._sent = self._sent, b""
        return data

    def close(self) -> None:
        """Do nothing: the library does not own the connection."""


class NoThread:
    """Thread that keeps the library's loop in `target` and never starts."""

    name = ""

    def __init__(self, target: Callable[[], None]) -> None:
        self.target = target

    def start(self) -> None:
        """Do nothing."""


class ReadingEvent:
    """An event whose `wait` calls `read`, which may set it."""

    def __init__(self) -> None:
        self._is_set = False
        self.read: Callable[[float | None], None] = lambda _: None

    def set(self) -> None:
        """Make `wait` return True at once."""
        self._is_set = True

    def clear(self) -> None:
        """Make `wait` read again."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Read once, for *timeout* seconds at most, unless the event is set.

        Returns whether the event is set.
        """
        if not self._is_set:
            self.read(timeout)
        return self._is_set


SERVER_OPTIONS = {"thread_class": NoThread, "event_class": ReadingEvent}


def forget_handshake(ws: Server) -> None:
    """Free the library's state of the handshake: 3 KiB for each client."""
    ws.ws = ws.ws.connection
