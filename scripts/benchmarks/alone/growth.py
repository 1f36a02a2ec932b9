"""Growth: the cost of an event and viewer against the number of viewers, and against that of stored events."""

from __future__ import annotations

from scripts.benchmarks.alone.case import Alone, Figure
from scripts.benchmarks.alone.paced import watch
from scripts.benchmarks.cases import Figures
from scripts.benchmarks.stage import Stage

FEW_STORED = 100_000


def measure(stage: Stage, clients: int) -> Figures:
    """With few stored events and with many, in alternating order."""
    sizes = stage.sizes
    stored = {"few": min(FEW_STORED, sizes.stored_events), "many": sizes.stored_events}
    found: dict[str, Figures] = {}
    for name in stage.in_turn("few", "many"):
        with stage.outfeed(clients, database=stage.stored(stored[name])) as server:
            found[name] = watch(server, clients, sizes.viewers_secs)
    few, many = found["few"], found["many"]
    return {
        "core_percent": few["core_percent"],
        "cpu_us": few["cpu_us"],
        "many_cpu_us": many["cpu_us"],
        "stored_ratio": many["cpu_us"] / few["cpu_us"] if few["cpu_us"] else 0.0,
        "write_p50_ms": few["write_p50_ms"],
        "many_write_p50_ms": many["write_p50_ms"],
    }


GROWTH = Alone(
    "growth",
    (100, 500, 1000, 2000),
    measure,
    {
        "core_percent": Figure("0.1 M events stored: server % of a core", "a straight line"),
        "cpu_us": Figure("0.1 M events stored: server CPU, µs an event and viewer", "level or falling"),
        "many_cpu_us": Figure("all events stored: server CPU, µs an event and viewer"),
        "stored_ratio": Figure("all events ÷ 0.1 M", "1"),
        "write_p50_ms": Figure("0.1 M events stored: one INSERT, p50 ms"),
        "many_write_p50_ms": Figure("all events stored: one INSERT, p50 ms", "the same"),
    },
)
