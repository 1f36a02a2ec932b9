"""The report: medians and ranges over the rounds, ratios within them; as Markdown and as JSON."""

from __future__ import annotations

import json
import platform
import sqlite3
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.benchmarks.alone.case import Figure
from scripts.benchmarks.alone.table import ALONE
from scripts.benchmarks.cases import CASES
from scripts.benchmarks.rounds import Plan, Results

OURS = "outfeed"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one case, for each server: its value in each round."""

    case: str
    clients: int
    figure: str
    values: dict[str, dict[int, float]]


# What is not listed stands in the JSON alone.
LABELS = {
    "idle_core_percent": "idle, % of a core",
    "memory_mib": "idle, memory, MiB",
    "kib_a_client": "idle, KiB a client",
    "p50_ms": "100 events/s, p50 ms",
    "p99_ms": "100 events/s, p99 ms",
    "write_p50_ms": "100 events/s, of which the write, p50 ms",
    "server_core_percent": "100 events/s, server % of a core",
    "deliveries_per_s": "deliveries/s",
    "cpu_us": "server CPU, µs a delivery",
    "burst_p50_ms": "p50 ms",
    "burst_p99_ms": "p99 ms",
    "written_per_s": "events written/s",
}
PREFIXES = {"burst": "burst: ", "commits": "burst in commits of 100: "}


def rows(results: Results) -> Iterator[Row]:
    """Yield the rows in the order of the cases, then of the clients."""
    order = [*CASES, *ALONE]
    keys = sorted({(order.index(sample.case), sample.clients) for sample in results.samples})
    for place, clients in keys:
        samples = [s for s in results.samples if (s.case, s.clients) == (order[place], clients)]
        shown = ALONE[order[place]].figures if order[place] in ALONE else LABELS
        for figure in filter(shown.__contains__, samples[0].figures):
            values: dict[str, dict[int, float]] = {}
            for sample in samples:
                values.setdefault(sample.server, {})[sample.round] = sample.figures[figure]
            yield Row(order[place], clients, figure, values)


def markdown(plan: Plan, results: Results) -> str:
    """Return the tables and what belongs to them."""
    found = list(rows(results))
    together = [row for row in found if row.case in CASES]
    alone = [row for row in found if row.case in ALONE]
    tables = [*(_together(plan, together) if together else []), *(_alone(alone) if alone else [])]
    refused = [f"refused: {reason}" for reason in results.refused]
    return "\n".join([*tables, *_notes(plan, results), *refused])


def _together(plan: Plan, found: list[Row]) -> list[str]:
    names = [server.name for server in plan.servers]
    peers = [name for name in names if name != OURS]
    head = ["case", "clients", *names, *(f"{OURS} ÷ {peer}" for peer in peers)]
    return _table(head, [_cells(row, names, peers) for row in found])


def _alone(found: list[Row]) -> list[str]:
    return _table(["outfeed by itself", "clients", "figure", "goal"], [_own_cells(row) for row in found])


def _own_cells(row: Row) -> list[str]:
    figure: Figure = ALONE[row.case].figures[row.figure]
    clients = str(row.clients) if row.clients else ""
    return [f"{row.case}: {figure.label}", clients, _value(row, OURS), figure.goal]


def write_json(path: Path, plan: Plan, results: Results) -> None:
    """Write every sample, and what is needed to read them."""
    document = {
        "sizes": asdict(plan.sizes),
        "rounds": plan.rounds,
        "left_out": plan.left_out,
        "machine": _machine(),
        "load_averages": results.load_averages,
        "refused": results.refused,
        "samples": [asdict(sample) for sample in results.samples],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _cells(row: Row, names: list[str], peers: list[str]) -> list[str]:
    label = PREFIXES.get(row.case, "") + LABELS[row.figure]
    return [label, str(row.clients), *(_value(row, name) for name in names), *(_ratio(row, peer) for peer in peers)]


def _value(row: Row, name: str) -> str:
    values = list(row.values.get(name, {}).values())
    if not values:
        return "refused"
    median = _number(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({_number(min(values))}–{_number(max(values))})"


def _ratio(row: Row, peer: str) -> str:
    """Return the median of the ratios within each round."""
    ours, theirs = row.values.get(OURS, {}), row.values.get(peer, {})
    ratios = [ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number]]
    return f"{statistics.median(ratios):.3g}" if ratios else ""


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _notes(plan: Plan, results: Results) -> list[str]:
    sizes, averages = plan.sizes, ", ".join(f"{average:.2f}" for average in results.load_averages)
    how = f"Medians (and ranges) of {plan.rounds} rounds; ratios are taken within a round."
    paced = f"100 events/s for {sizes.paced_secs:g} s"
    burst = f"bursts of {sizes.burst_events:,} events, {sizes.peer_burst_events:,} for the peers"
    others = sorted(sample.other_cores for sample in results.samples) or [0.0]
    busy = f"{statistics.median(others):.2f} ({others[0]:.2f}–{others[-1]:.2f})"
    stored = f"{sizes.stored_events:,} events stored in start and growth, {sizes.behind_events:,} behind in resume"
    left_out = [f"Left out: {'; '.join(plan.left_out)}."] if plan.left_out else []
    return [
        f"{how} Every client's events were checked for number and order.",
        f"{paced}, viewers watch for {sizes.viewers_secs:g} s; {burst}, which take one event at a time; {stored}.",
        f"{_machine()}. Load average at the start of each round {averages}; beside the bench {busy} cores were busy.",
        *left_out,
    ]


def _machine() -> str:
    cores = Path("/proc/cpuinfo").read_text(encoding="utf-8").count("processor\t")
    software = f"Linux {platform.release()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return f"{cores} cores, {software}"


def _table(head: list[str], lines: list[list[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, lines), ""]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
