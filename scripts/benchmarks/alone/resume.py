"""Resume: clients from far behind."""

from __future__ import annotations

from scripts.benchmarks import process
from scripts.benchmarks.alone.case import Alone, Figure
from scripts.benchmarks.cases import Figures
from scripts.benchmarks.load import Phase
from scripts.benchmarks.session import catch_up
from scripts.benchmarks.stage import Stage


def measure(stage: Stage, clients: int) -> Figures:
    """From the first event on, in batches, as fast as they come; counts from the client's connection."""
    events = stage.sizes.behind_events
    with stage.outfeed(clients, database=stage.stored(events, "unchanged")) as server:
        before, memory = process.cpu_seconds(server.session), process.memory_mib(server.session)
        outcome = catch_up(clients, server.target(batch=True, after=0), Phase(events, careful=0, timeout_secs=120))
        used = process.cpu_seconds(server.session) - before
        grown = process.memory_mib(server.session) - memory
    return {
        "per_s": outcome.deliveries / outcome.seconds,
        "cpu_us": 1e6 * used / outcome.deliveries,
        "grown_mib": grown,
    }


RESUME = Alone(
    "resume",
    (1, 20),
    measure,
    {
        "per_s": Figure("from far behind, events/s", "≥ 100,000"),
        "cpu_us": Figure("from far behind, server CPU, µs an event"),
        "grown_mib": Figure("from far behind, the server's memory grew by, MiB"),
    },
)
