"""The run: rounds in which all servers do the same, one after the other, in alternating order, and Outfeed its own."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks import process
from scripts.benchmarks.alone.case import Alone
from scripts.benchmarks.alone.table import ALONE
from scripts.benchmarks.cases import CASES, Case, Figures, Sizes
from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.load import Phase
from scripts.benchmarks.servers import Outfeed, Server
from scripts.benchmarks.session import LoadSession
from scripts.benchmarks.stage import Stage

WARM_UP = Phase(events=20, careful=1, timeout_secs=20)


Group = tuple[int, list[Case]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured: *sittings*, each with servers of its own, and cases of Outfeed by itself.

    A sitting is a list of groups: a number of clients, and the cases that have the same clients.
    *left_out* says which peers can't be measured here, and why.
    """

    servers: tuple[type[Server], ...]
    sittings: list[list[Group]]
    alone: list[tuple[Alone, int]]
    rounds: int
    sizes: Sizes
    left_out: tuple[str, ...] = ()


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
    chosen = [(case, count) for name, case in CASES.items() if name in names for count in counts or case.clients]
    sittings: list[list[Group]] = [[(count, [case])] for case, count in chosen if case.is_apart]
    shared = [(case, count) for case, count in chosen if not case.is_apart]
    if shared:
        counts_of_all = sorted({count for _, count in shared})
        sittings.append([(count, [case for case, each in shared if each == count]) for count in counts_of_all])
    alone = [(case, count) for name, case in ALONE.items() if name in names for count in _own_counts(case, counts)]
    return Plan(servers, sittings, alone, rounds, sizes)


def _own_counts(case: Alone, counts: tuple[int, ...] | None) -> tuple[int, ...]:
    return counts if counts and case.clients != (0,) else case.clients


def run(plan: Plan) -> Iterator[str | Results]:
    """Run *plan*; yield a line of progress for each step and at last the Results."""
    results = Results()
    with tempfile.TemporaryDirectory(prefix="outfeed-bench-") as folder:
        stage = Stage(Path(folder), plan.sizes)
        for stage.round in range(1, plan.rounds + 1):
            results.load_averages.append(os.getloadavg()[0])
            for groups in plan.sittings:
                yield from _run_together(stage, plan, groups, results)
            yield from _run_alone(stage, plan, results)
    yield results


def _run_together(stage: Stage, plan: Plan, groups: list[Group], results: Results) -> Iterator[str]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=stage.folder)))
        most = max(count for count, _ in groups)
        servers = [stack.enter_context(kind(folder, most)) for kind in plan.servers]
        for server in servers:
            _warm_up(server)
        for turn, (count, cases) in enumerate(groups):
            for server in servers if (stage.round + turn) % 2 else reversed(servers):
                yield f"round {stage.round}: {server.name}, {count} clients"
                _run_cases(stage.round, server, count, cases, plan.sizes, results)


def _run_alone(stage: Stage, plan: Plan, results: Results) -> Iterator[str]:
    for case, count in plan.alone:
        yield f"round {stage.round}: {case.name}" + (f", {count} clients" if count else "")
        try:
            started, others = time.monotonic(), process.busy_seconds() - process.own_seconds()
            figures = case.measure(stage, count)
            # All that it started has ended by now, so it counts as own.
            spent = process.busy_seconds() - process.own_seconds() - others
            other_cores = spent / (time.monotonic() - started)
            results.samples.append(Sample(stage.round, Outfeed.name, case.name, count, figures, other_cores))
        except BenchError as error:
            results.refused.append(f"round {stage.round}, {case.name}: {error}")


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
