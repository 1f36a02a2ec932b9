"""No live subscriber gets an event of another history."""

from __future__ import annotations

import pytest

from outfeed.errors import Overtaken
from outfeed.feed import frames, reader
from outfeed.feed.client import ClientState
from outfeed.feed.subscriber import Subscriber
from outfeed.feed.subscription import SubscribeRequest
from tests.feed.fake_source import VIEWER, MemorySource, core_of
from tests.feed.socket_harness import Client, Feed, Peer


def test_a_live_subscriber_gets_nothing_of_a_history_whose_head_is_its_own_position() -> None:
    source = MemorySource()
    source.add(3)
    core = core_of(source)
    hub, relay = core.hub, core.relay
    relay.start()
    with Peer() as peer:
        subscriber = Subscriber(core, peer.writer, lambda: None, frames.WEBSOCKET, (0, 0), VIEWER)
        subscriber.subscribe(SubscribeRequest(after=0))
        while subscriber.state is not ClientState.LIVE:
            subscriber.advance()
        assert [frame["seq"] for frame in peer.take_messages(until_seq=3)[1:]] == [1, 2, 3]

        source.epoch = "epoch-2"
        relay.poll()
        source.add(1)
        relay.poll()

        assert subscriber.ending == (frames.OVERTAKEN, "the epoch changed")
        hub.remove(subscriber)
        peer.writer.send_close(frames.close(*subscriber.ending))
        opcode, _ = peer.take_frame()
        assert opcode == 8, "an event of the other history went out"


def test_a_replay_of_a_file_that_was_rewound_pauses_until_the_relay_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a replay that has not ended, and an older copy in place of the file
    rests: list[float] = []
    monkeypatch.setattr(reader.time, "sleep", rests.append)
    feed = Feed()
    feed.write(9)
    with Client(feed) as client:
        client.say(action="subscribe", channel="events", after=6, epoch="epoch-1")
        feed.core.forget()  # so that the tail does not reach back
        feed.source.items, feed.source.last_seq = feed.source.items[:4], 4
        # when the client reads
        client.subscriber.advance()
        client.subscriber.advance()
        # then each read is followed by a pause, and the relay ends the replay
        assert rests == [reader.BEHIND_SECS] * 2
        feed.relay.poll()
        with pytest.raises(Overtaken):
            client.subscriber.advance()


def test_an_ack_after_a_restore_is_not_reported_as_the_clients_error() -> None:
    feed = Feed()
    with Client(feed) as client:
        client.subscribe(consumer="ops")
        feed.write(1)
        client.follow(1)
        feed.source.epoch = "epoch-2"
        with pytest.raises(Overtaken):
            client.say(action="ack", seq=1)
        assert client.has_nothing_to_read()
