"""Waiting for events: no event is missed under any order of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

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
        """Return whether the wait ends long before its timeout."""
        self._thread.join(LONG_SECS / 2)
        return not self._thread.is_alive()

    def goes_on(self) -> bool:
        """Return whether the wait is not over after a short time."""
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
    def test_a_matching_event_ends_the_wait(self, core: Core, source: MemorySource) -> None:
        waiting = Waiting(core, cursor=3)
        source.add(1)
        core.relay.poll()
        assert waiting.ends()
        assert core.waiters.count == 0

    def test_an_event_that_does_not_match_does_not_end_the_wait(self, core: Core, source: MemorySource) -> None:
        waiting = Waiting(core, Filter(EventScope(), types=("wanted.*",)), cursor=3)
        source.add(1)
        core.relay.poll()
        assert waiting.goes_on()
        source.add(1, event_type="wanted.one")
        core.relay.poll()
        assert waiting.ends()

    def test_an_event_between_the_read_and_the_wait_ends_the_wait_at_once(
        self, core: Core, source: MemorySource
    ) -> None:
        source.add(1)
        core.relay.poll()
        assert Waiting(core, cursor=3).ends()

    def test_an_event_between_the_check_of_the_tail_and_the_wait_ends_the_wait(
        self, core: Core, source: MemorySource
    ) -> None:
        class Stepped(Filter):
            """A filter that publishes the next event during its check of the first.

            The first event does not match.
            """

            def matches(self, item: Item) -> bool:
                if item.seq == 4 and source.last_seq == 4:
                    source.add(1, event_type="wanted.one")
                    core.relay.poll()
                return super().matches(item)

        source.add(1, event_type="other.one")
        core.relay.poll()
        assert Waiting(core, Stepped(EventScope(), types=("wanted.*",)), cursor=3).ends()

    def test_an_event_that_has_left_the_tail_ends_the_wait_at_once(
        self, core: Core, source: MemorySource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "TAIL_EVENTS", 2)
        source.add(5)
        core.relay.poll()
        assert Waiting(core, Filter(EventScope(), types=("wanted.*",)), cursor=3).ends()

    def test_a_waiter_ahead_of_the_hub_waits(self, core: Core, source: MemorySource) -> None:
        source.add(2)
        waiting = Waiting(core, cursor=5)
        core.relay.poll()
        waiting.goes_on()  # or it returns early, since the published event is before its cursor
        source.add(1)
        core.relay.poll()
        assert waiting.ends()

    def test_another_epoch_ends_the_wait(self, core: Core, source: MemorySource) -> None:
        waiting = Waiting(core, cursor=3)
        source.renew_epoch("epoch-1")
        core.relay.poll()
        assert waiting.ends()

    def test_pruning_that_overtakes_the_hub_ends_the_wait(self, core: Core, source: MemorySource) -> None:
        waiting = Waiting(core, cursor=3)
        source.add(5)
        source.prune(7)
        core.relay.poll()
        assert waiting.ends()

    def test_an_epoch_that_the_hub_has_not_seen_yet_causes_no_busy_loop(self, core: Core, source: MemorySource) -> None:
        source.renew_epoch("epoch-1")
        assert Waiting(core, epoch=source.epoch, cursor=3).ends()
        assert core.hub.epoch == source.epoch
        waiting = Waiting(core, epoch=source.epoch, cursor=3)
        assert waiting.goes_on()
        core.hub.close()
        assert waiting.ends()

    def test_closing_ends_the_wait_and_later_ones(self, core: Core) -> None:
        waiting = Waiting(core, cursor=3)
        core.hub.close()
        assert waiting.ends()
        assert Waiting(core, cursor=3).ends()

    def test_waiting_clients_are_counted_without_other_waiters(self, core: Core) -> None:
        waiting = [Waiting(core, cursor=3), Waiting(core, cursor=3, event=threading.Event())]
        assert core.hub.counts() == {("poll", "waiting"): 1}
        core.hub.close()
        assert all(each.ends() for each in waiting)
        assert core.hub.counts() == {}

    def test_a_timeout_leaves_nothing_behind(self, core: Core) -> None:
        core.reader.wait(EVERYTHING, "epoch-1", 3, timeout=0.01)
        assert core.waiters.count == 0

    def test_waiters_of_other_filters_stay_when_an_event_wakes_one(self, core: Core, source: MemorySource) -> None:
        wanted = Waiting(core, Filter(EventScope(), types=("wanted.*",)), cursor=3)
        other = Waiting(core, Filter(EventScope(), types=("other.*",)), cursor=3)
        source.add(1, event_type="wanted.one")
        core.relay.poll()
        assert wanted.ends()
        assert (other.goes_on(), core.waiters.count) == (True, 1)
        core.hub.close()
        assert other.ends()

    def test_no_waiter_of_many_misses_an_event(self, core: Core, source: MemorySource) -> None:
        """Each waiter reads, then waits, then reads again.

        The relay publishes at any moment in between.
        """
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


class TestWithoutAThread:
    """A caller that registers a waiter and does not block."""

    def test_an_event_between_the_read_and_the_registration_is_reported_at_once(
        self, core: Core, source: MemorySource
    ) -> None:
        source.add(1)
        core.relay.poll()
        woken = threading.Event()
        assert not core.reader.begin_wait(EVERYTHING, "epoch-1", 3, woken)
        assert core.waiters.count == 0
        assert core.reader.begin_wait(EVERYTHING, "epoch-1", 4, woken)
        assert core.hub.counts() == {("poll", "waiting"): 1}
        assert not woken.is_set()

    def test_an_event_after_the_registration_wakes_it(self, core: Core, source: MemorySource) -> None:
        woken, left = threading.Event(), threading.Event()
        assert core.reader.begin_wait(EVERYTHING, "epoch-1", 3, woken)
        assert core.reader.begin_wait(EVERYTHING, "epoch-1", 3, left)
        core.reader.end_wait(EVERYTHING, left)
        source.add(1)
        core.relay.poll()
        assert (woken.is_set(), left.is_set(), core.waiters.count) == (True, False, 0)

    @pytest.mark.parametrize("end", [Core.forget, lambda core: core.hub.close(), lambda core: core.note_types(1)])
    def test_an_erasure_the_close_and_a_change_of_types_wake_it(
        self, core: Core, end: Callable[[Core], object]
    ) -> None:
        woken = threading.Event()
        assert core.reader.begin_wait(EVERYTHING, "epoch-1", 3, woken)
        end(core)
        assert (woken.is_set(), core.waiters.count) == (True, 0)

    def test_another_epoch_is_reported_at_once_and_read(self, core: Core, source: MemorySource) -> None:
        source.renew_epoch("epoch-1")
        assert not core.reader.begin_wait(EVERYTHING, source.epoch, 3, threading.Event())
        assert core.hub.epoch == source.epoch
