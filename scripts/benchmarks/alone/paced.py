"""Viewers as the page has them, and what they cost the server while they watch 100 events a second."""

from __future__ import annotations

from scripts.benchmarks import process
from scripts.benchmarks.alone.case import Alone, Figure
from scripts.benchmarks.cases import PACED_PER_SECOND, Figures
from scripts.benchmarks.load import Phase
from scripts.benchmarks.servers import Outfeed
from scripts.benchmarks.session import LoadSession
from scripts.benchmarks.stage import Stage

WARM_UP = Phase(events=20, careful=1_000_000, timeout_secs=60)


def measure(stage: Stage, clients: int) -> Figures:
    """1,000 of them, on an empty log."""
    with stage.outfeed(clients) as server:
        return watch(server, clients, stage.sizes.viewers_secs)


def watch(server: Outfeed, clients: int, secs: float) -> Figures:
    """Every client reads carefully: frame by frame, every event once and in order."""
    events = round(secs * PACED_PER_SECOND)
    with LoadSession(server, clients, server.viewer()) as load:
        load.run(WARM_UP, PACED_PER_SECOND)
        before = process.cpu_seconds(server.session)
        outcome, written = load.run(Phase(events, careful=clients, timeout_secs=secs + 60), PACED_PER_SECOND)
        used = process.cpu_seconds(server.session) - before
    return {
        "core_percent": 100 * used / outcome.seconds,
        "cpu_us": 1e6 * used / outcome.deliveries,
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
        "write_p50_ms": written.one_p50_ms,
        "load_core_percent": 100 * outcome.cpu_seconds / outcome.seconds,
    }


PACED = Alone(
    "paced",
    (1000,),
    measure,
    {
        "core_percent": Figure("batched viewers at 10 frames/s, 100 events/s: server % of a core", "≤ 20"),
        "cpu_us": Figure("server CPU, µs an event and viewer"),
        "p50_ms": Figure("p50 ms, up to 110 of them the pace"),
        "p99_ms": Figure("p99 ms"),
    },
)
