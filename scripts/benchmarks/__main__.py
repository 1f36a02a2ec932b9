"""The command: `scripts/bench [CASE]… [options]`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from scripts.benchmarks import plot, process, report
from scripts.benchmarks.alone.table import ALONE
from scripts.benchmarks.cases import CASES, Sizes
from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.peers.table import PEERS
from scripts.benchmarks.rounds import Plan, Results, make_plan, run
from scripts.benchmarks.servers import Outfeed, Server

# Heartbeats come every 15 seconds.
FULL = Sizes(
    paced_secs=3,
    idle_secs=15,
    burst_events=2000,
    peer_burst_events=500,
    viewers_secs=10,
    stored_events=3_000_000,
    behind_events=300_000,
    turns=20,
    posted_events=40_000,
)
QUICK = Sizes(
    paced_secs=2,
    idle_secs=2,
    burst_events=2000,
    peer_burst_events=250,
    viewers_secs=2,
    stored_events=100_000,
    behind_events=30_000,
    turns=4,
    posted_events=4000,
)


def whole_numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers above zero from *text*, where commas stand between them."""
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise ValueError
    return numbers


@click.command(epilog="Example: scripts/bench latency --clients 100")
@click.argument("cases", nargs=-1, type=click.Choice([*CASES, *ALONE]), metavar="[CASE]...")
@click.option(
    "--clients", type=whole_numbers, metavar="N,N…", help="Numbers of clients for every case, instead of its own."
)
@click.option("--rounds", type=click.IntRange(1, 100), help="Rounds; 3 if not given.")
@click.option("--seconds", type=click.FloatRange(1, 600), help="Seconds of events, or of quiet, in every case.")
@click.option("--stored", type=click.IntRange(100, 50_000_000), help="Events stored already; 3,000,000 if not given.")
@click.option("--peers", default=",".join(PEERS), show_default=True, help="Peers to measure beside; '' for none.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write every sample here.")
@click.option("--svg", "svg_path", type=click.Path(path_type=Path, dir_okay=False), help="Draw a plot here.")
@click.option("--quick", is_flag=True, help="One round with less of everything.")
def main(
    cases: tuple[str, ...],
    clients: tuple[int, ...] | None,
    rounds: int | None,
    seconds: float | None,
    stored: int | None,
    peers: str,
    json_path: Path | None,
    svg_path: Path | None,
    quick: bool,
) -> None:
    """Measure Outfeed.

    \b
    Beside its peers:
      idle      connected clients and no events: CPU, and memory a client
      latency   100 events/s, from the INSERT to each client
      burst     single commits as fast as they go
      commits   the same in commits of 100
    By itself:
      paced     viewers as the page has them, at 100 events/s: CPU
      write     log_event beside a bare INSERT; POST /api/events by 4, 1 and 100 producers
      start     a restart with a full database, until a page is served and all viewers are back
      resume    one client, and twenty at once, from far behind
      growth    the cost of an event and viewer, against viewers and stored events
      workers   latency and burst, two workers beside one

    Without a CASE all of them. Progress goes to standard error, a Markdown table to standard output. Exits 1, and gives
    no figure for the case, when a client missed an event or got it twice or out of order.
    """
    process.raise_descriptor_limit()
    sizes = _sizes(QUICK if quick else FULL, seconds, stored)
    names = list(cases or [*CASES, *ALONE])
    servers, left_out = _servers(peers) if set(names) & set(CASES) else ((Outfeed,), ())
    plan = replace(make_plan(names, clients, servers, rounds or (1 if quick else 3), sizes), left_out=left_out)
    try:
        results = _run(plan)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    click.echo(report.markdown(plan, results))
    if json_path:
        report.write_json(json_path, plan, results)
    if svg_path:
        svg_path.write_text(plot.svg(results), encoding="utf-8")
    sys.exit(1 if results.refused else 0)


def _sizes(sizes: Sizes, seconds: float | None, stored: int | None) -> Sizes:
    if seconds:
        sizes = replace(sizes, paced_secs=seconds, idle_secs=seconds, viewers_secs=seconds)
    return replace(sizes, stored_events=stored) if stored else sizes


def _servers(peers: str) -> tuple[tuple[type[Server], ...], tuple[str, ...]]:
    """Return Outfeed with the peers that can be measured here, and what must be said of the others."""
    names = [name for name in peers.split(",") if name]
    if unknown := sorted(set(names) - set(PEERS)):
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; there are {', '.join(PEERS)}", param_hint="--peers")
    missing = {name: reason for name in names if (reason := PEERS[name].missing())}
    left_out = tuple(f"{name}, for want of {reason}" for name, reason in missing.items())
    return (Outfeed, *(PEERS[name] for name in names if name not in missing)), left_out


def _run(plan: Plan) -> Results:
    for step in run(plan):
        if isinstance(step, Results):
            return step
        click.echo(step, err=True)
    raise BenchError("the run gave no results")


if __name__ == "__main__":
    main(prog_name="scripts/bench")
