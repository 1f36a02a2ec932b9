"""Two workers against one, in alternating order; what two cores can show of it."""

from __future__ import annotations

from scripts.benchmarks.alone.case import Alone, Figure
from scripts.benchmarks.cases import Figures, measure_burst, measure_latency
from scripts.benchmarks.load import Phase
from scripts.benchmarks.session import LoadSession
from scripts.benchmarks.stage import Stage

WARM_UP = Phase(events=20, careful=1_000_000, timeout_secs=60)


def measure(stage: Stage, clients: int) -> Figures:
    """The cases latency and burst."""
    found: dict[int, Figures] = {}
    for workers in stage.in_turn(1, 2):
        with stage.outfeed(clients, workers=workers) as server, LoadSession(server, clients) as load:
            load.run(WARM_UP, per_second=100)
            found[workers] = measure_latency(load, stage.sizes) | measure_burst(load, stage.sizes)
    one, two = found[1], found[2]
    return {
        "one_p50_ms": one["p50_ms"],
        "two_p50_ms": two["p50_ms"],
        "p50_ratio": two["p50_ms"] / one["p50_ms"],
        "one_deliveries_per_s": one["deliveries_per_s"],
        "two_deliveries_per_s": two["deliveries_per_s"],
        "deliveries_ratio": two["deliveries_per_s"] / one["deliveries_per_s"],
    }


WORKERS = Alone(
    "workers",
    (100, 500),
    measure,
    {
        "one_p50_ms": Figure("one worker, 100 events/s: p50 ms"),
        "two_p50_ms": Figure("two workers, 100 events/s: p50 ms"),
        "p50_ratio": Figure("p50, two workers ÷ one", "≤ 1"),
        "one_deliveries_per_s": Figure("one worker, burst: deliveries/s"),
        "two_deliveries_per_s": Figure("two workers, burst: deliveries/s"),
        "deliveries_ratio": Figure("deliveries/s, two workers ÷ one", "≥ 1"),
    },
)
