"""Failovers of the engine, as viewers over two edges see them."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import httpx
import redis

from tests.audience import Audience
from tests.engines import Edge, RedisServer, Route, Sentinels, caught_up
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
    assert audience.verdicts == set()


def test_an_origin_that_is_left_with_the_old_master_is_told_and_continues(tmp_path: Path) -> None:
    """After the failover, only the edges reach the new master."""
    with contextlib.ExitStack() as stack:
        old, new = (stack.enter_context(RedisServer(tmp_path)) for _ in range(2))
        new.client.replicaof("127.0.0.1", str(old.port))
        way, way_of_edges = (stack.enter_context(Route(old)) for _ in range(2))
        origin = stack.enter_context(Server(tmp_path, engine=way.url, heartbeat_secs=0.3))
        caught_up(old, origin.database)
        assert origin.token
        edges = [
            stack.enter_context(Edge(origin, old, f"edge-{number}", engine=way_of_edges.url, heartbeat_secs=0.3))
            for number in range(2)
        ]
        wait_until(lambda: new.position >= 0, "replica follows")
        with Audience(edges) as audience:
            with writer(origin.database, 100):
                audience.have(20)
                new.client.replicaof("NO", "ONE")
                way_of_edges.lead_to(new)
                wait_until(lambda: all(viewer.stale for viewer in audience), "told that it is stale")
                assert all(viewer.ages[-1] > viewer.ages[0] for viewer in audience)
                assert all(httpx.get(f"{edge.url}/readyz", trust_env=False).status_code == 200 for edge in edges)
                assert old.position > new.position
                old.client.replicaof("127.0.0.1", str(new.port))
                way.lead_to(new)
                audience.have(20)
            audience.complete(origin.database)
    assert audience.closes == []
    assert audience.verdicts == set()


class SentinelEdge(Edge):
    """An edge that asks the sentinels for the master."""

    def __init__(self, origin: Server, store: RedisServer, url: str, number: int) -> None:
        super().__init__(origin, store, f"edge-{number}", engine=url)


def is_master(server: RedisServer) -> bool:
    with contextlib.suppress(redis.RedisError):
        return bool(server.client.info("replication")["role"] == "master")
    return False
