"""A simulated database file, and every event that was committed to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from outfeed.edge.owner import Ownership
from outfeed.errors import SourceError
from outfeed.history import Item, Page
from outfeed.principal import Wanted
from outfeed.store.high_water_mark import Position, contradicts
from outfeed.verify.model import Breach
from tests.feed.fake_source import MemorySource
from tests.simulation.actors import Actors

TYPES = ("a.b", "x.y")
# Of each event: its id and its type.
Log = dict[int, tuple[str, str]]


class Backup(NamedTuple):
    """The content of a file at one moment."""

    epoch: str
    items: list[Item]
    last_seq: int
    erasures: int
    published: str
    log: Log


class Disk(MemorySource):
    """A database file that can be pruned, erased, backed up and replaced.

    `committed` has all events of each epoch by seq, pruned ones too. Every event has an id of its own, so that two
    events under one seq of one epoch can be told apart. `inode` names the file. A copy has another one. `served` are
    the epochs that a process has read, `erased` all events that were ever erased, and `gone` those that are erased now,
    each with the number of its erasure.
    `is_replaced`: an older file is in place, and its epoch has not been renewed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inode = 1
        self.epochs = 1
        self.erasures = 0
        self.erased: set[str] = set()
        self.gone: dict[str, int] = {}
        self.published = ""
        self.served: set[str] = set()
        self.owners: dict[int, Ownership] = {}
        self._log: Log = {}
        self.committed: dict[str, Log] = {self.epoch: self._log}
        self._marks: dict[str, Position] = {}
        self._written = self._erasings = 0
        self.is_replaced = False
        self._backup = self._copy()

    @property
    def path(self) -> Disk:
        """The file itself, which stands for its path."""
        return self

    @property
    def history(self) -> tuple[str, int]:
        """The epoch and the file. Events are only added as long as it is the same."""
        return self.epoch, self.inode

    def commit(self, count: int, event_type: str, size: int) -> None:
        """Commit *count* events of *size* bytes in one transaction."""
        for _ in range(count):
            self._written += 1
            self.last_seq += 1
            fields: dict[str, Any] = {"id": f"id-{self._written}", "event_type": event_type, "source": "s"}
            body = json.dumps(fields | {"data": "x" * size}).encode()
            self.items.append(Item(self.last_seq, body, fields["id"], event_type, "s", None, None, None))
            self._log[self.last_seq] = (fields["id"], event_type)

    def erase(self, seq: int) -> None:
        """Erase the event *seq*, if it is still there."""
        for item in [each for each in self.items if each.seq == seq]:
            self.items.remove(item)
            self.erased.add(str(item.id))
            self._erasings += 1
            self.gone[str(item.id)] = self._erasings
            self.erasures += 1

    def _copy(self) -> Backup:
        return Backup(self.epoch, list(self.items), self.last_seq, self.erasures, self.published, dict(self._log))

    def back_up(self) -> None:
        """Keep a copy of the file."""
        self._backup = self._copy()

    @property
    def may_replace(self) -> bool:
        """Whether the backup is of the present epoch."""
        return self._backup.epoch == self.epoch

    @property
    def is_backup_older(self) -> bool:
        """Whether the backup lacks events of the present epoch."""
        return self.may_replace and self._backup.last_seq < self.last_seq

    def rewind(self) -> None:
        """Put the backup in place, in the same file and under its epoch."""
        self.replace()
        self.inode -= 1

    def restore(self) -> None:
        """Put the backup in place, in the same file and under a new epoch."""
        inode, epoch = self.inode, self.epoch
        self.replace()
        self.inode, self.epoch = inode, epoch
        self.renew_epoch(epoch)

    def replace(self) -> None:
        """Copy the backup over the file, with its epoch.

        No client may receive events that are written from now on under this epoch, until the mark has been compared.
        """
        self.inode += 1
        self.is_replaced = True
        self.epoch, items, self.last_seq, self.erasures, self.published, log = self._backup
        self.items, self._log = list(items), dict(log)
        for item in items:
            self.gone.pop(str(item.id), None)
        if self.epoch not in self.served:
            self.committed[self.epoch] = self._log

    def renew_epoch(self, epoch: str) -> None:
        """Begin a new history at the head, unless another caller has."""
        if self.epoch == epoch:
            if not self.is_replaced:
                raise Breach("E10", "the epoch changed although the history goes on")
            self.is_replaced = False
            self.epochs += 1
            self.epoch = f"epoch-{self.epochs}"
            if self._log is self.committed.get(epoch):
                self._log = dict(self._log)
            self.committed[self.epoch] = self._log

    def is_lost(self, epoch: str, cursor: int) -> bool:
        """Return whether a reader at *cursor* of *epoch* has lost events."""
        window = self.window()
        return epoch != window.epoch or cursor + 1 < window.first_seq or cursor > window.last_seq

    # --- the high-water mark ------------------------------------------------------------------------------------------

    def record(self, epoch: str, point: Position) -> None:
        """Keep the furthest position of *epoch*."""
        self._marks[epoch] = max(point, self._marks.get(epoch, point))

    def lose_mark(self) -> None:
        """Lose the mark of the present epoch."""
        self._marks.pop(self.epoch, None)

    def compare_with_mark(self) -> None:
        """Renew the epoch if the file contradicts the mark, as a start does."""
        point = self._marks.get(self.epoch)
        if point and contradicts(point, self.last_seq, [each for each in self.items if each.seq >= point.seq]):
            self.renew_epoch(self.epoch)
        self.committed[self.epoch] = self._log


class ProcessSource:
    """The file as one process reads it. Before and after each read is a seam.

    A process that finds another file than before renews the epoch, as `Outbox` does. While `fails` is positive, each
    read fails and counts it down. `page_fails` is for pages only.
    """

    origin_age = None

    def __init__(self, disk: Disk, actors: Actors) -> None:
        self._disk = disk
        self._actors = actors
        self._inode = 0
        self._epoch = ""
        self.fails = self.page_fails = 0
        self.has_failed = False

    @property
    def is_failing(self) -> bool:
        """Whether the next read fails."""
        return self.fails > 0 or self.page_fails > 0

    @property
    def is_current(self) -> bool:
        """Whether the process has read this file in its present epoch."""
        return (self._epoch, self._inode) == self._disk.history

    @property
    def last_missing(self) -> int:
        """The last seq that this process lacks because it was pruned."""
        first: int = self._disk.window().first_seq
        return first - 1

    def window(self) -> Any:
        return self._read(self._disk.window)

    def read_after(self, seq: int, limit: int) -> Page:
        self._actors.seam()
        if self.page_fails:
            self.page_fails -= 1
            self.has_failed = True
            raise SourceError("the disk fails")
        if self._inode != self._disk.inode:
            if self._epoch:
                self._disk.renew_epoch(self._epoch)
            self._inode = self._disk.inode
        page: Page = self._read(lambda: self._disk.read_after(seq, limit))
        self._disk.served.add(page.window.epoch)
        if self._inode == self._disk.inode:
            self._epoch = page.window.epoch
        return page

    def read_before(self, seq: int, limit: int) -> Page:
        page: Page = self._read(lambda: self._disk.read_before(seq, limit))
        return page

    def newest(self, wanted: Wanted, limit: int, *, after: int, up_to: int) -> list[int]:
        found: list[int] = self._read(lambda: self._disk.newest(wanted, limit, after=after, up_to=up_to))
        return found

    def renew_epoch(self, epoch: str) -> None:
        self._actors.seam()
        self._disk.renew_epoch(epoch)
        self._actors.seam()

    def _read(self, read: Callable[[], Any]) -> Any:
        self._actors.seam()
        if self.fails:
            self.fails -= 1
            self.has_failed = True
            raise SourceError("the disk fails")
        found = read()
        self._actors.seam()
        return found
