"""The command `scripts/bench edges`: an edge beside its origin.

Latency: the same events, each from before its INSERT to a client of the origin and one of an edge. Resume: one client
from far behind. Failover: an election by three Sentinels. Crowd: many viewers on five edges.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import click

from scripts.benchmarks.client import Target
from scripts.benchmarks.load import Phase
from scripts.benchmarks.session import LoadSession, run_together
from tests.audience import Audience
from tests.clients import RawClient
from tests.database_file import epoch_of, head_of, write_events
from tests.engines import Edge, RedisServer, Sentinels, caught_up, cluster
from tests.server import Server, writer

INSERT = "INSERT INTO event_log (id, event_type, source, timestamp, data) VALUES (?, 'a.b', 'bench', 't', ?)"
GOALS = (
    "Goals: an edge adds 1.5 ms at p50 and 3 ms at p99 at most, and resumes 100,000 events/s. A failover takes 5 s at"
    " most, closes no socket, and no event is missing or comes twice. A crowd gets each event once and in order."
)
FAILOVER_RATE = 100
CROWD_EDGES = 5
CROWD_RATE, CROWD_EVENTS = 10, 50
CROWD_TIMEOUT_SECS = 300.0
LEAVE_SECS = 5.0  # until the edges have noticed that a crowd has left


@click.command()
@click.option("--seconds", type=click.FloatRange(1, 600), default=10, show_default=True, help="Length of latency.")
@click.option("--rate", type=click.IntRange(1, 2000), default=100, show_default=True, help="Events per second.")
@click.option("--behind", type=click.IntRange(1000, 190_000), default=100_000, show_default=True, help="Events.")
@click.option(
    "--rounds", type=click.IntRange(0, 50), default=3, show_default=True, help="Rounds of latency and resume."
)
@click.option("--failovers", type=click.IntRange(0, 20), default=1, show_default=True, help="Elections by Sentinel.")
@click.option("--viewers", type=click.IntRange(0, 15_000), default=0, show_default=True, help="Crowd on five edges.")
@click.option("--burst", type=click.IntRange(100, 5000), default=500, show_default=True, help="Events for the crowd.")
def main(seconds: float, rate: int, behind: int, rounds: int, failovers: int, viewers: int, burst: int) -> None:
    """Measure edges beside their origin.

    The servers and the load share the processors.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the servers too
    if rounds:
        compare(seconds, rate, behind, rounds)
    for _ in range(failovers):
        click.echo(f"failover: new events at all viewers {measure_failover():.1f} s after the kill of the master")
    if viewers:
        measure_crowd(viewers, burst)
    click.echo(GOALS)


def compare(seconds: float, rate: int, behind: int, rounds: int) -> None:
    """Print latency and resume of an edge and of its origin."""
    with tempfile.TemporaryDirectory(prefix="outfeed-bench-") as folder, cluster(Path(folder), 1) as (_, origin, edges):
        click.echo("| round | origin p50 / p99, ms | edge p50 / p99, ms | origin resume/s | edge resume/s |")
        click.echo("|---|---|---|---|---|")
        for number in range(1, rounds + 1):
            times = measure_latency(origin, edges[0], seconds, rate)
            write_events(origin.database, behind, data=json.dumps({"text": "x" * 100}))
            caught_up(edges[0].store, origin.database, timeout=60)
            rates = [resume(server, behind) for server in (origin, edges[0])]
            spread = [f"{statistics.median(each):.1f} / {statistics.quantiles(each, n=100)[98]:.1f}" for each in times]
            click.echo(f"| {number} | {' | '.join(spread)} | {' | '.join(f'{each:,.0f}' for each in rates)} |")


def measure_failover() -> float:
    """Return the seconds from the kill of the master to new events at all.

    Four viewers over two edges check that none is missing or comes twice, and that no socket is closed.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outfeed-bench-")))
        master, replica = (stack.enter_context(RedisServer(folder)) for _ in range(2))
        replica.client.replicaof("127.0.0.1", str(master.port))
        sentinels = stack.enter_context(Sentinels(folder, master))
        origin = stack.enter_context(Server(folder, engine=sentinels.url))
        caught_up(master, origin.database)
        assert origin.token
        edges = [
            stack.enter_context(Edge(origin, master, f"edge-{number}", engine=sentinels.url)) for number in range(2)
        ]
        with Audience(edges) as audience:
            with writer(origin.database, FAILOVER_RATE):
                audience.have(20)
                master.kill()
                began = time.monotonic()
                audience.have(1)
                took = time.monotonic() - began
                audience.have(20)
            audience.complete(origin.database)
        assert audience.closes == []
    return took


def measure_crowd(viewers: int, burst: int) -> None:
    """Print the figures of *viewers* on five edges, at a pace and in a burst.

    The clients check the number of each event.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outfeed-bench-")))
        limits = {"max_connections": viewers // CROWD_EDGES + 100}
        _, _, edges = stack.enter_context(cluster(folder, CROWD_EDGES, **limits))
        paced = Phase(CROWD_EVENTS, CROWD_EVENTS, CROWD_TIMEOUT_SECS)
        for name, phase, per_second, commit in (
            (f"{CROWD_RATE} events/s", paced, CROWD_RATE, 1),
            (f"{burst} events at once", Phase(burst, 10, CROWD_TIMEOUT_SECS), 1_000_000, 100),
        ):
            with contextlib.ExitStack() as clients:
                sessions = [
                    clients.enter_context(LoadSession(edge, viewers // CROWD_EDGES, target_of(edge)))  # type: ignore[arg-type]
                    for edge in edges
                ]
                outcomes, _ = run_together(sessions, phase, per_second, commit)
            time.sleep(LEAVE_SECS)
            deliveries, seconds = sum(each.deliveries for each in outcomes), max(each.seconds for each in outcomes)
            p50, p99 = max(each.p50_ms for each in outcomes), max(each.p99_ms for each in outcomes)
            click.echo(
                f"{viewers:,} viewers, {name}: all {deliveries:,} deliveries in order, {deliveries / seconds:,.0f}/s,"
                f" p50 {p50:,.0f} ms, p99 {p99:,.0f} ms"
            )


def target_of(edge: Edge) -> Target:
    """Return a subscription to all new events of *edge* at full speed."""
    subscribe = json.dumps({"action": "subscribe", "channel": "events", "rate": 0})
    return Target("127.0.0.1", edge.port, "/ws", {"Authorization": f"Bearer {edge.token}"}, subscribe)


def measure_latency(origin: Server, edge: Server, seconds: float, rate: int) -> list[list[float]]:
    """Return the milliseconds of each event at the origin and at the edge."""
    count = int(seconds * rate)
    found: list[list[float]] = [[], []]
    with RawClient(origin) as first, RawClient(edge) as second:
        threads = []
        for client, times in zip((first, second), found, strict=True):
            client.subscribe()
            client.take_message()
            threads.append(threading.Thread(target=_take, args=(client, times, count)))
        for thread in threads:
            thread.start()
        with contextlib.closing(sqlite3.connect(origin.database, isolation_level=None, timeout=30)) as raw:
            for _ in range(count):
                began = time.monotonic()
                raw.execute(INSERT, (uuid.uuid4().hex, json.dumps({"at": began})))
                time.sleep(max(0.0, began + 1 / rate - time.monotonic()))
        for thread in threads:
            thread.join()
    return found


def _take(client: RawClient, times: list[float], count: int) -> None:
    while len(times) < count:
        message = client.take_message()
        if message["type"] == "event":
            times.append((time.monotonic() - message["payload"]["data"]["at"]) * 1000)


def resume(server: Server, behind: int) -> float:
    """Return the events per second of a client *behind* events behind."""
    head = head_of(server.database)
    last = b'"seq":%d,' % head
    with RawClient(server) as client:
        began = time.monotonic()
        place = {"after": head - behind, "epoch": epoch_of(server.database)}
        message = {"action": "subscribe", "channel": "events", "rate": 0, "batch": True, **place}
        body = json.dumps(message).encode()
        client.socket.sendall(b"\x81\xfe" + len(body).to_bytes(2) + bytes(4) + body)  # masked with zeros
        while last not in client.take_frame()[1]:
            pass
        return behind / (time.monotonic() - began)


if __name__ == "__main__":
    main()
