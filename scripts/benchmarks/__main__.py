"""The command: `scripts/bench [CASE]… [options]`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from scripts.benchmarks import process, report
from scripts.benchmarks.cases import CASES, Sizes
from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.rounds import Plan, Results, make_plan, run
from scripts.benchmarks.servers import PEERS, Outfeed, Server, is_installed

FULL = Sizes(paced_secs=3, idle_secs=3, burst_events=2000, peer_burst_events=500)
QUICK = Sizes(paced_secs=2, idle_secs=2, burst_events=2000, peer_burst_events=250)


def whole_numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers above zero from *text*, where commas stand between them."""
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise ValueError
    return numbers


@click.command(epilog="Example: scripts/bench latency --clients 100")
@click.argument("cases", nargs=-1, type=click.Choice(list(CASES)), metavar="[CASE]...")
@click.option(
    "--clients", type=whole_numbers, metavar="N,N…", help="Numbers of clients for every case, instead of its own."
)
@click.option("--rounds", type=click.IntRange(1, 100), help="Rounds; 3 if not given.")
@click.option("--seconds", type=click.FloatRange(1, 600), help="Seconds at 100 events/s; 3 if not given.")
@click.option("--peers", default=",".join(PEERS), show_default=True, help="Peers to measure beside; '' for none.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write every sample here.")
@click.option("--quick", is_flag=True, help="One round with less of everything, about a minute.")
def main(
    cases: tuple[str, ...],
    clients: tuple[int, ...] | None,
    rounds: int | None,
    seconds: float | None,
    peers: str,
    json_path: Path | None,
    quick: bool,
) -> None:
    """Measure Outfeed beside its peers: idle, latency, burst (single commits), commits (of 100).

    Without a CASE all of them. Progress goes to standard error, a Markdown table to standard output. Exits 1, and gives
    no figure for the case, when a client missed an event or got it twice or out of order.
    """
    process.raise_descriptor_limit()
    sizes = QUICK if quick else FULL
    if seconds:
        sizes = Sizes(seconds, sizes.idle_secs, sizes.burst_events, sizes.peer_burst_events)
    plan = make_plan(list(cases or CASES), clients, _servers(peers), rounds or (1 if quick else 3), sizes)
    try:
        results = _run(plan)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    click.echo(report.markdown(plan, results))
    if json_path:
        report.write_json(json_path, plan, results)
    sys.exit(1 if results.refused else 0)


def _servers(peers: str) -> tuple[type[Server], ...]:
    names = [name for name in peers.split(",") if name]
    if unknown := sorted(set(names) - set(PEERS)):
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; there are {', '.join(PEERS)}", param_hint="--peers")
    missing = [name for name in names if not is_installed(PEERS[name])]
    for name in missing:
        click.echo(f"left out, not installed: {name} (needs {', '.join(PEERS[name].needs)})", err=True)
    return (Outfeed, *(PEERS[name] for name in names if name not in missing))


def _run(plan: Plan) -> Results:
    for step in run(plan):
        if isinstance(step, Results):
            return step
        click.echo(step, err=True)
    raise BenchError("the run gave no results")


if __name__ == "__main__":
    main(prog_name="scripts/bench")
