"""An election among three sentinels.

Viewers over two edges see a pause, and nothing else.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import redis

from tests.audience import Audience
from tests.engines import Edge, RedisServer, Sentinels, caught_up
from tests.server import Server, writer
from tests.waits import wait_until


def test_an_elected_replica_goes_on_without_a_closed_socket(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        master, replica = (stack.enter_context(RedisServer(tmp_path)) for _ in range(2))
        replica.client.replicaof("127.0.0.1", str(master.port))
        sentinels = stack.enter_context(Sentinels(tmp_path, master))
        origin = stack.enter_context(Server(tmp_path, engine=sentinels.url))
        caught_up(master, origin.database)
        assert origin.token
        edges = [stack.enter_context(SentinelEdge(origin, master, sentinels.url, n)) for n in range(2)]
        with Audience(edges) as audience:
            with writer(origin.database, 100):
                audience.have(20)
                master.kill()
                began = time.monotonic()
                wait_until(lambda: is_master(replica), "replica elected")
                audience.have(20)
                print(f"new events {time.monotonic() - began:.1f} s after the kill")
            audience.complete(origin.database)
    assert audience.closes == []


class SentinelEdge(Edge):
    """An edge that asks the sentinels for the master."""

    def __init__(self, origin: Server, store: RedisServer, url: str, number: int) -> None:
        super().__init__(origin, store, f"edge-{number}", engine=url)


def is_master(server: RedisServer) -> bool:
    with contextlib.suppress(redis.RedisError):
        return bool(server.client.info("replication")["role"] == "master")
    return False
