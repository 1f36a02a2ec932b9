"""Tail: the newest items, from which joining clients catch up.

The items are unfiltered.
"""

from __future__ import annotations

from outfeed.history import Item, items_after

TAIL_EVENTS = 4000
TAIL_BYTES = 4 * 2**20


class Tail:
    """Every item above `start`, up to the position.

    The lock of `Cohorts` guards it.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self._items: list[Item] = []
        self._bytes = 0

    def extend(self, items: list[Item]) -> None:
        """Add *items*, which are newer than all others.

        The oldest items above TAIL_EVENTS or TAIL_BYTES are dropped.
        """
        self._items += items
        self._bytes += sum(len(item.json) for item in items)
        excess = max(0, len(self._items) - TAIL_EVENTS)
        size = self._bytes - sum(len(item.json) for item in self._items[:excess])
        while size > TAIL_BYTES:
            size -= len(self._items[excess].json)
            excess += 1
        if excess:
            self.start = self._items[excess - 1].seq
            del self._items[:excess]
        self._bytes = size

    def after(self, seq: int) -> list[Item] | None:
        """Return the items above *seq*, or None if some were dropped."""
        if seq < self.start:
            return None
        return items_after(self._items, seq)
