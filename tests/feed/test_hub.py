"""The hub: one position, one tail, and the right `prev` for all members."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from outfeed.errors import Overtaken
from outfeed.feed import frames
from outfeed.feed import tail as tail_module
from outfeed.feed.client import ClientState
from outfeed.feed.cohort import Cohort, Membership, Place
from outfeed.feed.tail import TAIL_BYTES, TAIL_EVENTS, Tail
from tests.feed.fake_source import item
from tests.feed.socket_harness import Client, Feed
from tests.protocol import Ended


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def client(feed: Feed) -> Iterator[Client]:
    with Client(feed) as client:
        yield client


@pytest.fixture
def other(feed: Feed) -> Iterator[Client]:
    with Client(feed) as other:
        yield other


def join(feed: Feed, client: Client) -> Membership:
    """Have the cohorts accept the client at its position."""
    found = client.subscriber
    return feed.core.cohorts.join(found, found.subscription, found.epoch, found.place)


# --- the tail ---------------------------------------------------------------------------------------------------------


def test_the_tail_has_all_events_after_a_cursor_within_it() -> None:
    tail = Tail(10)
    tail.extend([item(seq) for seq in (12, 15, 16)])
    after = {seq: [each.seq for each in tail.after(seq) or []] for seq in (10, 11, 12, 14, 15, 16, 20)}
    assert after == {10: [12, 15, 16], 11: [12, 15, 16], 12: [15, 16], 14: [15, 16], 15: [16], 16: [], 20: []}
    assert tail.after(9) is None


@pytest.mark.parametrize("page", [1, 7, 1000, 9000])
def test_the_tail_keeps_the_newest_four_thousand(page: int) -> None:
    tail = Tail(0)
    for start in range(0, 9000, page):
        tail.extend([item(seq) for seq in range(start + 1, min(start + page, 9000) + 1)])
    assert tail.start == 9000 - TAIL_EVENTS
    assert [each.seq for each in tail.after(tail.start) or []] == list(range(9001 - TAIL_EVENTS, 9001))
    assert tail.after(tail.start - 1) is None


def test_the_tail_keeps_four_megabytes_at_most() -> None:
    tail = Tail(0)
    for seq in range(1, 41):
        tail.extend([item(seq, data="x" * 250_000)])
    kept = tail.after(tail.start) or []
    assert sum(len(each.json) for each in kept) <= TAIL_BYTES
    assert [each.seq for each in kept] == list(range(tail.start + 1, 41))
    assert len(kept) >= 16


def test_an_item_larger_than_the_tail_leaves_it_empty() -> None:
    tail = Tail(0)
    tail.extend([item(1), item(2, data="x" * (TAIL_BYTES + 1))])
    assert (tail.start, tail.after(2), tail.after(1)) == (2, [], None)
    tail.extend([item(3)])
    assert tail.after(2) == [item(3)]


def test_a_client_before_the_tail_does_not_join_from_it(feed: Feed, client: Client) -> None:
    feed.write(TAIL_EVENTS + 10)
    client.say(action="subscribe", channel="events", after=9, epoch=feed.source.epoch)
    assert not join(feed, client).is_live
    assert client.state is ClientState.REPLAYING
    client.say(action="subscribe", channel="events", after=10, epoch=feed.source.epoch)
    assert join(feed, client).is_live


# --- cohorts ----------------------------------------------------------------------------------------------------------


def test_the_next_prev_is_right_for_members_that_were_told_different_cursors(
    feed: Feed, client: Client, other: Client
) -> None:
    # given a member that joined early, one that joined ten events later, and a filter that matched none of the ten
    client.subscribe(types=["task.*"])
    feed.write(10, event_type="x.y")
    other.subscribe(types=["task.*"])
    assert (client.cursor, other.cursor) == (0, 10)
    # when an event matches, then `prev` is at or below both
    feed.write(2, event_type="task.a")
    assert (client.follow(12), other.follow(12)) == ([11, 12], [11, 12])


def test_a_client_that_resumes_from_further_back_gets_no_prev_that_it_was_never_told(
    feed: Feed, client: Client, other: Client
) -> None:
    # given a member that began at the head, and one that resumed from 5 and was told nothing since
    feed.write(20, event_type="x.y")
    client.subscribe(types=["task.*"])
    other.subscribe(types=["task.*"], after=5, epoch=feed.source.epoch)
    assert (client.cursor, other.cursor) == (20, 5)
    # when an event matches, then it follows for both
    feed.write(1, event_type="task.a")
    assert (client.follow(21), other.follow(21)) == ([21], [21])


def test_cohorts_that_merge_keep_the_prev_that_is_right_for_both(feed: Feed, client: Client, other: Client) -> None:
    # given two members with a pace, one told 20 and one told 5
    fields = {"types": ["task.*"], "rate": 1000}
    feed.write(20, event_type="x.y")
    client.subscribe(**fields)
    other.subscribe(**fields, after=5, epoch=feed.source.epoch)
    # when a page without a match brings them to one position, and the next page has an event for both
    feed.source.add(1000, event_type="x.y")
    feed.write(1, event_type="task.a")
    # then it follows for both
    assert (client.follow(1021), other.follow(1021)) == ([1021], [1021])


def test_prev_is_the_previous_matching_event_if_there_was_one(feed: Feed, client: Client, other: Client) -> None:
    client.subscribe(types=["task.*"])
    feed.write(1, event_type="task.a")
    feed.write(5, event_type="x.y")
    other.subscribe(types=["task.*"], after=0)
    feed.write(1, event_type="task.b")
    assert [(each["prev"], each["seq"]) for each in client.take_messages(until_seq=7)] == [(0, 1), (1, 7)]
    assert other.follow(7) == [1, 7]


def test_one_filter_has_one_cohort_and_an_empty_cohort_is_removed(feed: Feed, client: Client, other: Client) -> None:
    client.subscribe(types=["b.c", "a.*"])
    other.subscribe(types=["a.*", "b.c", "b.c"])
    assert feed.cohorts() == 1
    client.say(action="unsubscribe", channel="events")
    feed.hub.remove(other.subscriber)
    assert feed.cohorts() == 0


def only_member(feed: Feed) -> tuple[Cohort, Membership]:
    [(cohort, [member])] = feed.core.cohorts.live()
    return cohort, member


def test_a_client_that_rejoined_before_the_relay_noticed_its_fallback_stays_in_its_cohort(
    feed: Feed, client: Client, other: Client
) -> None:
    # given a member that has left its cohort, which another member keeps alive, and has joined it again
    client.subscribe()
    cohort, member = only_member(feed)
    other.subscribe()
    client.say(action="subscribe", channel="events")
    client.take_verdict()
    client.go_live()
    # when the relay's thread finds that a batch for its earlier membership was cut, then it still gets everything
    assert not feed.core.cohorts.fall_behind(member, cohort, cohort.place)
    feed.write(1)
    assert (client.follow(1), other.follow(1)) == ([1], [1])
    assert feed.cohorts() == 1


def test_leaving_one_cohort_does_not_affect_another_of_the_same_subscription(
    feed: Feed, client: Client, other: Client
) -> None:
    client.subscribe()
    old, member = only_member(feed)
    client.say(action="unsubscribe", channel="events")
    other.subscribe()
    assert not feed.core.cohorts.fall_behind(member, old, old.place)
    feed.core.cohorts.leave(member)
    feed.write(1)
    assert other.follow(1) == [1]


def test_the_counts_say_how_many_are_in_each_state(feed: Feed, client: Client, other: Client) -> None:
    client.subscribe()
    assert feed.hub.counts() == {("websocket", "idle"): 1, ("websocket", "live"): 1}
    assert feed.clients() == 2
    other.say(action="subscribe", channel="events", after=0)
    assert feed.hub.counts() == {("websocket", "live"): 1, ("websocket", "replaying"): 1}
    feed.hub.remove(other.subscriber)
    assert feed.hub.counts() == {("websocket", "live"): 1}


class SteppedPlace(Place):
    """A place that calls *step* whenever its cursor is read."""

    step: Callable[[], None] = staticmethod(lambda: None)

    @property
    def cursor(self) -> int:  # type: ignore[override]
        self.step()
        return int(self[0])


def test_nothing_is_published_between_a_joining_clients_check_of_the_position_and_its_membership(
    feed: Feed, client: Client
) -> None:
    def publish() -> None:
        thread = threading.Thread(target=feed.write, args=(1,))
        threads.append(thread)
        thread.start()
        thread.join(0.1)

    feed.write(3)
    client.say(action="subscribe", channel="events", after=1, epoch=feed.source.epoch)
    client.take_verdict()
    threads: list[threading.Thread] = []
    place = SteppedPlace(1, 1)
    place.step = publish
    client.subscriber.place = place
    assert join(feed, client).is_live
    place.step = lambda: None
    for thread in threads:
        thread.join()
    assert len(threads) > 1
    assert client.follow(feed.source.last_seq) == list(range(2, feed.source.last_seq + 1))


# --- heartbeats -------------------------------------------------------------------------------------------------------


def test_a_heartbeat_carries_the_written_position_and_never_the_databases_head(feed: Feed, client: Client) -> None:
    client.subscribe(types=["task.*"])
    feed.write(5, event_type="x.y")
    feed.source.add(5, event_type="task.a")  # committed, and not pushed yet
    feed.hub.heartbeat()
    heartbeat = client.take_message()
    assert heartbeat == {"type": "heartbeat", "payload": {"cursor": 5}}
    client.note(heartbeat)
    feed.relay.poll()
    assert client.follow(10) == [6, 7, 8, 9, 10]


def test_only_live_clients_get_heartbeats(feed: Feed, client: Client, other: Client) -> None:
    # given a client that is five events behind, and one without a subscription
    feed.write(5)
    client.say(action="subscribe", channel="events", after=0)
    client.take_verdict()
    # when heartbeats are sent, then neither gets one
    feed.hub.heartbeat()
    assert client.has_nothing_to_read()
    assert other.has_nothing_to_read()


def test_a_pending_heartbeat_is_not_written_after_a_new_verdict(feed: Feed, client: Client) -> None:
    # given two clients in one cohort, of which one is sent its heartbeat first
    with Client(feed) as first:
        first.subscribe()
        client.subscribe()
        # when the other one subscribes again before its heartbeat
        first.server_end.before_send = lambda: client.say(action="subscribe", channel="events", after=0)
        feed.hub.heartbeat()
        # then it gets the verdict and no heartbeat
        client.take_verdict()
        assert client.has_nothing_to_read()
        assert first.take_message()["type"] == "heartbeat"


def test_live_clients_learn_of_an_erasure_with_the_next_poll_and_others_with_their_verdict(
    feed: Feed, client: Client, other: Client
) -> None:
    assert "erasures" not in client.subscribe()
    feed.write(3)
    client.follow(3)
    feed.core.forget(erased=2)
    feed.relay.poll()
    assert client.take_message() == {"type": "heartbeat", "payload": {"cursor": 3, "erasures": 2}}
    feed.relay.poll()
    assert client.has_nothing_to_read()
    assert other.subscribe()["erasures"] == 2


def test_a_change_of_displays_is_told_like_an_erasure(feed: Feed, client: Client, other: Client) -> None:
    assert "types" not in client.subscribe()
    feed.write(3)
    client.follow(3)
    feed.core.note_types(4)
    feed.relay.poll()
    assert client.take_message() == {"type": "heartbeat", "payload": {"cursor": 3, "types": 4}}
    feed.core.note_types(4)
    feed.relay.poll()
    assert client.has_nothing_to_read()
    assert other.subscribe()["types"] == 4


# --- another history --------------------------------------------------------------------------------------------------


def test_a_live_client_gets_nothing_more_when_pruning_overtakes_the_feed(feed: Feed, client: Client) -> None:
    """A client would take events behind the gap as a continuation.

    Their prev is not above its cursor.
    """
    feed.write(5)
    client.subscribe()
    feed.source.add(10)
    feed.source.prune(10)
    feed.relay.poll()
    assert client.subscriber.ending == (frames.OVERTAKEN, "pruning overtook the feed")
    assert client.has_nothing_to_read(), "a silent jump"
    feed.hub.heartbeat()
    assert client.has_nothing_to_read(), "a silent jump"


def test_a_live_client_gets_nothing_more_when_the_epoch_changes(feed: Feed, client: Client) -> None:
    feed.write(5)
    client.subscribe()
    feed.source.epoch = "epoch-2"
    feed.relay.poll()
    feed.write(3)
    feed.hub.heartbeat()
    assert client.subscriber.ending == (frames.OVERTAKEN, "the epoch changed")
    assert client.has_nothing_to_read(), "an event of another history"


def test_a_client_that_connects_after_the_change_is_served(feed: Feed, client: Client, other: Client) -> None:
    client.subscribe()
    feed.source.epoch = "epoch-2"
    feed.relay.poll()
    other.subscribe()
    feed.hub.remove(client.subscriber)
    feed.write(1)
    assert other.follow(1) == [1]
    assert other.epoch == "epoch-2"


# --- closing ----------------------------------------------------------------------------------------------------------


def test_closing_closes_clients_in_every_state_and_later_ones(feed: Feed, client: Client, other: Client) -> None:
    client.subscribe()
    feed.hub.close()
    with Client(feed) as late:
        endings = [each.subscriber.ending for each in (client, other, late)]
    assert {ending and ending[0] for ending in endings} == {frames.RESTARTING}
    hints = [int(re.fullmatch(r"retry_ms=(\d+)", ending[1])[1]) for ending in endings if ending]  # type: ignore[index]
    assert all(200 <= hint <= 3000 for hint in hints)
    assert len(set(hints)) > 1


# --- any schedule -----------------------------------------------------------------------------------------------------


class SimulatedClient:
    """A client that resubscribes at random, stalls and reconnects.

    Every frame must follow its cursor. It may miss only the events that it was told are missing.
    """

    def __init__(self, feed: Feed, seed: int) -> None:
        self.feed = feed
        self.random = random.Random(seed)
        self.fields: dict[str, object] = {"types": ["a.*"]} if seed % 2 else {}
        self.fields |= [{}, {"rate": 1000}, {"rate": 300, "batch": True}][seed % 3]
        self.cursor = 0
        self.epoch = feed.source.epoch
        self.shown: list[int] = []
        self.missing: list[tuple[int, int]] = []
        self.returns = 0
        self.goal: int | None = None
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.is_done():
                self._visit()
        except BaseException as error:
            self.problem = error
            raise

    def is_done(self) -> bool:
        return self.goal is not None and self.cursor >= self.goal

    def _visit(self) -> None:
        self.returns += 1
        with Client(self.feed, send_buffer_bytes=self.random.choice([None, 65_536])) as client:
            client.ask(action="subscribe", channel="events", after=self.cursor, epoch=self.epoch, **self.fields)
            client.run()
            pause = threading.Event()
            while not self.is_done():
                if self.random.random() < 0.02:
                    client.ask(action="subscribe", channel="events", after=self.cursor, epoch=self.epoch, **self.fields)
                if self.random.random() < 0.01:
                    pause.wait(0.01)
                try:
                    frame = client.take_message()
                except Ended:
                    return  # reconnects with its cursor
                self.shown += client.note(frame)
                self.cursor = client.cursor
                if frame["type"] == "subscribed":
                    self._follow_ending(frame["payload"])

    def _follow_ending(self, verdict: dict[str, Any]) -> None:
        assert verdict["verdict"] in ("resumed", "gap"), verdict
        if verdict["verdict"] == "gap":
            self.missing.append((verdict["missing"]["from"], verdict["missing"]["to"]))

    def check(self, matching: list[int]) -> None:
        shown = set(self.shown)
        lost = [
            seq for seq in matching
            if seq not in shown and not any(first <= seq <= last for first, last in self.missing)
        ]  # fmt: skip
        assert lost == []
        assert shown <= set(matching)


@pytest.mark.parametrize("seed", range(4))
def test_every_client_is_complete_under_any_schedule(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One relay publishes, prunes and sends heartbeats.

    The clients join, leave, stall and subscribe again, each on threads of its own.
    """
    monkeypatch.setattr(tail_module, "TAIL_EVENTS", 60)  # so that the source is read as well
    feed = Feed(heartbeat_secs=0.001)
    dice = random.Random(seed)
    feed.core.pacer.start(feed.relay.poll)
    viewers = [SimulatedClient(feed, seed * 6 + n) for n in range(6)]
    threads = [threading.Thread(target=viewer.run) for viewer in viewers]
    for thread in threads:
        thread.start()
    matching: dict[str, list[int]] = {"a.b": [], "x.y": []}
    for _ in range(250):
        event_type = dice.choice(["a.b", "x.y"])
        count = dice.choice([1, 1, 2, 5, 40])
        head = feed.source.last_seq
        matching[event_type] += range(head + 1, head + count + 1)
        feed.write(count, event_type=event_type, data="x" * dice.choice([0, 10, 3000]))
        if dice.random() < 0.05:
            feed.source.prune(feed.source.last_seq - dice.choice([0, 20, 500]))
    # The last event matches every filter, so that every cursor can reach it.
    feed.write(1, event_type="a.b")
    matching["a.b"].append(feed.source.last_seq)
    for viewer in viewers:
        viewer.goal = feed.source.last_seq
    feed.relay.poll()
    stop = threading.Event()
    polling = threading.Thread(target=lambda: [feed.relay.poll() for _ in iter(lambda: stop.wait(0.01), True)])
    polling.start()
    for thread in threads:
        thread.join(30)
    stop.set()
    polling.join()
    feed.core.pacer.stop()
    assert not any(thread.is_alive() for thread in threads)
    for viewer in viewers:
        assert viewer.problem is None
        viewer.check(sorted(matching["a.b"] + ([] if "types" in viewer.fields else matching["x.y"])))
    assert feed.clients() == 0


def test_a_request_for_another_epoch_raises_overtaken(feed: Feed) -> None:
    with pytest.raises(Overtaken):
        feed.core.cohorts.tail_after(0, "other")
