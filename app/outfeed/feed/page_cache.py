"""Page cache: recently read pages for clients that replay together."""

from __future__ import annotations

import math
import threading
from typing import NamedTuple

from outfeed import clock
from outfeed.feed.source import PAGE_EVENTS, Source
from outfeed.history import Item, Page, items_after

# Pages end at multiples of PAGE_EVENTS, so that clients with different cursors read the same pages from there on.
# Clients that replay together read the same pages at nearly the same time, so a few pages are enough.
CACHE_EVENTS = 16 * PAGE_EVENTS
CACHE_BYTES = 4 * 2**20
KEEP_SECS = 10.0
# If two reads at different places come within this time, they belong to two clients.
CROWD_SECS = 1.0


class _Kept(NamedTuple):
    """All items after *start* up to *through* in *epoch*.

    *size* is the size of their JSON, in bytes.
    """

    epoch: str
    start: int
    through: int
    items: list[Item]
    size: int
    read_at: float


class PageCache:
    """Reads pages of a source for clients that are behind.

    Any thread may call any method. `_lock` guards the pages, the oldest first.

    One thread reads at a time, with `_reading` held. If several threads read, the clients in front would get so far
    ahead that a page is dropped before the clients behind need it. With 20 clients 300,000 events behind, one reader
    gives all of them three times as many events a second. While only one client reads, no page is kept: reusing the
    same memory serves that client a quarter faster.

    `erasures` counts the calls of `forget`.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._pages: list[_Kept] = []
        self.erasures = 0
        self._last_through = 0
        self._last_read_at = self._crowded_until = -math.inf

    def read_after(self, seq: int, limit: int) -> Page:
        """Return the source's `read_after`, or the beginning of it.

        The window is always fresh. Within an epoch a seq never names another event, so a kept page agrees with the
        window as far as the page reaches.
        """
        kept = self._find(seq)
        if kept is None:
            with self._reading:
                kept = self._find(seq)  # another thread may have read it
                if kept is None:
                    return self._read_after(seq, limit)
        window = self._source.window()
        if window.epoch != kept.epoch or window.last_seq < kept.through:
            return self._source.read_after(seq, limit)
        items = items_after(kept.items, seq)
        through = kept.through if len(items) <= limit else items[limit - 1].seq
        return Page(window, items[:limit], through)

    @property
    def kept_events(self) -> int:
        """Number of events in the cache."""
        return sum(len(kept.items) for kept in self._pages)

    def forget(self) -> None:
        """Drop all pages after an erasure."""
        with self._lock:
            self._pages = []
            self.erasures += 1  # a page that is being read now is not kept either

    def forget_old(self) -> None:
        """Free the pages that are older than KEEP_SECS."""
        oldest = clock.monotonic() - KEEP_SECS
        with self._lock:
            self._pages = [kept for kept in self._pages if kept.read_at >= oldest]

    def _find(self, seq: int) -> _Kept | None:
        oldest = clock.monotonic() - KEEP_SECS
        with self._lock:
            return next(
                (kept for kept in self._pages if kept.start <= seq < kept.through and kept.read_at >= oldest), None
            )

    def _read_after(self, seq: int, limit: int) -> Page:
        erasures = self.erasures
        page = self._source.read_after(seq, min(limit, PAGE_EVENTS - seq % PAGE_EVENTS))
        self._note(seq, page, erasures)
        return page

    def _note(self, seq: int, page: Page, erasures: int) -> None:
        """Keep *page*, read after *seq*, if another client may use it.

        *erasures* is the count from before the read. If it has changed, the page is not kept. A page that ends at the
        head is not kept, since more events will follow. No page is kept while only one client reads.
        """
        now = clock.monotonic()
        with self._lock:
            if seq != self._last_through and now - self._last_read_at < CROWD_SECS:
                self._crowded_until = now + KEEP_SECS
            self._last_through, self._last_read_at = page.through, now
            is_of_use = now < self._crowded_until and page.through < page.window.last_seq
            if not is_of_use or erasures != self.erasures:
                return
            size = sum(len(item.json) for item in page.items)
            # An engine that has failed over may have events again that it had trimmed.
            start = max(seq, page.window.first_seq - 1)
            self._pages.append(_Kept(page.window.epoch, start, page.through, page.items, size, now))
            while self._is_too_large():
                del self._pages[0]

    def _is_too_large(self) -> bool:
        return self.kept_events > CACHE_EVENTS or sum(kept.size for kept in self._pages) > CACHE_BYTES
