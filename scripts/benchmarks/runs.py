"""The run: rounds in which the checkouts alternate."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks.cases import Case, Figures, Sizes, Stage
from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.servers import Checkout


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan: cases with their numbers of clients, on one or two checkouts."""

    checkouts: tuple[Checkout, ...]
    cases: list[tuple[Case, int]]
    rounds: int
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one checkout in one case of one round."""

    round: int
    checkout: str
    case: str
    clients: int
    figures: Figures


@dataclass(slots=True)
class Results:
    """All samples, the reasons for missing ones, and the load averages.

    Each load average is that at the start of a round.
    """

    samples: list[Sample] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    load_averages: list[float] = field(default_factory=list)


def run(plan: Plan, report: Callable[[str], None]) -> Results:
    """Run *plan* and pass each step to *report*.

    The checkouts alternate from case to case and from round to round.
    """
    results = Results()
    with tempfile.TemporaryDirectory(prefix="outfeed-bench-") as folder:
        stages = [Stage(checkout, Path(folder), plan.sizes) for checkout in plan.checkouts]
        for number in range(1, plan.rounds + 1):
            results.load_averages.append(os.getloadavg()[0])
            for place, (case, clients) in enumerate(plan.cases):
                for stage in stages if (number + place) % 2 else reversed(stages):
                    _measure(number, stage, case, clients, results, report)
    return results


def _measure(
    number: int, stage: Stage, case: Case, clients: int, results: Results, report: Callable[[str], None]
) -> None:
    step = f"round {number}, {stage.checkout.name}: {case.name}" + (f", {clients} clients" if clients else "")
    report(step)
    try:
        figures = case.measure(stage, clients)
        results.samples.append(Sample(number, stage.checkout.name, case.name, clients, figures))
    except BenchError as error:
        results.refused.append(f"{step}: {error}")
