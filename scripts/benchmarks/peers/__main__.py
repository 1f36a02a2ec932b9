"""The command `scripts/bench peers`: Outfeed beside other servers."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from scripts.benchmarks import process
from scripts.benchmarks.cases import BURST_EVENTS, CAREFUL_IN_BURST, PACED_PER_SECOND, WARM_UP, Figures
from scripts.benchmarks.client import Target
from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.load import Phase
from scripts.benchmarks.peers import nats, pocketbase
from scripts.benchmarks.peers.peer import Peer
from scripts.benchmarks.servers import THIS, Server
from scripts.benchmarks.session import LoadSession

PEERS: dict[str, type[Peer]] = {
    "jetstream-fsync": nats.SyncedStreamServer,
    "jetstream": nats.StreamServer,
    "nats": nats.Server,
    "pocketbase": pocketbase.Server,
}
NAMES = ["outfeed", *PEERS]


@click.command(epilog="Example: scripts/bench peers outfeed jetstream-fsync --rounds 5")
@click.argument("servers", nargs=-1, type=click.Choice(NAMES), metavar="[SERVER]...")
@click.option("--clients", default="1,100,1000", show_default=True, metavar="N,N…", help="Numbers for the latency.")
@click.option("--burst-clients", type=click.IntRange(1, 5000), default=500, show_default=True)
@click.option("--burst-events", type=click.IntRange(1, 100_000), default=BURST_EVENTS, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=5, show_default=True, help="Duration of a latency.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
def main(
    servers: tuple[str, ...], clients: str, burst_clients: int, burst_events: int, seconds: float, rounds: int
) -> None:
    """Measure Outfeed beside NATS, JetStream and PocketBase.

    The servers are outfeed, jetstream-fsync, jetstream, nats and pocketbase; by default all. Each gets the same events
    of 250 bytes from one writer, and the same load client checks the number and order of each. Latency counts from
    before the write, at 100 events/s. Prints a Markdown table of medians, with the time of one write, which a server
    that stores confirms. A server that missed, repeated or reordered an event has the reason in place of the figure.
    """
    process.raise_descriptor_limit()
    counts = [int(count) for count in clients.split(",")]
    chosen = [name for name in NAMES if name in servers or not servers]
    cells: dict[tuple[str, str], list[Figures | str]] = {}
    with tempfile.TemporaryDirectory(prefix="outfeed-bench-") as folder:
        for number in range(1, rounds + 1):
            for name in chosen if number % 2 else reversed(chosen):
                for column, count in [*((str(count), count) for count in counts), ("burst", burst_clients)]:
                    click.echo(f"round {number}: {name}, {column}", err=True)
                    events = burst_events if column == "burst" else round(seconds * PACED_PER_SECOND)
                    rate = 0 if column == "burst" else PACED_PER_SECOND
                    found = measure(name, Path(tempfile.mkdtemp(dir=folder)), count, events, rate)
                    cells.setdefault((name, column), []).append(found)
    click.echo(table(chosen, counts, burst_clients, cells))


def measure(name: str, folder: Path, clients: int, events: int, per_second: float) -> Figures | str:
    """Return the figures of one server, or why there are none."""
    careful = clients if per_second else CAREFUL_IN_BURST
    phase = Phase(events, careful, timeout_secs=(events / per_second if per_second else 30) + 60)
    try:
        with server_of(name, folder, clients) as server, session_of(server, clients) as load:
            load.run(WARM_UP, PACED_PER_SECOND)
            before = process.cpu_seconds(server.session)
            outcome, written = load.run(phase, per_second)
            used = process.cpu_seconds(server.session) - before
    except BenchError as error:
        return str(error)
    return {
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
        "deliveries_per_s": outcome.deliveries / outcome.seconds,
        "cpu_us": 1e6 * used / outcome.deliveries,
        "write_p50_ms": written.one_p50_ms,
    }


def server_of(name: str, folder: Path, clients: int) -> Server | Peer:
    """Return a server that is not started."""
    return Server(THIS, folder, clients) if name == "outfeed" else PEERS[name](folder)


def session_of(server: Server | Peer, clients: int) -> LoadSession:
    """Return clients of *server*, and its writer."""
    target: Target = server.target()
    return LoadSession(server, clients, target, server.sink() if isinstance(server, Peer) else None)


def table(
    names: Sequence[str], counts: Sequence[int], burst: int, cells: dict[tuple[str, str], list[Figures | str]]
) -> str:
    """Return the medians as Markdown."""
    latencies = [f"{count:,} client{'s' * (count > 1)}, p50 / p99 ms" for count in counts]
    burst_heads = [f"burst to {burst:,}, deliveries/s", "server CPU, µs a delivery"]
    head = ["server", "fsynced", "one write, p50 ms", *latencies, *burst_heads]
    lines = [head, ["---"] * len(head)]
    for name in names:
        stored = PEERS[name].stored if name in PEERS else "yes"
        title = PEERS[name].name if name in PEERS else "Outfeed"
        writes = [each for each in cells[name, str(counts[0])] if not isinstance(each, str)]
        write = text([*writes] or ["–"], "{write_p50_ms:.2f}")
        spread = [text(cells[name, str(count)], "{p50_ms:.2f} / {p99_ms:.1f}") for count in counts]
        burst_texts = [text(cells[name, "burst"], shape) for shape in ("{deliveries_per_s:,.0f}", "{cpu_us:.2f}")]
        lines.append([title, stored, write, *spread, *burst_texts])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text(found: list[Figures | str], shape: str) -> str:
    """Return the medians of the rounds in *shape*, or why a round has none."""
    figures = [each for each in found if not isinstance(each, str)]
    refused = [each for each in found if isinstance(each, str)]
    if not figures:
        return refused[0]
    medians = {name: statistics.median(each[name] for each in figures) for name in figures[0]}
    return shape.format(**medians) + (f" ({len(refused)} of {len(found)} rounds: {refused[0]})" if refused else "")


if __name__ == "__main__":
    main(prog_name="scripts/bench peers")
