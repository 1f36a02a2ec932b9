"""High-water mark: the last served position, outside the database.

The file is `<database>.mark`. If a database is behind its mark, it is not the database that was served: a copy replaced
it, or a power cut lost commits of a writer at `synchronous=NORMAL`. Its seqs would be used again for other events, so
it gets a new epoch.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import zlib
from pathlib import Path
from typing import NamedTuple

from outfeed.history import Item
from outfeed.log_message import LogMessage
from outfeed.store import files
from outfeed.store.database import Database
from outfeed.store.outbox import Outbox

log = logging.getLogger(__name__)
_LINE_BYTES = 64


class Position(NamedTuple):
    """One served position: a seq and the checksum of its item.

    The checksum is 0 if the item was erased or pruned before it was read.
    """

    seq: int
    checksum: int

    @classmethod
    def at(cls, seq: int, items: list[Item]) -> Position:
        """Return the position *seq*; *items* are the last ones up to it."""
        return cls.of(items[-1]) if items and items[-1].seq == seq else cls(seq, 0)

    @classmethod
    def of(cls, item: Item) -> Position:
        # Only fields that no setting changes: the size limit of `data` and the redacted names may change between
        # starts.
        return cls(item.seq, zlib.crc32(f"{item.id} {item.timestamp}".encode()))


class HighWaterMark:
    """The mark file of one database, to which all its workers write.

    `_lock` guards the file descriptor and the line that was last written.
    """

    def __init__(self, database: Path) -> None:
        self.path = Path(f"{database}.mark")
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._line = b""
        self._synced = b""

    def read(self) -> dict[str, Position]:
        """Return the furthest served position of each epoch.

        Lines that cannot be parsed are skipped.
        """
        try:
            return self._read()
        except OSError as error:
            log.warning(LogMessage("can't read the high-water mark", path=self.path, error=error))
            return {}

    def _read(self) -> dict[str, Position]:
        try:
            lines = self.path.read_text("ascii", "replace").splitlines()
        except FileNotFoundError:
            return {}
        return dict(filter(None, map(_parse, lines)))

    def advance(self, epoch: str, point: Position) -> None:
        """Record *point* as served, before it is sent.

        The write is in the page cache at once, and `sync` brings it to disk. If another worker has recorded a later
        position, that one stays. At the same seq, a checksum other than 0 stays.
        """
        line = f"{epoch} {point.seq} {point.checksum}".ljust(_LINE_BYTES - 1).encode() + b"\n"
        with self._lock:
            self._put(epoch, point, line)

    def _put(self, epoch: str, point: Position, line: bytes) -> None:
        if self._descriptor is None or not self._line.startswith(epoch.encode()):
            self._reopen(epoch)
        assert self._descriptor is not None
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            found = _first_line(self._descriptor)
            if found is None or found[0] != epoch or _replaces(point, found[1]):
                os.pwrite(self._descriptor, line, 0)
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._line = line

    def sync(self) -> None:
        """Sync the mark to the disk if it has moved since the last sync.

        After an error the next call retries.
        """
        with self._lock:
            if self._descriptor is None:
                return
            try:
                if not self._is_in_place():
                    self._close_file()
                    self._rewrite()
                if self._descriptor is None or self._line == self._synced:
                    return
                os.fdatasync(self._descriptor)
                self._synced = self._line
            except OSError as error:
                log.warning(LogMessage("can't sync the high-water mark, trying again", path=self.path, error=error))

    def _rewrite(self) -> None:
        """Write the last position to a file that was swapped.

        If the process that swapped the file has recorded a later position, nothing is written. Otherwise two workers
        would swap files endlessly.
        """
        found = _parse(self._line.decode())
        if found is not None:
            epoch, point = found
            there = self._read().get(epoch)
            if there is None or there.seq < point.seq:
                self._put(epoch, point, self._line)

    def close(self) -> None:
        """Sync and close the file."""
        self.sync()
        with self._lock:
            self._close_file()

    def _is_in_place(self) -> bool:
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except OSError:
            return False

    def _close_file(self) -> None:
        # Forgotten before the close: on a full disk `advance` is called again, and the descriptor number may be another
        # file's by then.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _reopen(self, epoch: str) -> None:
        """Open the file if its first line has *epoch*, or swap in a new one."""
        self._close_file()
        if self.path.is_file():
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            found = _first_line(self._descriptor)
            if found is not None and found[0] == epoch:
                return
            self._close_file()
        # If the file cannot be read, nothing is written. Otherwise the positions of earlier epochs would be lost.
        earlier = [(name, point) for name, point in self._read().items() if name != epoch]
        lines = [f"{name} {point.seq} {point.checksum}".ljust(_LINE_BYTES - 1) for name, point in earlier]
        fresh = Path(f"{self.path}.{os.getpid()}")
        fresh.unlink(missing_ok=True)  # left by a process that ended half-way
        files.make_private(fresh)
        fresh.write_text("\n".join([" " * (_LINE_BYTES - 1), *lines]) + "\n", "ascii")
        files.give_to_owner_of_folder(fresh)
        os.replace(fresh, self.path)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)


def _replaces(point: Position, found: Position) -> bool:
    return point.seq > found.seq or (point.seq == found.seq and point.checksum != 0)


def _first_line(descriptor: int) -> tuple[str, Position] | None:
    return _parse(os.pread(descriptor, _LINE_BYTES, 0).decode("ascii", "replace"))


def _parse(line: str) -> tuple[str, Position] | None:
    match line.split():
        case [epoch, seq, checksum] if seq.isdigit() and checksum.isdigit():
            return epoch, Position(int(seq), int(checksum))
    return None


def renew_epoch_if_behind(database: Database, outbox: Outbox, mark: HighWaterMark) -> bool:
    """Renew the epoch of a database that contradicts the mark.

    The database is behind the mark, or has another event at its seq. Returns whether the epoch was renewed.
    """
    window = outbox.window()
    point = mark.read().get(window.epoch)
    if point is None or not contradicts(point, window.last_seq, outbox.read_after(point.seq - 1, 1).items):
        return False
    log.warning(LogMessage("database is behind the high-water mark, renewing its epoch", path=database.path))
    outbox.renew_epoch(window.epoch)
    return True


def contradicts(point: Position, last_seq: int, items: list[Item]) -> bool:
    """Return whether a database is not the one that *point* is of.

    *last_seq* is its head, and *items* are its first ones from the seq of *point* on.
    """
    # If the first item has another seq, the row of *point* was pruned.
    is_other = bool(items) and items[0].seq == point.seq and Position.of(items[0]) != point
    return last_seq < point.seq or is_other
