"""Consumers: the active connection of each durable consumer."""

from __future__ import annotations

import threading
from typing import TypeAlias

from outfeed.errors import InvalidRequest, OutfeedError, Overtaken
from outfeed.feed import frames
from outfeed.feed.client import ConnectedClient
from outfeed.feed.source import CheckpointStore
from outfeed.history import Claim

_REASON = "a newer connection of this consumer"
_Active: TypeAlias = tuple[ConnectedClient, Claim]


class ConsumerConnections:
    """The active connections of durable consumers in this process.

    Each name has one active connection across all processes: the newest claim has the highest generation.

    `_lock` guards `_active`. `_claiming` is held during a claim in the database, which may wait for a writer. Claims
    are therefore noted in the order in which they were made, and the relay waits for none of them.
    """

    def __init__(self, checkpoints: CheckpointStore) -> None:
        self._checkpoints = checkpoints
        self._lock = threading.Lock()
        self._claiming = threading.Lock()
        self._active: dict[str, _Active] = {}

    def claim(self, client: ConnectedClient, name: str, *, may_create: bool) -> Claim:
        """Make *client* the consumer's connection; return its claim.

        An older connection of the consumer is closed. If the claim is refused, *client* keeps the consumer that it had
        claimed before. Raises the errors of `CheckpointStore.claim`.
        """
        with self._claiming:
            before = self._release(client)  # so that it is not superseded by its own claim
            try:
                claim = self._checkpoints.claim(name, client.principal, may_create=may_create)
            except OutfeedError:  # nothing was claimed
                with self._lock:
                    self._active |= before
                raise
            with self._lock:
                older = self._active.get(name)
                self._active[name] = (client, claim)
        if older is not None:
            older[0].ask_to_end(frames.SUPERSEDED, _REASON)
        return claim

    def release(self, client: ConnectedClient) -> None:
        """Remove *client* as a consumer's connection; keep the checkpoint."""
        self._release(client)

    def _release(self, client: ConnectedClient) -> dict[str, _Active]:
        with self._lock:
            released = {name: active for name, active in self._active.items() if active[0] is client}
            for name in released:
                del self._active[name]
        return released

    def acknowledge(self, client: ConnectedClient, epoch: str, seq: int) -> None:
        """Move the checkpoint of *client*'s consumer to *seq*.

        *seq* was sent to the client. Raises InvalidRequest if the client has no consumer, ForbiddenConsumer,
        Superseded, Overtaken.
        """
        with self._lock:
            claims = [claim for each, claim in self._active.values() if each is client]
        if not claims:
            raise InvalidRequest("no_consumer", "ack: this subscription has no consumer")
        try:
            self._checkpoints.move(claims[0].name, epoch, seq, client.principal, claims[0].generation)
        except InvalidRequest as error:  # a restore took the lock first
            raise Overtaken("the epoch changed") from error

    @property
    def are_connected(self) -> bool:
        """Whether any client is a consumer's connection."""
        return bool(self._active)

    def close_superseded(self) -> None:
        """Close the connections that another process has superseded.

        The relay calls this after each poll. A claim in another process is a commit, so it is noticed at once.

        Reads the generations of the connected names, without the lock. A claim made during the read is another entry of
        `_active`.
        """
        with self._lock:
            connected = dict(self._active)
        if not connected:
            return
        newest = self._checkpoints.generations(connected)
        superseded = [active for name, active in connected.items() if newest.get(name) != active[1].generation]
        with self._lock:
            superseded = [active for active in superseded if self._active.get(active[1].name) is active]
        for client, _ in superseded:
            client.ask_to_end(frames.SUPERSEDED, _REASON)
