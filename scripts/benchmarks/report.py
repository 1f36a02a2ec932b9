"""The report: medians and ranges over rounds, ratios within rounds.

It is written as Markdown and as JSON.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.benchmarks.cases import BURST_EVENTS, LABELS
from scripts.benchmarks.runs import Plan, Results


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one case: each checkout's value in each round."""

    case: str
    clients: int
    figure: str
    values: dict[str, dict[int, float]]

    @property
    def ratios(self) -> list[float]:
        """Return this checkout's value divided by the base's, for complete rounds."""
        this, base = self.values.get("this", {}), self.values.get("base", {})
        return [this[number] / base[number] for number in sorted(this.keys() & base.keys()) if base[number]]


def rows(plan: Plan, results: Results) -> Iterator[Row]:
    """Yield the rows of the report in the order of the plan."""
    for case, clients in plan.cases:
        samples = [s for s in results.samples if (s.case, s.clients) == (case.name, clients)]
        for figure in filter(LABELS.__contains__, samples[0].figures if samples else ()):
            values: dict[str, dict[int, float]] = {}
            for sample in samples:
                values.setdefault(sample.checkout, {})[sample.round] = sample.figures[figure]
            yield Row(case.name, clients, figure, values)


def markdown(plan: Plan, results: Results) -> str:
    """Return the table and the conditions of the measurement."""
    names = [checkout.name for checkout in plan.checkouts]
    is_pair = len(names) > 1
    head = [
        "case",
        "clients",
        "figure",
        *(names if is_pair else []),
        ("this ÷ base" * is_pair or "median") + " (range)",
    ]
    lines = [head, ["---"] * len(head)]
    for row in rows(plan, results):
        medians = [_median(row.values.get(name, {}).values()) for name in names] if is_pair else []
        spread = _spread(row.ratios if is_pair else [*row.values[names[0]].values()])
        lines.append([row.case, str(row.clients or ""), LABELS[row.figure], *medians, spread])
    table = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([*table, "", *_notes(plan, results), *(f"refused: {reason}" for reason in results.refused)])


def write_json(path: Path, plan: Plan, results: Results) -> None:
    """Write the rows, every sample, and the conditions."""
    document = {
        "checkouts": {checkout.name: checkout.commit for checkout in plan.checkouts},
        "sizes": asdict(plan.sizes),
        "rounds": plan.rounds,
        "machine": _machine(),
        "rows": [asdict(row) | {"ratios": row.ratios} for row in rows(plan, results)],
        **asdict(results),
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _median(values: Iterable[float]) -> str:
    found = list(values)
    return _number(statistics.median(found)) if found else ""


def _spread(values: list[float]) -> str:
    spread = f" ({_number(min(values))}–{_number(max(values))})" if len(values) > 1 else ""
    return _median(values) + spread


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _notes(plan: Plan, results: Results) -> list[str]:
    sizes, averages = plan.sizes, ", ".join(f"{average:.2f}" for average in results.load_averages)
    checkouts = ", ".join(f"{checkout.name} {checkout.commit}" for checkout in plan.checkouts)
    return [
        f"Medians of {plan.rounds} rounds on {checkouts}; ratios are within a round.",
        f"Seconds: latency {sizes.paced_secs:g}, paced {sizes.viewers_secs:g}, idle {sizes.idle_secs:g}.",
        f"Events: burst {BURST_EVENTS:,}, resume {sizes.behind_events:,}. Number and order of all were checked.",
        f"{_machine()}. Load average at the start of each round: {averages}.",
    ]


def _machine() -> str:
    cores = Path("/proc/cpuinfo").read_text(encoding="utf-8").count("processor\t")
    software = f"Linux {platform.release()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return f"{cores} cores, {software}"
