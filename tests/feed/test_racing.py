"""All the pipeline's threads at once, switched as often as can be: joining, leaving, merging, beating, stalling."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from outfeed.feed import frames
from outfeed.feed.hub import Hub
from outfeed.feed.pace import Pacer
from outfeed.feed.relay import Relay
from outfeed.feed.subscriber import State, Subscriber
from outfeed.feed.subscription import SubscribeRequest
from tests.feed.cast import VIEWER, MemorySource, Peer, hub_of
from tests.feed.stage import check, seqs_of
from tests.waits import wait_until

CLIENTS = 8
SUBSCRIPTIONS = 30


@pytest.fixture(autouse=True)
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Client:
    """One client on two threads: the server's, which subscribes again and again, and its own, which reads."""

    def __init__(self, hub: Hub, peer: Peer, seed: int) -> None:
        self._hub, self._peer = hub, peer
        self._rng = random.Random(seed)
        self._bell = threading.Event()
        self.subscriber = Subscriber(hub, peer.writer, self._bell.set, frames.WEBSOCKET, (100, 0), VIEWER)
        self.messages: list[dict[str, Any]] = []
        self.cursor = 0
        self.is_settled = threading.Event()
        self._stop = threading.Event()
        self.threads = [threading.Thread(target=self._serve), threading.Thread(target=self._read)]

    def _serve(self) -> None:
        for _ in range(SUBSCRIPTIONS):
            self._subscribe(rate=self._rng.choice([0, 100, 1000, 1000]), batch=self._rng.random() < 0.6)
            for _ in range(self._rng.randint(1, 30)):
                self._step(0.002)
        self._subscribe(rate=1000, batch=True)
        self.is_settled.set()
        while not self._stop.is_set():
            self._step(0.01)
        self._hub.remove(self.subscriber)
        self._peer.socket.shutdown(2)

    def _subscribe(self, **fields: Any) -> None:
        after = max(0, self._hub.position - self._rng.choice([0, 0, 1, 5, 50]))
        self.subscriber.subscribe(SubscribeRequest(after=after, epoch="epoch-1", **fields))

    def _step(self, timeout: float) -> None:
        patience = self.subscriber.patience()
        self._bell.wait(timeout if patience is None else min(timeout, patience))
        self._bell.clear()
        if self.subscriber.state is State.REPLAYING:
            self.subscriber.advance()

    def _read(self) -> None:
        try:
            while True:
                message = json.loads(self._peer.take_frame()[1])
                self.messages.append(message)
                payload = message["payload"]
                self.cursor = (seqs_of(message) or [payload.get("after", payload.get("cursor"))])[-1]
        except (AssertionError, OSError):
            pass  # the connection ended, after all that was sent

    def end(self) -> None:
        self._stop.set()
        for thread in self.threads:
            thread.join()


def test_none_loses_an_event_or_is_told_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemorySource()
    source.add(100)
    hub = hub_of(source)
    relay = Relay(hub, lambda *_: None, heartbeat_secs=0.02)
    relay.start()
    pacer = Pacer(relay.poll)
    hub.plan = pacer.plan
    pacer.start()
    peers = [Peer(send_buffer_bytes=32_768 if n % 4 == 0 else None) for n in range(CLIENTS)]
    clients = [Client(hub, peer, seed) for seed, peer in enumerate(peers)]
    try:
        for client in clients:
            for thread in client.threads:
                thread.start()
        for client in clients:
            while not client.is_settled.wait(0.002):
                source.add(random.Random(source.last_seq).choice([1, 1, 1, 20]))
                relay.poll()
        source.add(1)
        relay.poll()
        last = source.last_seq
        wait_until(lambda: all(client.cursor == last for client in clients), f"all at {last}", timeout=20)
        wait_until(lambda: relay.poll() or len(list(hub._all_cohorts())) == 1, "one cohort is left")
    finally:
        for client in clients:
            client.end()
        pacer.stop()
        for peer in peers:
            peer.__exit__()
    for client in clients:
        check_whole(client.messages)
    assert not list(hub._all_cohorts())
    assert not hub.counts()


def check_whole(messages: list[dict[str, Any]]) -> None:
    """Fail unless every subscription had each event after its verdict, once, as far as it went."""
    check(messages)
    expected = 0
    for message in messages:
        if message["type"] == "subscribed":
            expected = message["payload"]["after"] + 1
        for seq in seqs_of(message):
            assert seq == expected
            expected += 1
