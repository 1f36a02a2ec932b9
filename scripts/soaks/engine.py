"""The soak of edges: failures of engine, edges and origin at random.

Viewers over two edges check each event; at the end each has all of them, once and in order.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import redis

from scripts.soaks.simulation import TRACE, check_trace
from scripts.soaks.stage import Mismatch
from tests.audience import Audience
from tests.engines import GRANTS, Edge, RedisServer, Route, caught_up
from tests.server import Server, writer
from tests.waits import wait_until

VIEWERS = 8
EVENTS_PER_SECOND = 100
# A restart must find the write lock free in time, on a busy machine too.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
# The codes with which a killed edge leaves its viewers.
ENDED = {1006, 1012}


class Failures:
    """The failures to choose from.

    Recovery may go on after a method has returned.
    """

    def __init__(self, way: Route, replica: RedisServer, origin: Server, edges: list[Edge], rng: random.Random) -> None:
        self._way = way
        self._engine = way.engine
        self._replica = replica
        self._origin = origin
        self._edges = edges
        self._rng = rng

    def kill_engine(self) -> None:
        """Kill the engine, which comes back empty."""
        self._engine.kill()
        (self._engine.folder / "dump.rdb").unlink(missing_ok=True)
        time.sleep(self._rng.uniform(0, 3))
        self._engine.start()

    def fail_over(self) -> None:
        """Promote the replica; the former master follows it."""
        self._replica.client.replicaof("NO", "ONE")
        self._way.lead_to(self._replica)
        self._engine.client.replicaof("127.0.0.1", str(self._replica.port))
        self._engine, self._replica = self._replica, self._engine

    def fall_back(self) -> None:
        """Have the engine come back with what an older replica has."""
        wait_until(self._save, "dump written")
        time.sleep(self._rng.uniform(0.2, 2))
        self._engine.kill()
        self._engine.start()
        (self._engine.folder / "dump.rdb").unlink(missing_ok=True)

    def _save(self) -> bool:
        with contextlib.suppress(redis.ResponseError):  # while the replica gets a dump
            return bool(self._engine.client.save())
        return False

    def flush_engine(self) -> None:
        """Remove everything in the engine."""
        self._engine.client.flushall()

    def lose_grants(self) -> None:
        """Remove the permissions alone."""
        self._engine.client.delete(GRANTS)

    def pause_engine(self) -> None:
        """Halt the engine for longer than any call waits."""
        with self._engine.paused():
            time.sleep(self._rng.uniform(0.5, 5))

    def kill_edge(self) -> None:
        """Kill an edge; its viewers move to the other."""
        edge = self._rng.choice(self._edges)
        edge.kill()
        time.sleep(self._rng.uniform(0, 2))
        edge.start(is_ready=False)

    def kill_origin(self) -> None:
        """Kill the origin."""
        self._origin.kill()
        time.sleep(self._rng.uniform(0, 6))
        self._origin.start()


NAMES = (
    "kill_engine", "fail_over", "fall_back", "flush_engine", "lose_grants", "pause_engine", "kill_edge", "kill_origin",
)  # fmt: skip


def run(minutes: float, rng: random.Random) -> str:
    """Mix failures for *minutes*, and return what was done. Raises Mismatch."""
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="outfeed-soak-", dir=MEMORY) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        engine, replica = (stack.enter_context(RedisServer(folder_of(folder, name))) for name in ("one", "two"))
        replica.client.replicaof("127.0.0.1", str(engine.port))
        way = stack.enter_context(Route(engine))
        trace = str(folder / TRACE)
        origin = stack.enter_context(Server(folder, engine=way.url, heartbeat_secs=1, trace_file=trace))
        caught_up(engine, origin.database)
        assert origin.token
        settings = {"engine": way.url, "heartbeat_secs": 1, "trace_file": trace}
        edges = [stack.enter_context(Edge(origin, engine, f"edge-{number}", **settings)) for number in range(2)]
        failures = Failures(way, replica, origin, edges, rng)
        audience = stack.enter_context(Audience(edges, VIEWERS))
        deadline = time.monotonic() + minutes * 60
        with writer(origin.database, EVENTS_PER_SECOND):
            while time.monotonic() < deadline:
                failure = rng.choice(NAMES)
                click.echo(f"{failure}; {min(len(viewer.events) for viewer in audience):,} events")
                getattr(failures, failure)()
                done[failure] += 1
                audience.have(100)
        audience.complete(origin.database)
        _compare(audience)
        count = len(audience.viewers[0].events)
        traced = check_trace(folder)
    return f"{VIEWERS} viewers had all {count:,} events, over {dict(done)}; {traced}"


def folder_of(folder: Path, name: str) -> Path:
    """Create the folder of one engine, for its dump."""
    (folder / name).mkdir()
    return folder / name


def _compare(audience: Audience) -> None:
    if not set(audience.closes) <= ENDED:
        raise Mismatch(f"sockets were closed with {Counter(audience.closes)}")
    if not audience.verdicts <= {"resumed"}:
        raise Mismatch(f"viewers were told {audience.verdicts}")
