"""Page cache: one read serves all clients that replay the same.

Every answer is one that the source would give.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from outfeed.feed import page_cache
from outfeed.feed.page_cache import PAGE_EVENTS, PageCache
from outfeed.history import Page
from tests.feed.fake_source import LockedSource, MemorySource
from tests.feed.simulated import Clock
from tests.feed.socket_harness import Client, Feed


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that the test moves.

    A page is kept for seconds, and a crowd is detected within one second. A stall of the machine must not count.
    """
    return Clock(monkeypatch)


@pytest.fixture
def source() -> MemorySource:
    found = MemorySource()
    found.add(5 * PAGE_EVENTS)
    return found


@pytest.fixture
def cache(source: MemorySource) -> PageCache:
    return crowded(PageCache(source))


def crowded(cache: PageCache) -> PageCache:
    """Return *cache* after reads at two places: now pages are kept."""
    for seq in (0, 5):
        cache.read_after(seq, 1)
    cache.forget()
    return cache


def replay(cache: PageCache, after: int, until: int) -> list[int]:
    """Return the seqs from *after* to *until*, read page by page."""
    seqs: list[int] = []
    while after < until:
        page = cache.read_after(after, PAGE_EVENTS)
        assert page.through > after
        seqs += [item.seq for item in page.items]
        after = page.through
    return seqs


def test_no_page_is_kept_while_one_client_reads(source: MemorySource, time: Clock) -> None:
    cache = PageCache(source)
    for after in (0, 2 * PAGE_EVENTS):
        replay(cache, after, 4 * PAGE_EVENTS)
        assert cache.kept_events == 0
        time.now += page_cache.CROWD_SECS
    crowded(cache)
    replay(cache, 0, PAGE_EVENTS)
    assert cache.kept_events > 0
    time.now += page_cache.KEEP_SECS + 1
    cache.forget_old()
    replay(cache, 0, 4 * PAGE_EVENTS)
    assert cache.kept_events == 0


def test_a_later_client_costs_no_read(cache: PageCache, source: MemorySource) -> None:
    end = 4 * PAGE_EVENTS
    assert replay(cache, 0, end) == list(range(1, end + 1))
    reads = source.reads
    assert replay(cache, 0, end) == list(range(1, end + 1))
    assert source.reads == reads


def test_clients_with_different_cursors_share_pages(cache: PageCache, source: MemorySource) -> None:
    end, reads = 4 * PAGE_EVENTS, source.reads
    for after in (10, 7, 12, PAGE_EVENTS - 1):
        assert replay(cache, after, end) == list(range(after + 1, end + 1))
    assert source.reads - reads == 5  # four pages, and the second client's own


def test_of_simultaneous_clients_one_reads() -> None:
    class Slow(LockedSource):
        def read_after(self, seq: int, limit: int) -> Page:
            is_free.wait(5)
            return super().read_after(seq, limit)

    is_free = threading.Event()
    is_free.set()
    feed = Feed(Slow())
    feed.source.add(3000)
    crowded(feed.core.pages)
    reads = feed.source.reads
    found: list[Page] = []
    is_free.clear()
    threads = [threading.Thread(target=lambda: found.append(feed.core.pages.read_after(0, 1000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    is_free.set()
    for thread in threads:
        thread.join(5)
    assert [page.items[-1].seq for page in found] == [1000] * 8
    assert feed.source.reads - reads == 1


def test_many_clients_that_are_far_behind_are_served_from_one_read_of_each_page() -> None:
    feed = Feed()
    feed.write(10 * PAGE_EVENTS)
    feed.core.forget()
    crowded(feed.core.pages)
    reads = feed.source.reads
    for _ in range(5):
        with Client(feed) as client:
            client.run()
            client.ask(action="subscribe", channel="events", after=0)
            client.take_verdict()
            assert client.follow(10 * PAGE_EVENTS) == list(range(1, 10 * PAGE_EVENTS + 1))
    # The last page ends at the head and is read again.
    assert feed.source.reads - reads <= 10 + 5


def test_a_page_that_ends_at_the_head_is_read_again(cache: PageCache, source: MemorySource) -> None:
    source.add(10)
    head = source.last_seq
    assert cache.read_after(head - 5, 1000).through == head
    source.add(3)
    assert [item.seq for item in cache.read_after(head - 5, 1000).items] == list(range(head - 4, head + 4))


def test_a_kept_page_has_the_current_window(cache: PageCache, source: MemorySource) -> None:
    cache.read_after(0, 1000)
    source.prune(500)
    assert cache.read_after(0, 1000).window.first_seq == 501  # pruning has overtaken a cursor of 0
    assert cache.read_after(500, 1000).items[0].seq == 501


def test_a_page_without_pruned_events_is_not_used_when_they_are_back(cache: PageCache, source: MemorySource) -> None:
    """An engine that has failed over has events again that it had trimmed."""
    items = source.items
    source.items = items[50:]
    assert cache.read_after(10, PAGE_EVENTS).items[0].seq == 51
    source.items = items
    assert cache.read_after(10, PAGE_EVENTS).items[0].seq == 11


@pytest.mark.parametrize(
    "change", [lambda source: source.renew_epoch("epoch-1"), lambda source: restore_copy(source, 50)]
)
def test_another_history_is_not_served_from_kept_pages(
    cache: PageCache, source: MemorySource, change: Callable[[MemorySource], None]
) -> None:
    cache.read_after(0, 1000)
    change(source)
    assert cache.read_after(0, 1000) == source.read_after(0, 1000)


def restore_copy(source: MemorySource, seq: int) -> None:
    source.items = [item for item in source.items if item.seq <= seq]
    source.last_seq = seq


def test_an_erasure_empties_the_page_cache_and_the_tail() -> None:
    feed = Feed()
    feed.write(3 * PAGE_EVENTS)
    crowded(feed.core.pages).read_after(0, 1000)
    feed.source.items = [item for item in feed.source.items if item.seq != 7]
    feed.core.forget()
    assert 7 not in [item.seq for item in feed.core.pages.read_after(0, 1000).items]


def test_a_page_that_is_read_during_an_erasure_is_not_kept(
    cache: PageCache, source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_after = source.read_after

    def erase_meanwhile(seq: int, limit: int) -> Page:
        page = read_after(seq, limit)
        source.items = [item for item in source.items if item.seq != 7]
        cache.forget()
        return page

    with monkeypatch.context() as patch:
        patch.setattr(source, "read_after", erase_meanwhile)
        assert 7 in [item.seq for item in cache.read_after(0, 1000).items]
    assert 7 not in [item.seq for item in cache.read_after(0, 1000).items]


def test_a_page_is_kept_for_seconds_only(cache: PageCache, source: MemorySource, time: Clock) -> None:
    crowded(cache).read_after(0, 1000)
    cache.forget_old()
    assert cache.kept_events > 0
    time.now += page_cache.KEEP_SECS + 1
    source.items = [item for item in source.items if item.seq != 7]
    assert 7 not in [item.seq for item in cache.read_after(0, 1000).items]
    crowded(cache).read_after(0, 1000)
    time.now += page_cache.KEEP_SECS + 1
    cache.forget_old()
    assert cache.kept_events == 0


def test_the_heartbeat_frees_old_pages(time: Clock) -> None:
    feed = Feed(heartbeat_secs=60)
    feed.write(3 * PAGE_EVENTS)
    crowded(feed.core.pages).read_after(0, 1000)
    time.now += 60
    assert feed.core.pages.kept_events > 0
    feed.relay.poll()
    assert feed.core.pages.kept_events == 0


@pytest.mark.parametrize("bound", ["CACHE_EVENTS", "CACHE_BYTES"])
def test_the_oldest_pages_are_dropped_above_the_limit(
    cache: PageCache, source: MemorySource, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    size = sum(len(item.json) for item in source.items[2 * PAGE_EVENTS : 4 * PAGE_EVENTS])
    monkeypatch.setattr(page_cache, bound, {"CACHE_EVENTS": 2 * PAGE_EVENTS, "CACHE_BYTES": size}[bound])
    replay(cache, 0, 4 * PAGE_EVENTS)
    assert cache.kept_events == 2 * PAGE_EVENTS
    reads = source.reads
    replay(cache, 2 * PAGE_EVENTS, 4 * PAGE_EVENTS)
    assert source.reads == reads


@pytest.mark.parametrize("seed", range(20))
def test_the_cache_always_answers_as_the_source_or_with_the_beginning_of_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_cache, "PAGE_EVENTS", 10)
    monkeypatch.setattr(page_cache, "CACHE_BYTES", 5_000)
    dice, source = random.Random(seed), MemorySource()
    cache = PageCache(source)
    for _ in range(500):
        match dice.randrange(20):
            case 0:
                source.prune(dice.randint(0, source.last_seq))
            case 1:
                source.renew_epoch(source.epoch)
                restore_copy(source, dice.randint(0, source.last_seq))
            case 2 | 3 | 4:
                source.add(dice.choice([1, 3, 30]))
            case _:
                seq, limit = dice.randint(0, source.last_seq), dice.choice([1, 5, 10, 100])
                page, truth = cache.read_after(seq, limit), source.read_after(seq, limit)
                assert page.window == truth.window
                if truth.window.first_seq > seq + 1:
                    continue  # the client was told that it was overtaken
                assert page.items == truth.items[: len(page.items)]
                rest = [item.seq for item in truth.items[len(page.items) :]]
                assert page.through <= truth.through
                assert page.through > seq or truth.through == seq
                assert not rest or page.through < rest[0]
