"""Joining a cohort races with the relay: no client gets a wrong position."""

from __future__ import annotations

import contextlib
import random
import re
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from outfeed.feed import frames
from outfeed.feed.client import ClientState
from outfeed.feed.subscriber import Subscriber
from outfeed.feed.subscription import SubscribeRequest
from tests.clients import FeedClient, RawClient
from tests.database_file import write_events
from tests.feed.fake_source import VIEWER, MemorySource, core_of
from tests.feed.socket_harness import Peer
from tests.protocol import check_whole, seqs_of
from tests.server import Server, writer
from tests.waits import PATIENCE_SECS, shortest


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server with a place for each of two hundred clients."""
    with Server(tmp_path, max_connections=300) as running:
        yield running


def test_a_thousand_joins_at_random_cursors_miss_no_event(server: Server) -> None:
    with writer(server.database, rate=300), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(10)]
        for client in clients:
            client.subscribe(after=0)
            client.follow(20)
        with ThreadPoolExecutor(len(clients)) as pool:
            for finished in [pool.submit(join_repeatedly, client, n) for n, client in enumerate(clients)]:
                finished.result()


def join_repeatedly(client: FeedClient, seed: int, joins: int = 100) -> None:
    """Resume from random cursors.

    Each frame after a verdict must follow the one before it without a gap.
    """
    rng = random.Random(seed)
    head = client.cursor
    for _ in range(joins):
        after = max(0, head - rng.choice([rng.randint(0, 5), rng.randint(0, 300)]))
        verdict = client.subscribe(after=after, epoch=client.epoch)
        assert (verdict["verdict"], verdict["after"]) == ("resumed", after)
        head = verdict["head"]
        client.seen.clear()
        client.follow(head + rng.randint(0, 3))
        assert client.seen == list(range(after + 1, client.seen[-1] + 1 if client.seen else after + 1))


@pytest.fixture
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching_often")
def test_a_join_compares_positions_under_the_lock() -> None:
    """The relay publishes after a joiner's read of the position."""
    source = MemorySource()
    source.add(3)
    core = core_of(source)
    core.relay.start()
    rng = random.Random(5)
    messages: list[dict[str, Any]] = []
    with Peer() as peer:
        subscriber = Subscriber(core, peer.writer, lambda: None, frames.WEBSOCKET, (0, 0), VIEWER)
        subscriber.subscribe(SubscribeRequest(after=0))
        has_joined = threading.Event()

        def publish_in_between() -> None:
            for _ in range(100_000):
                source.add(1)
                core.relay.poll()
                if has_joined.is_set():
                    return

        def join() -> None:
            while subscriber.state is not ClientState.LIVE:
                subscriber.advance()

        thread = threading.Thread(target=publish_in_between)
        reader = threading.Thread(target=lambda: messages.extend(peer.take_all()))
        thread.start()
        reader.start()
        for _ in range(300):
            join()
            after = max(0, core.hub.position - rng.choice([0, 0, 1, 5]))
            subscriber.subscribe(SubscribeRequest(after=after, epoch=source.epoch))
        join()
        has_joined.set()
        thread.join()
        source.add(1)
        core.relay.poll()
        core.hub.remove(subscriber)
        peer.server_end.shutdown(socket.SHUT_WR)
        reader.join()
    check_whole(messages)
    assert seqs_of(messages[-1]) == [source.last_seq]


def test_two_hundred_clients_five_hundred_behind_are_live_within_six_seconds(server: Server) -> None:
    write_events(server.database, 500)
    longest_probes: list[float] = []

    def secs_to_catch_up() -> float:
        probes: list[float] = []
        done = threading.Event()
        prober = threading.Thread(target=probe_health, args=(server.url, probes, done))
        with writer(server.database, rate=100), contextlib.ExitStack() as stack:
            clients = [stack.enter_context(RawClient(server)) for _ in range(200)]
            prober.start()
            began = time.monotonic()
            for client in clients:
                client.subscribe(after=0)
            received = receive_all(clients, until_event=500)
            took = time.monotonic() - began
            done.set()
            prober.join()
        for chunk in received:
            seqs = [int(seq) for seq in re.findall(rb'"type":"event","seq":(\d+)', chunk)]
            assert seqs == list(range(1, len(seqs) + 1))
        longest_probes.append(max(probes))
        return took

    assert shortest(secs_to_catch_up, 6) < 6
    assert min(longest_probes) < 1, longest_probes


def receive_all(clients: list[RawClient], until_event: int) -> list[bytes]:
    """Read from all clients at once until each has that many events."""
    received = {client.socket.fileno(): bytearray() for client in clients}
    counts = dict.fromkeys(received, 0)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(timeout=10):
                chunk = key.fileobj.recv(1 << 18)  # type: ignore[union-attr]
                assert chunk, "the server ended a connection"
                received[key.fd] += chunk
                counts[key.fd] += chunk.count(b'"type":"event"')
                if counts[key.fd] > until_event:  # one more, since a marker may be cut in two
                    selector.unregister(key.fileobj)
    return [bytes(received[client.socket.fileno()]) for client in clients]


def probe_health(url: str, slowest: list[float], stop: threading.Event) -> None:
    with httpx.Client(base_url=url, timeout=PATIENCE_SECS, verify=False) as http:
        while True:
            began = time.monotonic()
            assert http.get("/healthz").status_code == 200
            slowest.append(time.monotonic() - began)
            if stop.wait(0.05):
                return
