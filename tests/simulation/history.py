"""A source on a simulated disk, and all that was ever committed to it."""

from __future__ import annotations

import json
from typing import Any

from outfeed.history import Item, Window
from tests.feed.fake_source import MemorySource

TYPES = ("a.b", "x.y")


class Disk(MemorySource):
    """A source whose file can be pruned, backed up, restored and replaced.

    `committed` has the types of all events of each epoch by seq, pruned ones too. Every event has an id of its own, so
    that two events under one seq of one epoch can be told apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.committed: dict[str, dict[int, tuple[str, str]]] = {self.epoch: {}}
        self._backup: tuple[list[Item], int] = ([], 0)
        self._written = 0
        self.epochs = 1

    def commit(self, count: int, event_type: str, size: int) -> None:
        """Commit *count* events of *size* bytes in one transaction."""
        for _ in range(count):
            self._written += 1
            self.last_seq += 1
            fields: dict[str, Any] = {"id": f"id-{self._written}", "event_type": event_type, "source": "s"}
            body = json.dumps(fields | {"data": "x" * size}).encode()
            self.items.append(Item(self.last_seq, body, fields["id"], event_type, "s", None, None, None))
            self.committed[self.epoch][self.last_seq] = (fields["id"], event_type)

    def back_up(self) -> None:
        """Keep a copy of the file."""
        self._backup = (list(self.items), self.last_seq)

    def restore(self) -> None:
        """Put the backup in place, under a new epoch."""
        self.replace()
        self.renew_epoch(self.epoch)

    def replace(self) -> None:
        """Put the backup in place, as a copied file: under the same epoch."""
        items, self.last_seq = self._backup
        self.items = list(items)

    def holds(self, seq: int, event_id: str | None) -> bool:
        """Return whether the file is not behind the event *seq*."""
        if seq > self.last_seq:
            return False
        return all(each.id == event_id for each in self.items if each.seq == seq)

    def renew_epoch(self, epoch: str) -> None:
        """Begin a new history at the head, unless another caller has."""
        if self.epoch == epoch:
            self.epochs += 1
            self.epoch = f"epoch-{self.epochs}"
            before = self.committed[epoch]
            self.committed[self.epoch] = {seq: each for seq, each in before.items() if seq <= self.last_seq}

    def is_lost(self, epoch: str, cursor: int) -> bool:
        """Return whether a reader at *cursor* of *epoch* has lost events."""
        window: Window = self.window()
        return epoch != window.epoch or cursor + 1 < window.first_seq or cursor > window.last_seq
