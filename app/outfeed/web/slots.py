"""The slots: what each worker counts, where the others see it.

Shared memory that the master makes before it forks: no files that a full disk could harm or a `kill -9` leave behind.
Each worker has a slot, which the next one takes over when it dies: its counters begin at zero, as Prometheus expects.
"""

from __future__ import annotations

import mmap
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import orjson

PAGE_BYTES = 128 * 1024
_HEAD = struct.Struct("=II")  # length and checksum
# By metric its samples: the values of the labels, and the value, or a histogram's counts and sum.
Sample = tuple[list[str], Any]
Counts = dict[str, list[Sample]]


class Board:
    """*slots* in the memory of all processes that are forked from here.

    Each has two pages, and a byte that says which is whole: who reads while somebody writes gets what was there before.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._whole = mmap.mmap(-1, slots)
        self._pages = mmap.mmap(-1, slots * 2 * PAGE_BYTES)

    def put(self, slot: int, data: bytes) -> None:
        """Replace what stands in *slot*; nothing to empty it. What is too long for it is left out."""
        if len(data) > PAGE_BYTES - _HEAD.size:
            data = b""
        page = 1 - self._whole[slot]
        start = self._start(slot, page)
        self._pages[start + _HEAD.size : start + _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._pages, start, len(data), zlib.crc32(data))
        self._whole[slot] = page

    def get(self, slot: int) -> bytes:
        """Return what stands in *slot*; nothing where it is empty, or was replaced twice meanwhile."""
        start = self._start(slot, self._whole[slot])
        length, checksum = _HEAD.unpack_from(self._pages, start)
        data = self._pages[start + _HEAD.size : start + _HEAD.size + min(length, PAGE_BYTES - _HEAD.size)]
        return data if zlib.crc32(data) == checksum else b""

    @staticmethod
    def _start(slot: int, page: int) -> int:
        return (2 * slot + page) * PAGE_BYTES


class Place:
    """A worker's place on the board, where it writes what it counts: each second, and whenever it is asked itself.

    So no counter goes back between two requests, whichever worker answers. Alone it needs none. `_lock` guards it.
    """

    def __init__(self, slot: int = 0, board: Board | None = None) -> None:
        self.slot = slot
        self._board = board
        self._lock = threading.Lock()

    @property
    def is_shared(self) -> bool:
        """Whether there may be others."""
        return self._board is not None and self._board.slots > 1

    def publish(self, count: Callable[[], Counts]) -> Counts:
        """Show the other workers what this one counts, and return it."""
        with self._lock:
            counts = count()
            if self._board is not None:
                self._board.put(self.slot, orjson.dumps(counts))
        return counts

    def others(self) -> Iterator[tuple[int, Counts]]:
        """Yield what the other workers count, by slot; about a second old."""
        for slot in range(self._board.slots if self._board is not None else 0):
            if self._board is not None and slot != self.slot and (data := self._board.get(slot)):
                yield slot, orjson.loads(data)
