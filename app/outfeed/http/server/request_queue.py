"""Request queue: complete requests that wait for a thread."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

C = TypeVar("C")


class RequestQueue(Generic[C]):
    """The connections whose request waits for a thread, in two lines.

    Only the main loop's thread changes it. An event may resume hundreds of requests at once. They have a line of their
    own, so that they do not delay new requests.
    """

    def __init__(self) -> None:
        self._new: deque[C] = deque()
        self._resumed: deque[C] = deque()
        self._is_turn_of_new = True

    def __len__(self) -> int:
        return len(self._new) + len(self._resumed)

    def put(self, connection: C) -> None:
        """Add a connection with a new request."""
        self._new.append(connection)

    def put_resumed(self, connection: C) -> None:
        """Add a connection whose request has waited without a thread."""
        self._resumed.append(connection)

    def take(self) -> C:
        """Remove and return the next connection, from each line in turn."""
        is_new = bool(self._new) and (self._is_turn_of_new or not self._resumed)
        self._is_turn_of_new = not is_new
        return (self._new if is_new else self._resumed).popleft()
