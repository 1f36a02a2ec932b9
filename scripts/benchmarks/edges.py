"""The command `scripts/bench edges`: an edge beside its origin.

Latency: the same events, each from before its INSERT to a client of the origin and one of an edge. Resume: one client
from far behind.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
import tempfile
import threading
import time
import uuid
from pathlib import Path

import click

from tests.clients import RawClient
from tests.database_file import epoch_of, head_of, write_events
from tests.engines import cluster
from tests.server import Server

INSERT = "INSERT INTO event_log (id, event_type, source, timestamp, data) VALUES (?, 'a.b', 'bench', 't', ?)"
GOALS = "Goals: an edge adds 1.5 ms at p50 and 3 ms at p99 at most, and resumes 100,000 events/s."


@click.command()
@click.option("--seconds", type=click.FloatRange(1, 600), default=10, show_default=True, help="Length of latency.")
@click.option("--rate", type=click.IntRange(1, 2000), default=100, show_default=True, help="Events per second.")
@click.option("--behind", type=click.IntRange(1000, 190_000), default=100_000, show_default=True, help="Events.")
@click.option("--rounds", type=click.IntRange(1, 50), default=3, show_default=True, help="Rounds.")
def main(seconds: float, rate: int, behind: int, rounds: int) -> None:
    """Measure an edge beside its origin.

    The servers and the load share the processors.
    """
    with tempfile.TemporaryDirectory(prefix="outfeed-bench-") as folder, cluster(Path(folder), 1) as (_, origin, edges):
        click.echo("| round | origin p50 / p99, ms | edge p50 / p99, ms | origin resume/s | edge resume/s |")
        click.echo("|---|---|---|---|---|")
        for number in range(1, rounds + 1):
            times = measure_latency(origin, edges[0], seconds, rate)
            write_events(origin.database, behind, data=json.dumps({"text": "x" * 100}))
            time.sleep(3)  # the uplink appends them
            rates = [resume(server, behind) for server in (origin, edges[0])]
            spread = [f"{statistics.median(each):.1f} / {statistics.quantiles(each, n=100)[98]:.1f}" for each in times]
            click.echo(f"| {number} | {' | '.join(spread)} | {' | '.join(f'{each:,.0f}' for each in rates)} |")
    click.echo(GOALS)


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
