"""All the pipeline's threads at once, switched as often as possible.

Clients join, leave, merge, stall and get heartbeats.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from outfeed.feed import frames
from outfeed.feed.client import ClientState
from outfeed.feed.core import Core
from outfeed.feed.subscriber import Subscriber
from outfeed.feed.subscription import SubscribeRequest
from tests.feed.fake_source import VIEWER, MemorySource, core_of
from tests.feed.socket_harness import Peer
from tests.protocol import Ended, check_whole, seqs_of
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
    """One client on two threads.

    The server's thread subscribes again and again. The client's own thread reads.
    """

    def __init__(self, core: Core, peer: Peer, seed: int) -> None:
        self._hub, self._peer = core.hub, peer
        self._rng = random.Random(seed)
        self._bell = threading.Event()
        self.subscriber = Subscriber(core, peer.writer, self._bell.set, frames.WEBSOCKET, (100, 0), VIEWER)
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
        wait_secs = self.subscriber.wait_secs()
        self._bell.wait(timeout if wait_secs is None else min(timeout, wait_secs))
        self._bell.clear()
        if self.subscriber.state is ClientState.REPLAYING:
            self.subscriber.advance()

    def _read(self) -> None:
        try:
            while True:
                message = json.loads(self._peer.take_frame()[1])
                self.messages.append(message)
                payload = message["payload"]
                self.cursor = (seqs_of(message) or [payload.get("after", payload.get("cursor"))])[-1]
        except (Ended, OSError):
            pass  # the connection ended after everything was sent

    def end(self) -> None:
        self._stop.set()
        for thread in self.threads:
            thread.join()


def test_no_client_loses_an_event_or_gets_a_wrong_prev(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemorySource()
    source.add(100)
    core = core_of(source, heartbeat_secs=0.02)
    relay = core.relay
    relay.start()
    core.pacer.start(relay.poll)
    peers = [Peer(send_buffer_bytes=32_768 if n % 4 == 0 else None) for n in range(CLIENTS)]
    clients = [Client(core, peer, seed) for seed, peer in enumerate(peers)]
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
        wait_until(lambda: relay.poll() or len(core.cohorts.live()) == 1, "one cohort is left")
    finally:
        for client in clients:
            client.end()
        core.pacer.stop()
        for peer in peers:
            peer.__exit__()
    for client in clients:
        check_whole(client.messages)
    assert not core.cohorts.live()
    assert not core.hub.counts()
