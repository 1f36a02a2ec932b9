"""The run: rounds in which all servers do the same, one after the other, in alternating order."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks import process
from scripts.benchmarks.cases import CASES, Case, Figures, Sizes
from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.load import Phase
from scripts.benchmarks.servers import Server
from scripts.benchmarks.session import LoadSession

WARM_UP = Phase(events=20, careful=1, timeout_secs=20)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured. *clients* maps a number of clients to the cases that run with it."""

    servers: tuple[type[Server], ...]
    clients: dict[int, list[Case]]
    rounds: int
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one server in one case of one round, and how many cores others kept busy meanwhile."""

    round: int
    server: str
    case: str
    clients: int
    figures: Figures
    other_cores: float


@dataclass(slots=True)
class Results:
    """All samples; what was refused; the machine's load average at the start of each round."""

    samples: list[Sample] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    load_averages: list[float] = field(default_factory=list)


def make_plan(
    names: list[str], counts: tuple[int, ...] | None, servers: tuple[type[Server], ...], rounds: int, sizes: Sizes
) -> Plan:
    """Return the plan for the cases called *names*, each with *counts* clients or with its own numbers of them."""
    chosen = [case for name, case in CASES.items() if name in names]
    everywhere = sorted({count for case in chosen for count in counts or case.clients})
    clients = {count: [case for case in chosen if count in (counts or case.clients)] for count in everywhere}
    return Plan(servers, clients, rounds, sizes)


def run(plan: Plan) -> Iterator[str | Results]:
    """Run *plan*; yield a line of progress for each step and at last the Results."""
    results = Results()
    for number in range(1, plan.rounds + 1):
        results.load_averages.append(os.getloadavg()[0])
        yield from _run_round(number, plan, results)
    yield results


def _run_round(number: int, plan: Plan, results: Results) -> Iterator[str]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outfeed-bench-")))
        servers = [stack.enter_context(kind(folder, max(plan.clients))) for kind in plan.servers]
        for server in servers:
            _warm_up(server)
        for turn, (count, cases) in enumerate(plan.clients.items()):
            for server in servers if (number + turn) % 2 else reversed(servers):
                yield f"round {number}: {server.name}, {count} clients"
                _run_cases(number, server, count, cases, plan.sizes, results)


def _warm_up(server: Server) -> None:
    with LoadSession(server, clients=1) as load:
        load.run(WARM_UP, per_second=100)


def _run_cases(number: int, server: Server, count: int, cases: list[Case], sizes: Sizes, results: Results) -> None:
    """Run *cases* on one set of clients; where one is refused, so are those after it."""
    try:
        with LoadSession(server, count) as load:
            for case in cases:
                started, others = time.monotonic(), _others_seconds(load)
                figures = case.measure(load, sizes)
                other_cores = (_others_seconds(load) - others) / (time.monotonic() - started)
                results.samples.append(Sample(number, server.name, case.name, count, figures, other_cores))
    except BenchError as error:
        results.refused.append(f"round {number}, {count} clients: {error}")


def _others_seconds(load: LoadSession) -> float:
    """Return the CPU time of all that is not this bench, since the machine booted."""
    return process.busy_seconds() - process.own_seconds() - load.cpu_seconds
