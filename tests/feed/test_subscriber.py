"""Subscribers: pushed to while live, reading the source while behind.

No event is lost or doubled on a change between the two.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from outfeed.errors import Overtaken
from outfeed.feed import dialogue, frames, subscriber
from outfeed.feed.client import ClientState
from outfeed.feed.encoding import Batch
from outfeed.feed.page_cache import PAGE_EVENTS
from outfeed.feed.subscriber import JOIN_EVENTS, Subscriber
from outfeed.feed.subscription import SubscribeRequest
from outfeed.feed.tail import TAIL_EVENTS
from outfeed.history import Item, Page
from tests.feed.fake_source import VIEWER, LockedSource
from tests.feed.socket_harness import Client, Feed, Peer
from tests.waits import wait_until

BIG = "x" * 20_000


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def client(feed: Feed) -> Iterator[Client]:
    with Client(feed) as client:
        yield client


def fill_socket(feed: Feed, client: Client) -> None:
    """Write events until the client, which reads nothing, is not live."""
    for _ in range(1000):
        if client.state is not ClientState.LIVE:
            return
        feed.write(20, data=BIG)
    raise AssertionError("the socket never filled")


# --- live -------------------------------------------------------------------------------------------------------------


def test_a_live_client_gets_committed_events(feed: Feed, client: Client) -> None:
    feed.write(3)
    assert client.subscribe()["verdict"] == "live"
    reads = feed.source.reads
    feed.write(2)
    assert client.follow(5) == [4, 5]
    assert feed.source.reads == reads + 1, "only the relay reads for those who are live"


def test_a_client_gets_matching_events_and_each_frame_follows_the_one_before(feed: Feed, client: Client) -> None:
    client.subscribe(types=["task.*"])
    for event_type in ("task.a", "x.y", "task.b", "x.y", "x.y", "task.c"):
        feed.write(1, event_type=event_type)
    messages = client.take_messages(until_seq=6)
    assert [(each["prev"], each["seq"]) for each in messages] == [(0, 1), (1, 3), (3, 6)]


def test_a_client_gets_nothing_after_it_has_unsubscribed(feed: Feed, client: Client) -> None:
    client.subscribe()
    client.say(action="unsubscribe", channel="events")
    feed.write(1)
    assert client.take_message() == {"type": "unsubscribed", "payload": {"channel": "events"}}
    assert client.has_nothing_to_read()
    assert client.state is ClientState.IDLE


# --- behind -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, JOIN_EVENTS, JOIN_EVENTS + 1, TAIL_EVENTS, TAIL_EVENTS + 1, 2 * TAIL_EVENTS])
def test_a_resuming_client_gets_all_events_after_its_cursor_and_goes_live(
    feed: Feed, client: Client, count: int
) -> None:
    feed.write(10 + count)
    client.say(action="subscribe", channel="events", after=10, epoch=feed.source.epoch)
    assert client.take_verdict()["verdict"] == "resumed"
    reader = threading.Thread(target=client.follow, args=(10 + count + 5,))
    reader.start()
    client.go_live()
    feed.write(5)
    reader.join()
    assert client.seen == list(range(11, 10 + count + 6))


def test_a_client_inside_the_tail_catches_up_without_a_read(feed: Feed, client: Client) -> None:
    feed.write(TAIL_EVENTS)
    reads = feed.source.reads
    client.subscribe(after=TAIL_EVENTS - 1500, epoch=feed.source.epoch)
    assert client.follow(TAIL_EVENTS) == list(range(TAIL_EVENTS - 1499, TAIL_EVENTS + 1))
    assert feed.source.reads == reads


def test_a_client_whose_filter_rarely_matches_catches_up_as_well(feed: Feed, client: Client) -> None:
    feed.write(TAIL_EVENTS + 2500, event_type="x.y")
    client.subscribe(after=0, types=["task.*"])
    assert client.state is ClientState.LIVE
    feed.write(1, event_type="task.a")
    frame = client.take_message()
    assert (frame["prev"], frame["seq"]) == (0, TAIL_EVENTS + 2501)


class Turnstile:
    """Counts the threads inside, and holds them there until released."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.release = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.release.wait(10)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.inside -= 1


@pytest.mark.parametrize("replayers", ["from one place", "from many"])
def test_one_replay_reads_and_four_encode_at_a_time(replayers: str) -> None:
    # given six clients that replay, and slow reads and encodings
    class Slow(LockedSource):
        def read_after(self, seq: int, limit: int) -> Page:
            with reading:
                return super().read_after(seq, limit)

    class SlowEncoding(frames.WebSocketEncoding):
        def singles(self, items: Sequence[Item], *rest: Any) -> Batch:
            with (
                encoding if items else contextlib.nullcontext()
            ):  # a joining client has no events left, and takes no turn
                return super().singles(items, *rest)

    reading, encoding = Turnstile(), Turnstile()
    reading.release.set()
    feed = Feed(Slow())
    feed.write(8_000)
    reading.release.clear()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(feed)) for _ in range(6)]
        stack.callback(reading.release.set)
        stack.callback(encoding.release.set)
        for n, client in enumerate(clients):
            client.subscriber.subscription = replace(client.subscriber.subscription, encoding=SlowEncoding())
            start = n * PAGE_EVENTS if replayers == "from many" else PAGE_EVENTS
            client.ask(action="subscribe", channel="events", after=start, epoch=feed.source.epoch)
            client.run()
        wait_until(lambda: reading.inside, "one reads")
        # when they are released, then all clients get everything
        reading.release.set()
        wait_until(lambda: encoding.inside == 4, "four encode")
        encoding.release.set()
        for client in clients:
            client.take_verdict()
            client.follow(8_000)
    assert (reading.most, encoding.most) == (1, 4)


@pytest.mark.parametrize(("more", "reads"), [(400, False), (TAIL_EVENTS + 400, True)], ids=["tail", "source"])
def test_a_client_with_a_full_socket_catches_up_without_loss_or_repeat(more: int, reads: bool) -> None:
    # given a client that reads nothing until its socket is full
    feed = Feed()
    with Client(feed) as client:
        client.subscribe()
        fill_socket(feed, client)
        # when more is written, and it reads again
        for _ in range(more // 50):
            feed.write(50)
        before = feed.source.reads
        client.run()
        client.follow(feed.source.last_seq)
        # then it has all events in order, read from the source if the tail is too short, and is live again
        assert client.seen == list(range(1, feed.source.last_seq + 1))
        assert (feed.source.reads > before) == reads
        wait_until(lambda: client.state is ClientState.LIVE, "live again")
        feed.write(1)
        assert client.follow(feed.source.last_seq) == [feed.source.last_seq]


def test_a_full_socket_does_not_delay_other_clients(feed: Feed) -> None:
    with Client(feed) as stalled, Client(feed) as other:
        stalled.subscribe()
        other.subscribe()
        while stalled.state is ClientState.LIVE:
            feed.write(20, data=BIG)
            other.follow(feed.source.last_seq)
        feed.write(1)
        assert other.follow(feed.source.last_seq)


def test_only_the_end_of_one_frame_is_kept_for_a_full_socket(feed: Feed, client: Client) -> None:
    client.subscribe()
    client.server_end.room = 100
    feed.write(20, data=BIG)
    assert client.state is ClientState.REPLAYING
    # when it accepts more, and a pong is written, then the pong follows the cut frame
    client.server_end.room = None
    client.subscriber.write(b"\x8a\x00")
    assert client.take_frame()[0] == 1
    assert client.take_frame()[0] == 10
    assert client.has_nothing_to_read()


def test_an_answer_does_not_corrupt_the_frame_that_was_cut(feed: Feed, client: Client) -> None:
    client.subscribe()
    fill_socket(feed, client)
    client.ask(action="ping")
    client.run()
    client.follow(feed.source.last_seq)
    assert client.seen == list(range(1, feed.source.last_seq + 1))


def test_a_client_whose_join_is_cut_continues_after_the_cut_frame(feed: Feed) -> None:
    # given more events in the tail than the socket accepts
    feed.write(40, data=BIG * 4)
    with Client(feed, send_buffer_bytes=65_536) as client:
        client.say(action="subscribe", channel="events", after=0)
        # when the client joins under the lock of the cohorts
        client.subscriber.advance()
        # then it is not live yet, and its own thread continues after the cut frame
        assert client.state is ClientState.REPLAYING
        assert 0 < client.subscriber.place.cursor < 40
        client.run()
        client.take_verdict()
        assert client.follow(40) == list(range(1, 41))


@pytest.mark.parametrize("room", range(0, 400, 7))
def test_the_stream_is_whole_after_a_batch_is_cut_anywhere(feed: Feed, client: Client, room: int) -> None:
    # given a live client whose socket accepts only so many bytes of a batch of three
    client.subscribe()
    client.server_end.room = room
    feed.write(3)
    # when the socket has room again, and a pong comes in between
    client.server_end.room = None
    client.subscriber.write(b"\x8a\x00")
    feed.write(2)
    client.go_live()
    feed.write(1)
    # then no event is lost, doubled or torn
    assert client.follow(6) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("room", [0, 1, 2, 10, 40])
def test_the_stream_is_whole_after_a_heartbeat_is_cut_anywhere(feed: Feed, client: Client, room: int) -> None:
    # given a live client whose socket accepts only so many bytes of a heartbeat
    client.subscribe()
    feed.write(3)
    client.server_end.room = room
    feed.hub.heartbeat()
    # then it continues by itself, after the cut frame
    assert client.state is ClientState.REPLAYING
    client.server_end.room = None
    feed.write(2)
    client.go_live()
    assert client.follow(5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("room", [0, 1, 10])
def test_after_a_cut_message_prev_is_right_for_a_client_without_a_match(feed: Feed, client: Client, room: int) -> None:
    # given a live client that was told 0, at position 3
    client.subscribe(types=["task.*"])
    feed.write(3, event_type="x.y")
    client.server_end.room = room
    feed.hub.tell_stale("the database is missing", None)
    assert client.state is ClientState.REPLAYING
    client.server_end.room = None
    client.go_live()
    feed.write(2, event_type="task.a")
    assert client.follow(5) == [4, 5]


# --- replacing a subscription -----------------------------------------------------------------------------------------


def test_a_pending_batch_is_not_written_after_the_verdict_of_a_new_subscription(feed: Feed, client: Client) -> None:
    # given two clients in one cohort, of which one is sent a batch first
    with Client(feed) as first:
        first.subscribe(types=["old.*"])
        client.subscribe(types=["old.*"])
        first.server_end.before_send = lambda: client.say(action="subscribe", channel="events", types=["new.*"])
        # when the other one subscribes again before its batch, then it gets nothing after its verdict
        feed.write(1, event_type="old.event")
        assert client.take_verdict()["after"] == 1
        assert client.has_nothing_to_read()
        assert first.follow(1) == [1]


def test_a_pending_batch_is_not_written_twice_to_a_client_that_rejoined(feed: Feed, client: Client) -> None:
    # given another member that keeps the cohort alive, and one that leaves and rejoins during the write of a batch
    with Client(feed) as other:
        other.subscribe()
        client.subscribe()

        def subscribe_again() -> None:
            other.server_end.before_send = lambda: None
            client.say(action="subscribe", channel="events", after=0)
            client.go_live()

        other.server_end.before_send = subscribe_again
        # when the batch is written
        feed.write(2)
        # then the client has it by its new subscription, once
        client.take_verdict()
        assert client.follow(2) == [1, 2]
        assert client.has_nothing_to_read()
        assert other.follow(2) == [1, 2]


def test_no_event_of_the_old_subscription_follows_the_verdict_even_with_the_same_filter(
    feed: Feed, client: Client
) -> None:
    with Client(feed) as other:
        other.subscribe()
        client.subscribe()
        other.server_end.before_send = lambda: client.say(action="subscribe", channel="events")
        feed.write(1)
        assert client.take_verdict()["after"] == 1
        assert client.has_nothing_to_read()


@pytest.mark.parametrize(
    "bad", [{"after": -1}, {"after": 5}, {"channel": "news"}, {"types": ["*"]}, {"unknown": 1}, {"last": 0}]
)
def test_an_invalid_subscription_leaves_the_old_one_in_force(feed: Feed, client: Client, bad: dict[str, Any]) -> None:
    client.subscribe(types=["task.*"])
    client.say(**{"action": "subscribe", "channel": "events", **bad})
    assert client.take_message()["type"] == "error"
    feed.write(1, event_type="x.y")
    feed.write(1, event_type="task.a")
    assert client.follow(2) == [2]


# --- messages of a client ---------------------------------------------------------------------------------------------

BAD_MESSAGES: dict[str | bytes, str] = {
    "": "invalid_json",
    "{": "invalid_json",
    "nonsense": "invalid_json",
    '{"action": NaN}': "invalid_json",
    "[" * 5000: "invalid_json",
    "[]": "invalid_message",
    "null": "invalid_message",
    "7": "invalid_message",
    '"subscribe"': "invalid_message",
    "{}": "unknown_action",
    '{"action": null}': "unknown_action",
    '{"action": ["subscribe"]}': "unknown_action",
    '{"action": {"a": 1}}': "unknown_action",
    '{"action": "dance"}': "unknown_action",
    '{"action": "subscribe"}': "invalid_field",
    '{"action": "subscribe", "channel": ["events"]}': "invalid_field",
    '{"action": "subscribe", "channel": "news"}': "unknown_channel",
    '{"action": "unsubscribe"}': "unknown_channel",
    '{"action": "unsubscribe", "channel": "news"}': "unknown_channel",
    '{"action": "ack", "seq": 0}': "no_consumer",
    '{"action": "ack", "seq": 1}': "ack_beyond",
    '{"action": "ack", "seq": -1}': "invalid_field",
    '{"action": "ack", "seq": true}': "invalid_field",
    '{"action": "ack", "seq": "1"}': "invalid_field",
    '{"action": "ack"}': "invalid_field",
    b'{"action": "ping"}': "binary",
    b"\xff\xfe": "binary",
}


@pytest.mark.parametrize(("text", "code"), BAD_MESSAGES.items(), ids=[str(key)[:50] for key in BAD_MESSAGES])
def test_bad_messages_are_answered_with_an_error(client: Client, text: str | bytes, code: str) -> None:
    dialogue.answer(client.subscriber, text)
    frame = client.take_message()
    assert (frame["type"], frame["payload"]["code"]) == ("error", code)
    assert frame["payload"]["message"]
    assert client.state is ClientState.IDLE


def test_a_ping_is_answered_with_a_pong(client: Client) -> None:
    client.say(action="ping")
    assert client.take_message() == {"type": "pong"}


def test_the_verdict_has_the_fields_of_the_protocol(feed: Feed, client: Client) -> None:
    feed.write(9)
    feed.source.prune(4)
    client.say(action="subscribe", channel="events", after=2, epoch="epoch-1")
    assert client.take_message() == {
        "type": "subscribed",
        "payload": {
            "channel": "events", "epoch": "epoch-1", "verdict": "gap", "missing": {"from": 3, "to": 4}, "after": 4,
            "head": 9, "rate": 0, "principal": client.subscriber.principal.fingerprint,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "verdict", "seqs"),
    [
        ({"last": 2}, "live", [4, 5]),
        ({"last": 100}, "live", [1, 2, 3, 4, 5]),
        ({"last": 2, "after": 9, "epoch": "epoch-1"}, "reset", [4, 5]),
        ({"last": 2, "after": 1, "epoch": "other"}, "reset", [4, 5]),
        ({"last": 2, "after": 1, "epoch": "epoch-1"}, "resumed", [2, 3, 4, 5]),
        ({"last": 2, "after": 0}, "resumed", [1, 2, 3, 4, 5]),
    ],
)
def test_last_counts_only_without_a_usable_cursor(
    feed: Feed, client: Client, fields: dict[str, Any], verdict: str, seqs: list[int]
) -> None:
    feed.write(5)
    assert client.subscribe(**fields)["verdict"] == verdict
    assert client.follow(5) == seqs


def test_a_cursor_ahead_of_this_process_makes_it_poll_first(feed: Feed, client: Client) -> None:
    feed.source.add(5)  # another worker was faster
    client.say(action="subscribe", channel="events", after=5, epoch=feed.source.epoch)
    assert feed.hub.position == 5
    assert client.take_verdict()["verdict"] == "resumed"
    client.go_live()
    assert client.state is ClientState.LIVE


def test_a_subscription_ahead_of_this_process_gets_nothing_before_its_cursor(feed: Feed, client: Client) -> None:
    # given rows that were committed while this process was not polling
    feed.source.add(5)
    client.say(action="subscribe", channel="events")
    assert client.take_verdict()["after"] == 5
    # when the client goes live and more is written
    client.go_live()
    feed.write(1)
    # then it gets the events after its verdict
    assert client.follow(6) == [6]


def test_a_client_ahead_of_this_process_goes_live_when_the_process_has_caught_up() -> None:
    # given a process that cannot poll now, and a client whose cursor is ahead of it
    def record(*_: object) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")

    is_full = [True]
    feed = Feed(record=record)
    feed.source.add(5)
    with Client(feed) as client:
        client.say(action="subscribe", channel="events")
        assert client.take_verdict()["after"] == 5
        client.subscriber.advance()
        assert client.state is ClientState.REPLAYING
        # when it can poll again, then no event up to the cursor is sent
        is_full.clear()
        feed.relay.poll()
        client.go_live()
        feed.write(1)
        assert client.take_message()["seq"] == 6


# --- endings ----------------------------------------------------------------------------------------------------------


def test_a_replaying_client_that_pruning_overtakes_learns_it_from_its_own_read(feed: Feed, client: Client) -> None:
    feed.write(TAIL_EVENTS + 2000)
    client.say(action="subscribe", channel="events", after=0)
    feed.source.prune(10)
    with pytest.raises(Overtaken, match="1 to 10"):
        client.subscriber.advance()
    assert client.take_verdict()["verdict"] == "resumed"
    assert client.has_nothing_to_read(), "a silent jump"


def test_a_replaying_client_learns_of_a_new_epoch(feed: Feed, client: Client) -> None:
    feed.write(TAIL_EVENTS + 2000)
    client.say(action="subscribe", channel="events", after=0)
    feed.source.epoch = "epoch-2"
    with pytest.raises(Overtaken, match="epoch"):
        client.subscriber.advance()


def test_a_joining_client_learns_that_the_hub_is_in_another_epoch(feed: Feed, client: Client) -> None:
    client.say(action="subscribe", channel="events", after=0)
    feed.source.epoch = "epoch-2"
    feed.relay.poll()
    with pytest.raises(Overtaken, match="epoch"):
        client.subscriber.advance()
    found = client.subscriber
    with pytest.raises(Overtaken, match="epoch"):
        feed.core.cohorts.join(found, found.subscription, found.epoch, found.place)


def test_the_first_reason_to_end_counts(client: Client) -> None:
    client.subscriber.ask_to_end(frames.OVERTAKEN, "first")
    client.subscriber.ask_to_end(frames.RESTARTING, "second")
    assert client.subscriber.ending == (frames.OVERTAKEN, "first")


def test_a_client_that_is_asked_to_end_stops_waiting_for_its_socket(feed: Feed, client: Client) -> None:
    client.subscribe()
    fill_socket(feed, client)
    client.run()
    client.subscriber.ask_to_end(frames.RESTARTING, "")
    assert client.ends()


def test_a_client_has_a_minute_to_subscribe_and_again_after_it_unsubscribed(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("outfeed.clock.monotonic", lambda: now[0])
    with Client(feed) as client:
        assert client.subscriber.wait_secs() == 60
        client.subscribe()
        assert client.subscriber.wait_secs() is None
        now[0] += 30
        client.say(action="unsubscribe", channel="events")
        assert client.subscriber.wait_secs() == 60
        now[0] += 59
        assert not client.subscriber.is_idle_too_long
        now[0] += 1
        assert client.subscriber.wait_secs() == 0
        assert client.subscriber.is_idle_too_long


def test_other_messages_do_not_extend_the_time_to_subscribe(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "IDLE_SECS", 0.0)
    client.say(action="ping")
    client.say(action="unsubscribe", channel="events")
    assert client.subscriber.wait_secs() == 0


# --- states -----------------------------------------------------------------------------------------------------------

LEGAL = {
    ("idle", "replaying"),
    ("replaying", "replaying"),
    ("replaying", "live"),
    ("live", "replaying"),
    ("replaying", "idle"),
    ("live", "idle"),
}


@pytest.mark.parametrize("old", ClientState)
@pytest.mark.parametrize("new", ClientState)
def test_an_illegal_state_change_raises_and_names_it(old: ClientState, new: ClientState) -> None:
    if (old.value, new.value) in LEGAL:
        assert old.moved_to(new) is new
    else:
        with pytest.raises(RuntimeError, match=f"from {old.value} to {new.value}"):
            old.moved_to(new)


def test_an_ended_client_can_not_subscribe_again(feed: Feed, client: Client) -> None:
    client.subscribe()
    feed.hub.remove(client.subscriber)
    with pytest.raises(RuntimeError, match="from closed to replaying"):
        client.say(action="subscribe", channel="events")
    assert client.state is ClientState.CLOSED


def test_an_ended_client_gets_nothing_and_can_end_again(feed: Feed, client: Client) -> None:
    with Client(feed) as other:
        other.subscribe()
        client.subscribe()
        other.server_end.before_send = lambda: feed.hub.remove(client.subscriber)
        feed.write(1)
        feed.hub.remove(client.subscriber)
        assert client.state is ClientState.CLOSED
        assert client.has_nothing_to_read()
        assert other.follow(1) == [1]


def test_an_ended_client_is_freed_at_once(feed: Feed) -> None:
    """It is freed without the garbage collector.

    The collector may run late, and a thousand clients hold memory until then.
    """
    with Peer() as peer:
        subscriber = Subscriber(feed.core, peer.writer, lambda: None, frames.WEBSOCKET, (0, 0), VIEWER)
        feed.hub.add(subscriber)
        subscriber.subscribe(SubscribeRequest())
        subscriber.advance()
        assert subscriber.state is ClientState.LIVE
        gc.disable()
        try:
            feed.hub.remove(subscriber)
            found = weakref.ref(subscriber)
            del subscriber
            assert found() is None
        finally:
            gc.enable()
