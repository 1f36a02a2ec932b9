"""Waiting for the feed and hurrying it: no news is missed, whichever thread comes between which two steps."""

from __future__ import annotations

import threading
import time

import pytest

from outfeed.feed import tail
from outfeed.feed.hub import Hub
from outfeed.feed.relay import Relay
from outfeed.feed.subscription import Filter
from outfeed.principal import Visible
from tests.feed.cast import MemorySource, hub_of
from tests.waits import wait_until

EVERYTHING = Filter(Visible())
LONG_SECS = 20.0


class Waiting:
    """A thread that waits at the hub, and how long it took."""

    def __init__(
        self,
        hub: Hub,
        filter_: Filter = EVERYTHING,
        epoch: str = "epoch-1",
        cursor: int = 0,
        event: threading.Event | None = None,
    ) -> None:
        before = waiting_at(hub)
        self._thread = threading.Thread(target=hub.wait_for, args=(filter_, epoch, cursor, LONG_SECS, event))
        self._thread.start()
        wait_until(lambda: waiting_at(hub) > before or not self._thread.is_alive(), "waiting")

    def ends(self) -> bool:
        """Return whether it is over long before it would be by itself."""
        self._thread.join(LONG_SECS / 2)
        return not self._thread.is_alive()

    def goes_on(self) -> bool:
        """Return whether it is not over in a while."""
        self._thread.join(0.2)
        return self._thread.is_alive()


def waiting_at(hub: Hub) -> int:
    return sum(map(len, hub._waiting.values()))


@pytest.fixture
def source() -> MemorySource:
    found = MemorySource()
    found.add(3)
    return found


@pytest.fixture
def hub(source: MemorySource) -> Hub:
    return hub_of(source)


@pytest.fixture
def relay(hub: Hub) -> Relay:
    found = Relay(hub, lambda *_: None, heartbeat_secs=60)
    found.start()
    return found


class TestWaitFor:
    def test_an_event_that_matches_ends_it(self, hub: Hub, source: MemorySource, relay: Relay) -> None:
        waiting = Waiting(hub, cursor=3)
        source.add(1)
        relay.poll()
        assert waiting.ends()
        assert not hub._waiting

    def test_one_that_does_not_match_leaves_it_waiting(self, hub: Hub, source: MemorySource, relay: Relay) -> None:
        waiting = Waiting(hub, Filter(Visible(), types=("wanted.*",)), cursor=3)
        source.add(1)
        relay.poll()
        assert waiting.goes_on()
        source.add(1, event_type="wanted.one")
        relay.poll()
        assert waiting.ends()

    def test_what_was_published_between_the_read_and_the_wait_ends_it_at_once(
        self, hub: Hub, source: MemorySource, relay: Relay
    ) -> None:
        source.add(1)
        relay.poll()
        assert Waiting(hub, cursor=3).ends()

    def test_what_has_left_the_tail_again_ends_it_at_once(
        self, hub: Hub, source: MemorySource, relay: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "TAIL_EVENTS", 2)
        source.add(5)
        relay.poll()
        assert Waiting(hub, Filter(Visible(), types=("wanted.*",)), cursor=3).ends()

    def test_it_waits_where_it_is_ahead_of_the_hub(self, hub: Hub, source: MemorySource, relay: Relay) -> None:
        source.add(2)
        waiting = Waiting(hub, cursor=5)
        relay.poll()
        waiting._thread.join(0.2)
        source.add(1)
        relay.poll()
        assert waiting.ends()

    def test_another_epoch_ends_it(self, hub: Hub, source: MemorySource, relay: Relay) -> None:
        waiting = Waiting(hub, cursor=3)
        source.renew_epoch("epoch-1")
        relay.poll()
        assert waiting.ends()

    def test_pruning_that_overtakes_the_hub_ends_it(self, hub: Hub, source: MemorySource, relay: Relay) -> None:
        waiting = Waiting(hub, cursor=3)
        source.add(5)
        source.prune(7)
        relay.poll()
        assert waiting.ends()

    def test_an_epoch_that_the_hub_has_not_seen_yet_is_no_busy_loop(
        self, hub: Hub, source: MemorySource, relay: Relay
    ) -> None:
        source.renew_epoch("epoch-1")
        assert Waiting(hub, epoch=source.epoch, cursor=3).ends()
        assert hub.epoch == source.epoch
        waiting = Waiting(hub, epoch=source.epoch, cursor=3)
        assert waiting.goes_on()
        hub.close()
        assert waiting.ends()

    def test_closing_ends_it_and_lets_nobody_wait_again(self, hub: Hub, relay: Relay) -> None:
        waiting = Waiting(hub, cursor=3)
        hub.close()
        assert waiting.ends()
        assert Waiting(hub, cursor=3).ends()

    def test_who_waits_is_counted_unless_it_is_one_of_our_own(self, hub: Hub, relay: Relay) -> None:
        waiting = [Waiting(hub, cursor=3), Waiting(hub, cursor=3, event=threading.Event())]
        assert (hub.counts(), len(hub)) == ({("poll", "waiting"): 1}, 1)
        hub.close()
        assert all(each.ends() for each in waiting)
        assert (hub.counts(), len(hub)) == ({}, 0)

    def test_a_timeout_leaves_nothing_behind(self, hub: Hub, relay: Relay) -> None:
        hub.wait_for(EVERYTHING, "epoch-1", 3, timeout=0.01)
        assert not hub._waiting

    def test_none_of_many_misses_one_of_many(self, hub: Hub, source: MemorySource, relay: Relay) -> None:
        """Each reads, then waits, then reads; the relay publishes at any moment in between."""
        counts = [0] * 8

        def follow(which: int) -> None:
            cursor = 3
            while cursor < 303:
                hub.wait_for(EVERYTHING, "epoch-1", cursor, LONG_SECS)
                page = source.read_after(cursor, 1000)
                counts[which] += len(page.items)
                cursor = page.through

        threads = [threading.Thread(target=follow, args=(which,)) for which in range(len(counts))]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        for _ in range(300):
            source.add(1)
            relay.poll()
        for thread in threads:
            thread.join()
        assert counts == [300] * len(counts)
        assert time.monotonic() - began < LONG_SECS / 2


class TestHurrying:
    def test_a_poll_that_comes_while_a_hurried_one_ends_is_not_lost(
        self, hub: Hub, source: MemorySource, relay: Relay
    ) -> None:
        """The commit is noticed after the last look at the source, before the other call lets go."""
        original = relay._beat

        def beat() -> None:
            original()
            relay._beat = original  # type: ignore[method-assign]
            source.add(1)
            other = threading.Thread(target=relay.poll)
            other.start()
            other.join()

        relay._beat = beat  # type: ignore[method-assign]
        relay.poll_now()
        assert hub.position == 4
