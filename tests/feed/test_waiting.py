"""Waiting for the feed and hurrying it: no news is missed, whichever thread comes between which two steps."""

from __future__ import annotations

import threading
import time

import pytest

from outfeed.feed import tail
from outfeed.feed.core import Core
from outfeed.feed.subscription import Filter
from outfeed.history import Item
from outfeed.principal import EventScope
from tests.feed.fake_source import MemorySource, core_of
from tests.waits import wait_until

EVERYTHING = Filter(EventScope())
LONG_SECS = 20.0


class Waiting:
    """A thread that waits for an event."""

    def __init__(
        self,
        core: Core,
        filter_: Filter = EVERYTHING,
        epoch: str = "epoch-1",
        cursor: int = 0,
        event: threading.Event | None = None,
    ) -> None:
        before = core.waiters.count
        self._thread = threading.Thread(target=core.reader.wait, args=(filter_, epoch, cursor, LONG_SECS, event))
        self._thread.start()
        wait_until(lambda: core.waiters.count > before or not self._thread.is_alive(), "waiting")

    def ends(self) -> bool:
        """Return whether it is over long before it would be by itself."""
        self._thread.join(LONG_SECS / 2)
        return not self._thread.is_alive()

    def goes_on(self) -> bool:
        """Return whether it is not over in a while."""
        self._thread.join(0.2)
        return self._thread.is_alive()


@pytest.fixture
def source() -> MemorySource:
    found = MemorySource()
    found.add(3)
    return found


@pytest.fixture
def core(source: MemorySource) -> Core:
    found = core_of(source)
    found.relay.start()
    return found


class TestWaitFor:
    def test_an_event_that_matches_ends_it(self, core: Core, source: MemorySource) -> None:
        waiting = Waiting(core, cursor=3)
        source.add(1)
        core.relay.poll()
        assert waiting.ends()
        assert core.waiters.count == 0

    def test_one_that_does_not_match_leaves_it_waiting(self, core: Core, source: MemorySource) -> None:
        waiting = Waiting(core, Filter(EventScope(), types=("wanted.*",)), cursor=3)
        source.add(1)
        core.relay.poll()
        assert waiting.goes_on()
        source.add(1, event_type="wanted.one")
        core.relay.poll()
        assert waiting.ends()

    def test_what_was_published_between_the_read_and_the_wait_ends_it_at_once(
        self, core: Core, source: MemorySource
    ) -> None:
        source.add(1)
        core.relay.poll()
        assert Waiting(core, cursor=3).ends()

    def test_what_is_published_between_its_look_at_the_tail_and_its_wait_ends_it(
        self, core: Core, source: MemorySource
    ) -> None:
        class Stepped(Filter):
            """Has the next event published while the first, which doesn't match, is looked at."""

            def matches(self, item: Item) -> bool:
                if item.seq == 4 and source.last_seq == 4:
                    source.add(1, event_type="wanted.one")
                    core.relay.poll()
                return super().matches(item)

        source.add(1, event_type="other.one")
        core.relay.poll()
        assert Waiting(core, Stepped(EventScope(), types=("wanted.*",)), cursor=3).ends()

    def test_what_has_left_the_tail_again_ends_it_at_once(
        self, core: Core, source: MemorySource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "TAIL_EVENTS", 2)
        source.add(5)
        core.relay.poll()
        assert Waiting(core, Filter(EventScope(), types=("wanted.*",)), cursor=3).ends()

    def test_it_waits_where_it_is_ahead_of_the_hub(self, core: Core, source: MemorySource) -> None:
        source.add(2)
        waiting = Waiting(core, cursor=5)
        core.relay.poll()
        waiting.goes_on()  # or ends in vain, since what is published lies before its cursor
        source.add(1)
        core.relay.poll()
        assert waiting.ends()

    def test_another_epoch_ends_it(self, core: Core, source: MemorySource) -> None:
        waiting = Waiting(core, cursor=3)
        source.renew_epoch("epoch-1")
        core.relay.poll()
        assert waiting.ends()

    def test_pruning_that_overtakes_the_hub_ends_it(self, core: Core, source: MemorySource) -> None:
        waiting = Waiting(core, cursor=3)
        source.add(5)
        source.prune(7)
        core.relay.poll()
        assert waiting.ends()

    def test_an_epoch_that_the_hub_has_not_seen_yet_is_no_busy_loop(self, core: Core, source: MemorySource) -> None:
        source.renew_epoch("epoch-1")
        assert Waiting(core, epoch=source.epoch, cursor=3).ends()
        assert core.hub.epoch == source.epoch
        waiting = Waiting(core, epoch=source.epoch, cursor=3)
        assert waiting.goes_on()
        core.hub.close()
        assert waiting.ends()

    def test_closing_ends_it_and_lets_nobody_wait_again(self, core: Core) -> None:
        waiting = Waiting(core, cursor=3)
        core.hub.close()
        assert waiting.ends()
        assert Waiting(core, cursor=3).ends()

    def test_who_waits_is_counted_unless_it_is_one_of_our_own(self, core: Core) -> None:
        waiting = [Waiting(core, cursor=3), Waiting(core, cursor=3, event=threading.Event())]
        assert core.hub.counts() == {("poll", "waiting"): 1}
        core.hub.close()
        assert all(each.ends() for each in waiting)
        assert core.hub.counts() == {}

    def test_a_timeout_leaves_nothing_behind(self, core: Core) -> None:
        core.reader.wait(EVERYTHING, "epoch-1", 3, timeout=0.01)
        assert core.waiters.count == 0

    def test_none_of_many_misses_one_of_many(self, core: Core, source: MemorySource) -> None:
        """Each reads, then waits, then reads; the relay publishes at any moment in between."""
        counts = [0] * 8

        def follow(which: int) -> None:
            cursor = 3
            while cursor < 303:
                core.reader.wait(EVERYTHING, "epoch-1", cursor, LONG_SECS)
                page = source.read_after(cursor, 1000)
                counts[which] += len(page.items)
                cursor = page.through

        threads = [threading.Thread(target=follow, args=(which,)) for which in range(len(counts))]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        for _ in range(300):
            source.add(1)
            core.relay.poll()
        for thread in threads:
            thread.join()
        assert counts == [300] * len(counts)
        assert time.monotonic() - began < LONG_SECS / 2
