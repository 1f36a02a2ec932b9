"""When history changes under live subscribers, none of them gets an event of the other one."""

from __future__ import annotations

from app.feed import frames
from app.feed.relay import Relay
from app.feed.subscriber import State, Subscriber
from app.feed.subscription import SubscribeRequest
from tests.feed.cast import VIEWER, MemorySource, Peer, hub_of


def test_a_live_subscriber_gets_nothing_of_a_history_whose_head_is_its_own_position() -> None:
    source = MemorySource()
    source.add(3)
    hub = hub_of(source)
    relay = Relay(hub, lambda *_: None, heartbeat_secs=60)
    relay.start()
    with Peer() as peer:
        subscriber = Subscriber(hub, peer.wire, lambda: None, frames.WEBSOCKET, (0, 0), VIEWER)
        subscriber.subscribe(SubscribeRequest(after=0))
        while subscriber.state is not State.LIVE:
            subscriber.advance()
        assert [frame["seq"] for frame in peer.take_messages(until_seq=3)[1:]] == [1, 2, 3]

        source.epoch = "epoch-2"
        relay.poll()
        source.add(1)
        relay.poll()

        assert subscriber.ending == (frames.OVERTAKEN, "the epoch changed")
        hub.remove(subscriber)
        peer.wire.say_goodbye(frames.close(*subscriber.ending))
        opcode, _ = peer.take_frame()
        assert opcode == 8, "an event of the other history went out"
