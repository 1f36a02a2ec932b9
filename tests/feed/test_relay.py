"""The relay: pending events are pushed by any caller, despite errors."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from outfeed import clock
from outfeed.errors import DatabaseMissing, DatabaseUnreadable
from outfeed.feed import frames, relay
from outfeed.feed.client import ClientState
from outfeed.feed.relay import BURST_EVENTS, MAX_REST_SECS, PAGE_EVENTS
from outfeed.feed.sse import SSE
from outfeed.feed.subscription import Filter
from outfeed.feed.tail import TAIL_EVENTS
from outfeed.history import Claim, Page
from outfeed.principal import Principal
from tests.feed.fake_source import VIEWER, LockedSource, core_of
from tests.feed.samples import counted
from tests.feed.simulated import Simulation
from tests.feed.socket_harness import Client, Feed
from tests.waits import wait_until


class SteppedSource(LockedSource):
    """A source that lets a test act after each read.

    The relay has no answer yet at that moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self.after_read: Callable[[], None] = lambda: None

    def read_after(self, seq: int, limit: int) -> Page:
        page = super().read_after(seq, limit)
        self.after_read()
        return page

    def read_before(self, seq: int, limit: int) -> Page:
        page = super().read_before(seq, limit)
        self.after_read()
        return page


def once(step: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls *step* the first time only."""
    steps = [step]
    return lambda: steps.pop()() if steps else None


def on_another_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "a poll waited for another"


def test_the_relay_begins_at_the_head_and_pushes_later_events() -> None:
    source = LockedSource()
    source.add(5)
    feed = Feed(source)
    assert (feed.hub.position, feed.hub.epoch) == (5, "epoch-1")
    with Client(feed) as client:
        client.subscribe()
        feed.write(2)
        assert client.follow(7) == [6, 7]


def test_a_client_that_reconnects_after_a_restart_is_served_without_a_read() -> None:
    source = LockedSource()
    source.add(TAIL_EVENTS + 20)
    source.prune(10)
    feed = Feed(source)
    reads = feed.source.reads
    with Client(feed) as client:
        client.subscribe(after=20, epoch="epoch-1")
        assert feed.source.reads == reads
        assert client.follow(TAIL_EVENTS + 20)[0] == 21
    assert feed.core.cohorts.tail_after(19, "epoch-1") is None


def test_the_tail_has_all_retained_events_if_there_are_few() -> None:
    source = LockedSource()
    source.add(20)
    source.prune(10)
    feed = Feed(source)
    assert feed.core.cohorts.tail_after(9, "epoch-1") is None
    rest = feed.core.cohorts.tail_after(10, "epoch-1")
    assert rest is not None
    assert [item.seq for item in rest] == list(range(11, 21))


def test_one_poll_publishes_all_pages() -> None:
    feed = Feed()
    feed.write(3 * PAGE_EVENTS + 1)
    assert feed.hub.position == 3 * PAGE_EVENTS + 1


def test_an_event_is_recorded_before_it_is_sent() -> None:
    feed = Feed()
    recorded: list[list[tuple[str, int]]] = []
    with Client(feed) as client:
        client.subscribe()
        client.server_end.before_send = lambda: recorded.append(list(feed.recorded))
        feed.write(3)
    assert recorded == [[("epoch-1", 3)]]


@pytest.mark.parametrize("fields", [{}, {"after": 0}, {"after": 3, "epoch": "epoch-1"}, {"last": 2}])
def test_a_verdict_ahead_of_the_position_is_recorded_first(fields: dict[str, Any]) -> None:
    feed = Feed()
    feed.source.add(5)
    with Client(feed) as client:
        client.say(action="subscribe", channel="events", **fields)
        assert feed.recorded == [("epoch-1", 5)]


def test_a_page_ahead_of_the_position_is_recorded_first() -> None:
    feed = Feed()
    feed.write(TAIL_EVENTS + 500)
    with Client(feed) as client:
        client.say(action="subscribe", channel="events", after=0)
        feed.core.forget()
        feed.source.add(500)
        while client.state is ClientState.REPLAYING:
            client.subscriber.advance()
            assert feed.recorded[-1][1] >= client.subscriber.place.cursor


def test_the_head_at_the_start_is_recorded_since_it_may_be_replayed() -> None:
    feed = Feed()
    feed.source.add(3)
    feed.relay.start()
    feed.relay.poll()
    feed.relay.poll()
    assert feed.recorded == [("epoch-1", 3)]
    feed.source.renew_epoch("epoch-1")
    feed.relay.poll()
    assert feed.recorded[1:] == [("epoch-1+", 3)]


def test_a_seq_whose_event_is_gone_is_recorded_before_it_is_a_cursor() -> None:
    feed = Feed()
    feed.source.add(3)
    del feed.source.items[-1]  # erased before the poll
    feed.relay.poll()
    assert (feed.hub.position, feed.recorded) == (3, [("epoch-1", 3)])
    feed.source.add(2)
    feed.source.prune(5)
    feed.relay.poll()
    assert (feed.hub.position, feed.recorded[1:]) == (5, [("epoch-1", 5)])


def test_the_head_of_a_new_history_is_recorded_before_it_is_read() -> None:
    known: list[str] = []
    feed = Feed(record=lambda *_: known.append(feed.hub.epoch))
    feed.write(2)
    feed.source.renew_epoch("epoch-1")
    feed.relay.poll()
    assert (known, feed.hub.epoch) == (["epoch-1", "epoch-1"], "epoch-1+")


def test_an_event_that_can_not_be_recorded_is_not_sent_and_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    failing = [OSError(errno.ENOSPC, "No space left on device")]

    def record(*_: object) -> None:
        if failing:
            raise failing.pop()

    feed = Feed(record=record)
    with Client(feed) as client:
        client.subscribe()
        feed.write(1)
        assert client.take_message()["payload"]["reason"] == "the server has an I/O error: No space left on device"
        assert client.has_nothing_to_read()
        feed.relay.poll()
        assert client.follow(1) == [1]


# --- concurrent polls -------------------------------------------------------------------------------------------------


def test_a_poll_that_finds_another_running_makes_it_repeat() -> None:
    # given a poll that has read its page, and a commit after that
    source = SteppedSource()
    feed = Feed(source)
    source.after_read = once(lambda: (source.add(1), on_another_thread(feed.relay.poll))[-1])
    # when the commit is noticed during the poll and causes another poll, then the first poll pushes it as well
    feed.write(1)
    assert feed.hub.position == 2


@pytest.mark.parametrize("entrance", ["poll", "poll_now"])
def test_a_poll_during_the_heartbeat_of_another_is_not_lost(entrance: str) -> None:
    """The commit is noticed after the last read of the source.

    The other call has not returned yet.
    """
    feed = Feed(heartbeat_secs=0)
    with Client(feed) as client:
        client.subscribe()
        client.server_end.before_send = once(lambda: (feed.source.add(1), on_another_thread(feed.relay.poll))[-1])
        getattr(feed.relay, entrance)()
        assert feed.hub.position == 1
        assert [client.take_message()["type"] for _ in range(2)] == ["heartbeat", "event"]


def test_poll_now_pushes_all_commits_before_it_returns() -> None:
    # given a poll that is running on another thread
    source = SteppedSource()
    feed = Feed(source)
    is_reading, may_go_on = threading.Event(), threading.Event()
    source.after_read = once(lambda: (is_reading.set(), may_go_on.wait(5))[0])
    first = threading.Thread(target=feed.relay.poll)
    first.start()
    is_reading.wait(5)
    # when a client needs the events that were committed since
    source.add(3)
    second = threading.Thread(target=feed.relay.poll_now)
    second.start()
    assert second.is_alive()
    may_go_on.set()
    second.join(5)
    # then they are published
    assert feed.hub.position == 3
    first.join()


def test_a_poll_waits_for_no_consumer_whose_claim_waits_for_a_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed()
    is_waiting, is_free = threading.Event(), threading.Event()
    with Client(feed) as ops, Client(feed) as other:
        ops.subscribe(consumer="ops")
        claim = feed.checkpoints.claim

        def wait_and_claim(name: str, by: Principal, *, may_create: bool) -> Claim:
            is_waiting.set()
            assert is_free.wait(10)
            return claim(name, by, may_create=may_create)

        monkeypatch.setattr(feed.checkpoints, "claim", wait_and_claim)
        claiming = threading.Thread(target=other.subscribe, kwargs={"consumer": "ops"})
        claiming.start()
        assert is_waiting.wait(10)
        polling = threading.Thread(target=feed.write, args=[1])
        polling.start()
        polling.join(2)
        is_pushed = not polling.is_alive()
        is_free.set()
        claiming.join()
        polling.join()
        assert is_pushed
        assert ops.follow(1) == [1]
        assert ops.subscriber.ending is not None
        feed.relay.poll()
        assert other.subscriber.ending is None


def test_many_polls_at_once_push_everything_once_and_in_order() -> None:
    feed = Feed()
    with Client(feed) as client:
        client.subscribe()

        def write_and_poll() -> None:
            for _ in range(100):
                feed.write(1)

        threads = [threading.Thread(target=write_and_poll) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert feed.hub.position == 400
        assert client.follow(400) == list(range(1, 401))


def test_a_client_that_joins_while_a_commit_is_noticed_gets_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a client with a verdict, which is not live yet
    simulation = Simulation(monkeypatch)
    viewer = simulation.connect()
    viewer.subscribe(rate=0)
    # when a commit is noticed, and the client joins after the relay has found no live client
    join = once(viewer.step)

    def join_and_read_the_clock() -> float:
        join()
        return simulation.time.now

    monkeypatch.setattr(clock, "monotonic", join_and_read_the_clock)
    simulation.write(1)
    # then the rest of the notifier ends at once
    simulation.tick()
    assert viewer.seqs() == [1]


@pytest.mark.parametrize("read", ["poll", "start"])
def test_an_event_that_is_erased_while_the_relay_reads_it_is_not_kept_for_later_clients(read: str) -> None:
    source = SteppedSource()
    feed = Feed(source)
    feed.write(2)

    def erase() -> None:
        del source.items[-1]
        feed.core.forget(1)

    source.add(1)
    source.after_read = once(erase)
    getattr(feed.relay, read)()
    with Client(feed) as late:
        late.subscribe(after=2, epoch="epoch-1")
        feed.relay.poll()  # which sends the position
        assert late.follow(3) == []


# --- errors -----------------------------------------------------------------------------------------------------------


class FailingSource(LockedSource):
    error: Exception | None = None

    def read_after(self, seq: int, limit: int) -> Page:
        if self.error:
            raise self.error
        return super().read_after(seq, limit)


def test_a_failure_is_logged_once_reported_and_retried(caplog: pytest.LogCaptureFixture) -> None:
    # given polls that fail for one reason
    source = FailingSource()
    feed = Feed(source)
    source.error = RuntimeError("the disk is on fire")
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            feed.write(1)
    # then it is logged once, and clients are told
    assert len(caplog.records) == 1
    assert feed.relay.failure == "RuntimeError: the disk is on fire"
    assert counted(feed.hub.stats.metrics, "errors_total", where="poll") == 5
    # when the reason changes, the new one is logged as well
    source.error = RuntimeError("flooded")
    feed.relay.poll()
    assert len(caplog.records) == 2
    # when it works again, all missed events are pushed
    source.error = None
    feed.relay.poll()
    assert (feed.relay.failure, feed.hub.position) == (None, 5)


class YieldingLock:
    """A lock before whose acquisition a test may act."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.before_acquire: Callable[[], None] = lambda: None

    def acquire(self, *, blocking: bool) -> bool:
        self.before_acquire()
        return self._lock.acquire(blocking=blocking)

    def release(self) -> None:
        self._lock.release()


def test_a_poll_whose_work_a_failed_one_has_done_reports_no_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a poll that takes its turn just after another one has read and failed
    lock = YieldingLock()
    monkeypatch.setattr(relay, "threading", SimpleNamespace(Lock=lambda: lock))
    source = FailingSource()
    feed = Feed(source)
    with Client(feed) as client:
        client.subscribe()
        source.error = DatabaseMissing("x")
        lock.before_acquire = once(feed.relay.poll)
        feed.relay.poll()
        # then the outage goes on
        assert feed.relay.failure == "DatabaseMissing: x"
        assert client.take_message()["payload"]["reason"] == "the database is missing"
        assert client.has_nothing_to_read()


def test_the_age_of_the_relay_grows_while_polls_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    source = FailingSource()
    assert core_of(source).relay.age == float("inf")
    feed = Feed(source)
    now = [1000.0]
    monkeypatch.setattr("outfeed.clock.monotonic", lambda: now[0])
    feed.relay.poll()
    now[0] += 5
    assert feed.relay.age == 5
    source.error = RuntimeError("stuck")
    feed.relay.poll()
    now[0] += 5
    assert feed.relay.age == 10
    source.error = None
    feed.relay.poll()
    assert feed.relay.age == 0


# --- another history --------------------------------------------------------------------------------------------------


def test_a_new_epoch_begins_at_its_head_and_closes_live_clients() -> None:
    feed = Feed()
    feed.write(5)
    with Client(feed) as client:
        client.subscribe()
        feed.source.epoch, feed.source.last_seq, feed.source.items = "epoch-2", 3, []
        feed.relay.poll()
        assert (feed.hub.epoch, feed.hub.position) == ("epoch-2", 3)
        assert client.subscriber.ending == (frames.OVERTAKEN, "the epoch changed")


def test_a_restored_copy_gets_a_new_epoch() -> None:
    # given a source whose head is suddenly lower, in the same epoch: its seqs will be used again
    feed = Feed()
    feed.write(5)
    with Client(feed) as client:
        client.subscribe()
        feed.source.last_seq, feed.source.items = 3, feed.source.items[:3]
        feed.relay.poll()
        # then the epoch is renewed, and its cursors get a reset
        assert (feed.hub.epoch, feed.hub.position) == ("epoch-1+", 3)
        assert client.subscriber.ending == (frames.OVERTAKEN, "the epoch changed")
        feed.write(10)
        assert client.has_nothing_to_read()
        assert feed.hub.position == 13


@pytest.mark.parametrize("pruned_up_to", [6, 8])
def test_live_clients_are_told_of_events_that_were_pruned_before_they_were_sent(pruned_up_to: int) -> None:
    feed = Feed()
    feed.write(5)
    with Client(feed) as live, Client(feed) as new:
        live.subscribe()
        feed.source.add(5)
        feed.source.prune(pruned_up_to)
        feed.relay.poll()
        assert live.subscriber.ending == (frames.OVERTAKEN, "pruning overtook the feed")
        assert live.has_nothing_to_read()
        # and a client that reconnects is served
        assert feed.hub.position == 10
        verdict = new.subscribe(after=5, epoch=feed.source.epoch)
        assert (verdict["verdict"], verdict["missing"]) == ("gap", {"from": 6, "to": pruned_up_to})
        assert new.follow(10) == list(range(pruned_up_to + 1, 11))


def test_pruning_up_to_the_position_overtakes_no_client() -> None:
    feed = Feed()
    feed.write(5)
    with Client(feed) as client:
        client.subscribe()
        feed.source.prune(5)
        feed.relay.poll()
        feed.write(1)
        assert client.subscriber.ending is None
        assert client.follow(6) == [6]


def test_an_emptied_outbox_overtakes_the_feed_as_well() -> None:
    feed = Feed()
    with Client(feed) as client:
        client.subscribe()
        feed.source.add(5)
        feed.source.prune(5)
        feed.relay.poll()
        assert client.subscriber.ending == (frames.OVERTAKEN, "pruning overtook the feed")
        assert feed.hub.position == 5


# --- rests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "took", "count", "rest"),
    [
        (1, 0.004, BURST_EVENTS, 0.004),
        (2, 0.004, BURST_EVENTS, 0.008),
        (1, 0.004, BURST_EVENTS - 1, 0),
        (1, 0.004, 0, 0),
        (1, 3.0, BURST_EVENTS, MAX_REST_SECS),
    ],
)
def test_in_a_burst_the_relay_rests_as_long_as_it_pushed(
    monkeypatch: pytest.MonkeyPatch, workers: int, took: float, count: int, rest: float
) -> None:
    now = [1000.0]
    monkeypatch.setattr("outfeed.clock.monotonic", lambda: now[0])
    source = SteppedSource()
    feed = Feed(source, workers=workers)
    with Client(feed) as client:
        client.subscribe()
        source.after_read = once(lambda: now.append(now.pop() + took))
        source.add(count)
        assert feed.relay.poll_if_wanted() == pytest.approx(rest)
        assert client.follow(count) == list(range(1, count + 1))


# --- heartbeats -------------------------------------------------------------------------------------------------------


def test_heartbeats_are_sent_at_their_interval_on_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("outfeed.clock.monotonic", lambda: now[0])
    feed = Feed(heartbeat_secs=15)
    with Client(feed) as client:
        client.subscribe()
        sent_at = []
        for _ in range(40):
            now[0] += 1
            feed.relay.poll()
            client.say(action="ping")
            while (message := client.take_message())["type"] != "pong":
                sent_at.append(now[0])
                assert message["type"] == "heartbeat"
    assert sent_at == [1015, 1030]


def test_a_heartbeat_follows_the_events_of_its_poll() -> None:
    feed = Feed(heartbeat_secs=0)
    with Client(feed) as client:
        client.subscribe()
        feed.write(2)
        messages = [client.take_message() for _ in range(3)]
    assert [message["type"] for message in messages] == ["event", "event", "heartbeat"]
    assert messages[2]["payload"] == {"cursor": 2}


# --- an outage of the source ------------------------------------------------------------------------------------------


def test_an_outage_is_reported_at_once_at_each_heartbeat_and_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("outfeed.clock.monotonic", lambda: now[0])
    source = FailingSource()
    feed = Feed(source, heartbeat_secs=15)
    with Client(feed) as client:
        client.subscribe()
        feed.relay.poll()
        source.error = DatabaseMissing("no database at /srv/secret/outfeed.db")
        told = []
        for _ in range(20):
            now[0] += 1
            feed.relay.poll()
            client.say(action="ping")
            while (message := client.take_message())["type"] != "pong":
                told.append((now[0], message["type"], message["payload"]["reason"]))
                since = datetime.fromisoformat(message["payload"]["since"])
                assert clock.now() - since < timedelta(seconds=now[0] - 1000 + 1)
                assert clock.now() - since >= timedelta(seconds=now[0] - 1000)
        source.error = None
        feed.write(1)
        after = [client.take_message() for _ in range(3)]
    assert told == [(at, "stale", "the database is missing") for at in (1001, 1016)]
    assert [message["type"] for message in after] == ["event", "stale", "heartbeat"]
    assert after[1]["payload"] == {"reason": None, "since": None}


def test_a_new_reason_of_an_outage_is_reported_at_once() -> None:
    source = FailingSource()
    feed = Feed(source)
    with Client(feed) as client:
        client.subscribe()
        reasons = []
        for failure in (DatabaseMissing("x"), DatabaseUnreadable("y")):
            source.error = failure
            feed.relay.poll()
            reasons.append(client.take_message()["payload"]["reason"])
    assert reasons == ["the database is missing", "the database can't be read right now"]


def test_a_long_poll_ends_with_an_outage() -> None:
    source = FailingSource()
    feed = Feed(source)
    waiting = threading.Thread(target=feed.core.reader.wait, args=(Filter(VIEWER.visible), "epoch-1", 0, 60))
    waiting.start()
    wait_until(lambda: feed.hub.counts()["poll", "waiting"], "it waits")
    source.error = DatabaseMissing("x")
    feed.relay.poll()
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_stream_gets_an_outage_as_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(monkeypatch)
    viewer = simulation.connect(SSE)
    viewer.subscribe()
    viewer.step()
    simulation.hub.tell_stale("the database is missing", "2026-01-15T10:30:00.000Z")
    simulation.hub.tell_stale(None, None)
    assert viewer.socket.received.endswith(
        b'event: stale\ndata: {"reason":"the database is missing","since":"2026-01-15T10:30:00.000Z"}\n\n'
        b'event: stale\ndata: {"reason":null,"since":null}\n\n'
    )
