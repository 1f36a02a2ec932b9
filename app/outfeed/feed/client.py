"""The interface of a connected client to cohorts, consumers and hub.

`Subscriber` implements it.
"""

from __future__ import annotations

import enum
from typing import Protocol

from outfeed.feed.socket_writer import SocketWriter
from outfeed.principal import Principal


class ClientState(enum.Enum):
    """The states of a subscriber.

    IDLE: connected, without a subscription.
    """

    IDLE = "idle"
    REPLAYING = "replaying"
    LIVE = "live"
    CLOSED = "closed"

    def moved_to(self, state: ClientState) -> ClientState:
        """Return *state*.

        Raises RuntimeError if a subscriber cannot go from this state to *state*.
        """
        if (self, state) not in _MOVES:
            raise RuntimeError(f"a subscriber can't go from {self.value} to {state.value}")
        return state


_MOVES = {
    (ClientState.IDLE, ClientState.REPLAYING),
    (ClientState.REPLAYING, ClientState.REPLAYING),
    (ClientState.REPLAYING, ClientState.LIVE),
    (ClientState.LIVE, ClientState.REPLAYING),
    (ClientState.REPLAYING, ClientState.IDLE),
    (ClientState.LIVE, ClientState.IDLE),
}


class ConnectedClient(Protocol):
    """One connected client, as all threads except its own use it."""

    writer: SocketWriter
    principal: Principal

    @property
    def transport(self) -> str:
        """Name of the client's transport in the counts."""
        ...

    @property
    def state(self) -> ClientState:
        """Current state of the client."""
        ...

    def wake(self) -> None:
        """Wake the client's own thread."""
        ...

    def ask_to_end(self, code: int, reason: str) -> None:
        """Ask the client's own thread to close the connection with *code*.

        The first call sets the code and the reason. Later calls have no effect.
        """
        ...

    def end(self) -> None:
        """Remove the client from the feed permanently.

        The client's own thread calls this.
        """
        ...
